//! What is to go to JetStream, in the hands of one task: it publishes, and notices when JetStream lost something.
//!
//! However long NATS is away or takes, only this task waits for it. What it holds is bounded by the window: so many
//! deliveries of each function, so many bytes in all. After each gap in the connection the stream is looked at before
//! anything is published into it, for what is published behind a lost tail would hide that it is lost.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::context::PublishErrorKind;
use futures_util::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::{
    ambient::{self, Every, sleep},
    carrier::Carrier,
    failpoint::{self, Failpoint},
    log::backlog::Due,
    owner::Owner,
    target::Target,
    window::Sent,
};

/// How often the stream and its consumers are looked at.
const CHECK: Duration = Duration::from_secs(10);
/// Before a stream is looked at again that could not be looked at after a gap.
const AGAIN: Duration = Duration::from_millis(500);
/// How often silent messages are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// A message that nobody asked to begin for so long may be gone.
const SILENT: Duration = Duration::from_secs(30);
/// So many of them are looked for at once; the others have their turn at the next sweep.
const LOOKED_FOR: usize = 32;
/// Before trying again what JetStream did not take; doubled each time.
const BACKOFF: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(5);

/// Where deliveries to functions are posted. Clones share it.
#[derive(Clone)]
pub(crate) struct Outbox {
    parcels: UnboundedSender<Parcel>,
}

/// Deliveries to one function.
struct Parcel {
    class: &'static str,
    target: Target,
    due: Vec<Due>,
    /// How often it was not taken.
    tries: u32,
}

/// The task behind it.
pub(crate) struct Postman<C> {
    owner: Owner,
    carrier: C,
    outbox: Outbox,
    parcels: UnboundedReceiver<Parcel>,
    /// JetStream takes nothing, and that was said.
    refused: Arc<AtomicBool>,
    /// The stream as it was when it was looked at last.
    known: Option<String>,
}

impl Outbox {
    pub(crate) fn new<C>(owner: Owner, carrier: C) -> (Self, Postman<C>) {
        let (sender, parcels) = unbounded_channel();
        let outbox = Self { parcels: sender };
        let postman = Postman { owner, carrier, outbox: outbox.clone(), parcels, refused: Arc::default(), known: None };
        (outbox, postman)
    }

    /// Returns at once.
    pub(crate) fn post(&self, class: &'static str, target: &Target, due: Vec<Due>) {
        self.send(Parcel { class, target: target.clone(), due, tries: 0 });
    }

    fn send(&self, parcel: Parcel) {
        // The task is gone: the bus ends, and what is not published stays in the log.
        let _ = self.parcels.send(parcel);
    }
}

impl<C: Carrier> Postman<C> {
    /// Runs until shut down.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        loop {
            self.carrier.connected().await;
            let lost = self.carrier.disconnected();
            tokio::select! {
                biased;
                () = lost => {}
                () = self.serve() => {}
            }
        }
    }

    /// As long as there is a connection.
    async fn serve(&mut self) {
        while !self.check(true).await {
            sleep(AGAIN).await;
        }
        say(&self.refused, None);
        let (mut sweep, mut check) = (Every::later(SWEEP), Every::later(CHECK));
        loop {
            tokio::select! {
                // in this order, so that what comes seldom is not kept waiting by what comes always
                biased;
                () = check.tick() => {
                    self.check(false).await;
                }
                () = sweep.tick() => self.look_for_silent().await,
                parcel = self.parcels.recv() => match parcel {
                    Some(parcel) => self.publish(parcel).await,
                    None => return std::future::pending().await,
                },
            }
        }
    }

    /// Publishes a parcel; the acknowledgements are awaited aside, so that the next one need not wait. What is not
    /// taken comes back after a while.
    async fn publish(&self, mut parcel: Parcel) {
        let target = parcel.target.clone();
        // Set before anything can be cut off by the end of the connection: then it comes back by itself.
        let lost = self.carrier.disconnected();
        {
            let window = self.owner.window();
            parcel.due.retain(|due| window.is_publishing(&target, due.row, due.publication));
        }
        let mut returning = Returning { outbox: self.outbox.clone(), parcel: Some(parcel) };
        let Some(parcel) = &mut returning.parcel else { return };
        let mut sent = Vec::with_capacity(parcel.due.len());
        let mut refusal = None;
        for due in &parcel.due {
            match self.carrier.publish(parcel.class, &target, due).await {
                Ok(ack) => {
                    failpoint::reach(Failpoint::PublishSent);
                    sent.push((due.row, due.publication, ack));
                }
                // too large for this server, whatever was left out: only this one
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => refusal = Some(error.to_string()),
                Err(error) => {
                    refusal = Some(error.to_string());
                    break;
                }
            }
        }
        let Some(mut parcel) = returning.parcel.take() else { return };
        let (owner, outbox, refused) = (self.owner.clone(), self.outbox.clone(), self.refused.clone());
        ambient::spawn(async move {
            let acks = sent.into_iter().map(async |(row, publication, ack)| (row, publication, ack.await));
            let acks = tokio::select! {
                biased;
                acks = join_all(acks) => acks,
                // Nobody will say any more; what was stored is told by its id when it is sent again.
                () = lost => Vec::new(),
            };
            let mut wake = false;
            {
                let mut window = owner.window();
                let laden = window.is_laden(&target);
                for (row, publication, ack) in acks {
                    match ack {
                        Ok(ack) => {
                            failpoint::reach(Failpoint::PublishAcked);
                            window.published(&target, row, publication, ack.sequence, ambient::instant());
                        }
                        Err(error) => refusal = Some(error.to_string()),
                    }
                }
                wake |= laden && !window.is_laden(&target);
                parcel.due.retain(|due| window.is_publishing(&target, due.row, due.publication));
            }
            if wake {
                owner.wake();
            }
            say(&refused, refusal.as_deref());
            if !parcel.due.is_empty() {
                if refusal.is_some() {
                    sleep((BACKOFF * 2_u32.saturating_pow(parcel.tries.min(8))).min(LONGEST)).await;
                    parcel.tries += 1;
                }
                outbox.send(parcel);
            }
        });
    }

    /// Compares the stream with what it took: another life, a tail cut off or a purge, and what was not begun is
    /// published anew. Also mends what was changed of the stream and its consumers. False: it could not be looked at.
    async fn check(&mut self, after_a_gap: bool) -> bool {
        // looked at before the stream is: what is taken meanwhile is no loss
        let last = self.owner.window().last_sent();
        let classes: BTreeSet<&'static str> = self.owner.catalog().functions.values().map(|f| f.class).collect();
        let found = match self.carrier.incarnation(&classes).await {
            Ok(found) => found,
            Err(error) => {
                say(&self.refused, Some(&error.to_string()));
                return false;
            }
        };
        let another = self.known.as_ref().is_some_and(|id| *id != found.id);
        let cut = match &last {
            Some(last) if found.last_sequence < last.sequence => true,
            // a server that was restarted may have lost its tail and taken other messages since
            Some(last) if after_a_gap => self.is_gone(last).await,
            _ => false,
        };
        let before = (!another && !cut).then_some(found.first_sequence);
        let rows = self.owner.window().unbegun(before);
        if !rows.is_empty() && (another || cut) {
            tracing::warn!(
                deliveries = rows.len(),
                "NATS lost what was on its way; it is published anew from the log, nothing is lost"
            );
        }
        if !self.publish_anew(&rows).await {
            return false;
        }
        self.known = Some(found.id);
        true
    }

    /// Publishes anew what vanished one by one.
    async fn look_for_silent(&self) {
        let silent = self.owner.window().silent(ambient::instant(), SILENT, LOOKED_FOR);
        for sent in silent {
            if self.is_gone(&sent).await {
                self.publish_anew(&[(sent.target, sent.id.row())]).await;
            }
        }
    }

    /// Nothing is missing when somebody asked to begin it meanwhile.
    async fn is_gone(&self, sent: &Sent) -> bool {
        !self.carrier.is_stored(sent).await && self.owner.window().is_sent(sent)
    }

    async fn publish_anew(&self, deliveries: &[(Target, i64)]) -> bool {
        if deliveries.is_empty() {
            return true;
        }
        let anew = self.owner.publish_anew(deliveries).await;
        anew.inspect_err(|error| tracing::error!(%error, "deliveries could not be prepared to be published anew"))
            .is_ok()
    }
}

/// A parcel that goes back when it is dropped: its publication was cut off.
struct Returning {
    outbox: Outbox,
    parcel: Option<Parcel>,
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let Some(parcel) = self.parcel.take() {
            self.outbox.send(parcel);
        }
    }
}

/// Says once that JetStream takes nothing, and once that it does again.
fn say(refused: &AtomicBool, refusal: Option<&str>) {
    match refusal {
        Some(reason) if !refused.swap(true, Ordering::Relaxed) => {
            tracing::warn!("JetStream did not take deliveries, they wait in the log and are tried again: {reason}");
        }
        Some(reason) => tracing::debug!("JetStream did not take deliveries: {reason}"),
        None if refused.swap(false, Ordering::Relaxed) => tracing::info!("JetStream takes deliveries again"),
        None => {}
    }
}
