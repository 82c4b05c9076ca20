//! From the log on its way: keeps each target's window full, puts retries back in when they are due, and ends what was
//! lost. It never waits for NATS or for any target: deliveries to functions go to the [`crate::outbox`], others to the
//! sender.
//!
//! Nothing here is remembered across a restart but what the log holds: what was published before is published again,
//! and `begin` sorts out the rest.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::{self, Every, sleep},
    carrier::Carrier,
    jump::Clocks,
    log::{
        LogError,
        backlog::{self, Due},
        unrun,
    },
    name::Name,
    outbox::{Outbox, Postman},
    outcome::{Ending, Outcome},
    owner::Owner,
    target::Target,
    window::{Fill, LEASE, LOAD},
};

/// Rows loaded and published at once: one lane's turn.
const CHUNK: usize = 256;
/// How often leases are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// Before trying again what the log did not do.
const BACKOFF: Duration = Duration::from_millis(200);
/// Bytes of bodies loaded at once.
const BYTES: usize = LOAD / 4;

pub struct Relay<C> {
    owner: Owner,
    carrier: C,
    outbox: Outbox,
    /// Until it runs.
    postman: Option<Postman<C>>,
}

impl<C: Carrier> Relay<C> {
    pub fn new(owner: Owner, carrier: C) -> Self {
        let (outbox, postman) = Outbox::new(owner.clone(), carrier.clone());
        Self { owner, carrier, outbox, postman: Some(postman) }
    }

    /// Runs until shut down. Trouble with the log is logged and tried again.
    pub async fn run(mut self, shutdown: CancellationToken) {
        if let Some(postman) = self.postman.take() {
            ambient::spawn(postman.run(shutdown.clone()));
        }
        let mut sweep = Every::new(SWEEP);
        let mut swept = ambient::instant();
        let mut clocks = Clocks::new(ambient::now(), ambient::instant());
        loop {
            tokio::select! {
                // in this order, so that what comes seldom is not kept waiting by what comes always
                biased;
                () = shutdown.cancelled() => return,
                () = sweep.tick() => {
                    let late = ambient::instant().saturating_duration_since(swept) > LEASE / 2;
                    self.sweep(late).await;
                    swept = ambient::instant();
                }
                () = self.owner.woken() => {}
                () = until_due(self.owner.next_due()) => {}
            }
            // each time: a clock that is set ahead and back again is to be seen in between
            self.look_at_the_clock(&mut clocks).await;
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

    /// Loads and hands over until every lane is full or empty.
    async fn fill(&self) -> Result<(), LogError> {
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
                if self.owner.window().is_laden(&fill.target) {
                    self.owner.window().unfilled(&fill);
                    continue;
                }
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
                let mut rows: Vec<Due> = Vec::new();
                let (most, mut bytes) = (wanted.bytes.min(BYTES), 0);
                for (n, row) in wanted.again.iter().enumerate() {
                    if bytes >= most {
                        return Ok((rows, true, wanted.again[n..].to_vec()));
                    }
                    let found = backlog::pending_row(connection, *row)?;
                    bytes += found.as_ref().map_or(0, |due| due.event.data.len());
                    rows.extend(found);
                }
                let mut cut = false;
                if wanted.room > 0 {
                    let (target, left) = (wanted.target.to_string(), most.saturating_sub(bytes));
                    let (found, more) = backlog::pending(connection, &target, wanted.after, wanted.room, left)?;
                    rows.extend(found);
                    cut = more;
                }
                Ok::<_, LogError>((rows, cut, Vec::new()))
            })
            .await;
        let (rows, cut, left) = read.inspect_err(|_| self.owner.window().unfilled(&fill))?;
        let due = self.owner.window().loaded(&fill, rows, cut, &left);
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
        if let Some(name) = target.name() {
            let class = self.owner.catalog().functions.get(name).map(|function| function.class);
            match class {
                Some(class) => self.outbox.post(class, target, due),
                None => return self.start_runs(name, due).await,
            }
        } else {
            for due in due {
                self.carrier.send(target, due);
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
        let (old, due): (Vec<Due>, Vec<Due>) =
            due.into_iter().partition(|due| !due.block && due.id.born().time() < oldest);
        let (due, corrupt): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.intact);
        let rows = |due: &[Due]| due.iter().map(|due| due.row).collect::<Vec<i64>>();
        let (old, corrupt) = (rows(&old), rows(&corrupt));
        let ended = async {
            if !old.is_empty() {
                tracing::warn!(%target, deliveries = old.len(), "deliveries expired before they could run");
                self.owner.end_unrun(target, old.clone(), unrun::expire).await?;
            }
            if !corrupt.is_empty() {
                tracing::error!(%target, deliveries = corrupt.len(), "deliveries are dead: what the log has is not what was accepted");
                self.owner.end_unrun(target, corrupt.clone(), unrun::refuse).await?;
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

    /// Ends what was lost.
    async fn sweep(&self, late: bool) {
        let now = ambient::instant();
        let lost = {
            let mut window = self.owner.window();
            if late {
                // We were stopped ourselves, or the machine slept: that says nothing about workers.
                window.renew(now);
            }
            window.lost(now)
        };
        for (target, attempt) in lost {
            tracing::warn!(%target, %attempt, "an attempt was lost: its worker was not heard of");
            let outcome = Outcome::failure(Ending::Lost, "Runtime.Lost", "the worker vanished before it could answer");
            if let Err(error) = self.owner.end(&target, attempt, outcome).await {
                tracing::error!(%error, "a lost attempt could not be closed");
            }
        }
    }
}

async fn until_due(due: Option<DateTime<Utc>>) {
    match due {
        Some(due) => sleep((due - ambient::now()).to_std().unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}
