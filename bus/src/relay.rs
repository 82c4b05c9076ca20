//! From the log to JetStream: keeps each function's window full, puts retries back in when they are due, and
//! notices when JetStream lost something.
//!
//! Nothing here is remembered across a restart but what the log holds: what was published before is published again
//! under the same message id, and `begin` sorts out the rest.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::{self, Every, sleep},
    carrier::Carrier,
    failpoint::{self, Failpoint},
    jump::Clocks,
    log::{
        LogError,
        delivery::{self, Due},
    },
    name::Name,
    outcome::{Ending, Outcome},
    owner::Owner,
    target::Target,
    window::Fill,
};

/// Rows loaded and published at once: one lane's turn.
const CHUNK: usize = 256;
/// How often leases and silent messages are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// How often the stream is compared with what it acknowledged.
const CHECK: Duration = Duration::from_secs(10);
/// A message that nobody asked to begin for so long may be gone.
const SILENT: Duration = Duration::from_secs(30);
/// Before trying again what JetStream did not take.
const BACKOFF: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub struct Relay<C> {
    owner: Owner,
    carrier: C,
}

impl<C: Carrier> Relay<C> {
    pub fn new(owner: Owner, carrier: C) -> Self {
        Self { owner, carrier }
    }

    /// Runs until shut down. Trouble with NATS is waited out; trouble with the log is logged and tried again.
    pub async fn run(self, shutdown: CancellationToken) {
        let (mut sweep, mut check) = (Every::new(SWEEP), Every::new(CHECK));
        let mut known = None;
        let mut clocks = Clocks::new(ambient::now(), ambient::instant());
        loop {
            tokio::select! {
                // in this order, so that what comes seldom is not kept waiting by what comes always
                biased;
                () = shutdown.cancelled() => return,
                () = sweep.tick() => {
                    self.look_at_the_clock(&mut clocks).await;
                    self.sweep().await;
                }
                () = check.tick() => self.check(&mut known).await,
                () = self.owner.woken() => {}
                () = until_due(self.owner.next_due()) => {}
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                filled = self.fill() => if let Err(error) = filled {
                    tracing::error!(%error, "deliveries could not be read from the log");
                    sleep(BACKOFF).await;
                },
            }
        }
    }

    /// Moves the times of retries when the wall clock was set back.
    async fn look_at_the_clock(&self, clocks: &mut Clocks) {
        let before = *clocks;
        let Some(by) = clocks.set_back(ambient::now(), ambient::instant()) else { return };
        tracing::warn!("the clock was set back by {} s; the times of retries are moved with it", by.num_seconds());
        if let Err(error) = self.owner.clock_was_set_back(by).await {
            tracing::error!(%error, "the times of retries could not be moved");
            *clocks = before;
        }
    }

    /// Loads and publishes until every lane is full or empty.
    async fn fill(&self) -> Result<(), LogError> {
        self.carrier.connected().await;
        while self.owner.next_due().is_some_and(|due| due <= ambient::now()) {
            if !self.owner.take_due(ambient::now(), ambient::bound(CHUNK)).await? {
                break;
            }
        }
        loop {
            self.carry_ready().await?;
            let fills = self.owner.window().fills(ambient::bound(CHUNK));
            if fills.is_empty() {
                return Ok(());
            }
            let mut fills = fills.into_iter();
            while let Some(fill) = fills.next() {
                if let Err(error) = self.fill_lane(fill).await {
                    let mut window = self.owner.window();
                    fills.for_each(|fill| window.unfilled(&fill));
                    return Err(error);
                }
            }
        }
    }

    async fn fill_lane(&self, fill: Fill) -> Result<(), LogError> {
        let wanted = fill.clone();
        let read = self
            .owner
            .log()
            .read(move |connection| {
                let mut rows = Vec::new();
                for row in &wanted.again {
                    rows.extend(delivery::pending_row(connection, *row)?);
                }
                if wanted.room > 0 {
                    let target = wanted.target.to_string();
                    rows.extend(delivery::pending(connection, &target, wanted.after, wanted.room)?);
                }
                Ok::<_, LogError>(rows)
            })
            .await;
        let rows = read.inspect_err(|_| self.owner.window().unfilled(&fill))?;
        let due = self.owner.window().loaded(&fill, rows);
        let due = self.runnable(&fill.target, due).await?;
        self.carry(&fill.target, due).await
    }

    /// Hands over what was just written, as it came.
    async fn carry_ready(&self) -> Result<(), LogError> {
        let mut lanes: BTreeMap<Target, Vec<Due>> = BTreeMap::new();
        for (target, due) in self.owner.take_ready() {
            lanes.entry(target).or_default().push(due);
        }
        let mut result = Ok(());
        for (target, due) in lanes {
            // what one target cannot do holds up no other
            result = self.carry(&target, due).await.and(result);
        }
        result
    }

    async fn carry(&self, target: &Target, due: Vec<Due>) -> Result<(), LogError> {
        match target {
            Target::Named(name) => {
                let class = self.owner.catalog().functions.get(name).map(|function| function.class);
                match class {
                    Some(class) => self.publish(class, name, due).await,
                    None => return self.start_runs(name, due).await,
                }
            }
            outside => {
                for due in due {
                    self.carrier.send(outside, due);
                }
            }
        }
        Ok(())
    }

    async fn start_runs(&self, pipeline: &Name, due: Vec<Due>) -> Result<(), LogError> {
        // Handed over together, so that they share commits.
        let runs = due.into_iter().map(|due| self.owner.start_run(pipeline, due));
        join_all(runs).await.into_iter().collect()
    }

    /// Ends what became too old before it could begin, and what is not what was accepted; gives back the rest.
    async fn runnable(&self, target: &Target, due: Vec<Due>) -> Result<Vec<Due>, LogError> {
        let oldest = ambient::now() - self.owner.catalog().retry(target).max_age;
        let (old, due): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.id.born().time() < oldest);
        let (due, corrupt): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.intact);
        let rows = |due: &[Due]| due.iter().map(|due| due.row).collect::<Vec<i64>>();
        let (old, corrupt) = (rows(&old), rows(&corrupt));
        let ended = async {
            if !old.is_empty() {
                tracing::warn!(%target, deliveries = old.len(), "deliveries expired before they could run");
                self.owner.end_unrun(target, old.clone(), delivery::expire).await?;
            }
            if !corrupt.is_empty() {
                tracing::error!(%target, deliveries = corrupt.len(), "deliveries are dead: what the log has is not what was accepted");
                self.owner.end_unrun(target, corrupt.clone(), delivery::refuse).await?;
            }
            Ok(())
        };
        if let Err(error) = ended.await {
            let mut window = self.owner.window();
            for row in old.iter().chain(&corrupt).chain(due.iter().map(|due| &due.row)) {
                window.reload(target, *row);
            }
            return Err(error);
        }
        Ok(due)
    }

    /// Publishes a chunk; the acknowledgements are awaited aside, so that the next chunk need not wait.
    async fn publish(&self, class: &'static str, function: &Name, due: Vec<Due>) {
        let target = Target::from(function.clone());
        let mut sent = Vec::with_capacity(due.len());
        for due in due {
            match self.carrier.publish(class, function, &due).await {
                Ok(ack) => {
                    failpoint::reach(Failpoint::PublishSent);
                    sent.push((due.row, due.publication, ack));
                }
                Err(error) => {
                    tracing::warn!(%error, "a delivery could not be published");
                    self.owner.window().reload(&target, due.row);
                }
            }
        }
        let relay = self.clone();
        ambient::spawn(async move {
            let acks = join_all(sent.into_iter().map(async |(row, publication, ack)| (row, publication, ack.await)));
            let mut failed = false;
            for (row, publication, ack) in acks.await {
                if ack.is_ok() {
                    failpoint::reach(Failpoint::PublishAcked);
                }
                let mut window = relay.owner.window();
                match ack {
                    // A duplicate was stored before; should it be gone by now, the sweep will find out.
                    Ok(ack) => window.published(&target, row, publication, ack.sequence, ambient::instant()),
                    Err(error) => {
                        tracing::debug!(%error, "JetStream did not take a delivery");
                        window.reload(&target, row);
                        failed = true;
                    }
                }
            }
            if failed {
                sleep(BACKOFF).await;
                relay.owner.wake();
            }
        });
    }

    /// Ends what was lost, and publishes anew what vanished.
    async fn sweep(&self) {
        let now = ambient::instant();
        let lost = self.owner.window().lost(now);
        for (target, attempt) in lost {
            tracing::warn!(%target, %attempt, "an attempt was lost: its worker was not heard of");
            let outcome = Outcome::failure(Ending::Lost, "Runtime.Lost", "the worker vanished before it could answer");
            if let Err(error) = self.owner.end(&target, attempt, outcome).await {
                tracing::error!(%error, "a lost attempt could not be closed");
            }
        }
        if !self.carrier.is_connected() {
            return;
        }
        let silent = self.owner.window().silent(now, SILENT);
        for (target, row, sequence) in silent {
            if !self.carrier.is_stored(sequence).await {
                self.publish_anew(&[row]).await;
                self.owner.window().reload(&target, row);
                self.owner.wake();
            }
        }
    }

    /// Compares the stream with what it acknowledged: another life, or a tail cut off, and everything that was not
    /// begun is published anew.
    async fn check(&self, known: &mut Option<String>) {
        if !self.carrier.is_connected() {
            return;
        }
        // looked at before the stream is: what is acknowledged meanwhile is no loss
        let acked = self.owner.window().acked;
        let found = match self.carrier.incarnation().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the stream of deliveries could not be checked");
                return;
            }
        };
        let same = known.as_ref().is_none_or(|id| *id == found.id);
        if !same || found.last_sequence < acked {
            let rows = self.owner.window().stream_lost();
            tracing::warn!(
                deliveries = rows.len(),
                "NATS lost what was on its way; it is published anew from the log, nothing is lost"
            );
            self.publish_anew(&rows).await;
            self.owner.wake();
        }
        *known = Some(found.id);
    }

    async fn publish_anew(&self, rows: &[i64]) {
        let rows = rows.to_vec();
        let raised = self.owner.log().write(move |tx| Ok::<_, LogError>(delivery::publish_anew(tx, &rows)?)).await;
        if let Err(error) = raised {
            tracing::error!(%error, "deliveries could not be prepared to be published anew");
        }
    }
}

async fn until_due(due: Option<DateTime<Utc>>) {
    match due {
        Some(due) => sleep((due - ambient::now()).to_std().unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}
