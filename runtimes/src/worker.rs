//! The worker: pull, lease, begin, render, invoke, end, ack.
//!
//! One task a message, or a batch of them. It waits for an instance first and only then asks the owner to `begin`: lack
//! of capacity burns no attempt. What the task holds is reported to JetStream as in progress, so nobody else gets it meanwhile;
//! the owner's window keeps what one function can pile up here small.
//!
//! Synchronous calls take the same instances by a shorter way: no owner, no acknowledgement, the answer goes straight
//! back to the caller.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus::{
    Bus, Event, Name, Outcome, RowId,
    batch::{self, Batching},
    call::{Called, Calls, QUEUE_WAIT, Refusal},
    deliver::{Delivered, Delivery, Source},
    event::Meta,
    failpoint::{self, Failpoint},
    nats::stream::PROGRESS,
    outcome::Ending,
    owner::Claim,
    payload::{self, Payload},
    streamed::Outlet,
    window::Begin,
};
use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Functions, Invocation, Lease, LeaseError, RuntimeKind, Wanted, ahead,
    gather::{Gathering, Kind},
    lock,
    places::Places,
};

/// Messages that wait for an instance at once, over all functions: more than the owner's window lets hundreds of flooded
/// functions have on their way.
const HELD: usize = 2048;
/// KiB of their bodies.
const HELD_KIB: usize = 256 << 10;
/// A delivery waits for its turn as long as it takes; this only has to be longer than anybody runs a node.
const PATIENCE: Duration = Duration::from_hours(24 * 365);
/// Before the owner is asked again when its log does not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// The worker of a node. Clones share it.
#[derive(Clone)]
pub struct Worker {
    bus: Bus,
    functions: Functions,
    held: Arc<Mutex<HashMap<u64, Held>>>,
    next: Arc<AtomicU64>,
    room: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    calls: Arc<Places>,
    /// What waits to share an invocation.
    gathering: Arc<Gathering<Holding>>,
    tasks: TaskTracker,
    /// Set when no further delivery may begin.
    draining: CancellationToken,
}

/// A message's share of what may wait, in number and in size.
type Room = [OwnedSemaphorePermit; 2];

/// A message in our hands, and the attempt it became.
struct Held {
    delivered: Arc<Delivered>,
    attempt: Option<RowId>,
}

impl Worker {
    pub fn new(bus: Bus, functions: Functions) -> Self {
        Self {
            bus,
            functions,
            held: Arc::default(),
            next: Arc::default(),
            room: Arc::new(Semaphore::new(HELD)),
            memory: Arc::new(Semaphore::new(HELD_KIB)),
            calls: Arc::default(),
            gathering: Arc::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
        }
    }

    /// Runs what comes until shut down, then finishes what has begun, for at most `grace`.
    pub async fn run(self, calls: Calls, grace: Duration, shutdown: CancellationToken) {
        for kind in RuntimeKind::ALL.into_iter().filter(|kind| kind.is_built()) {
            self.tasks.spawn(self.clone().pull(kind));
        }
        let called = tokio::spawn(self.clone().serve(calls));
        let progress = tokio::spawn(self.clone().report_progress());
        let ahead = tokio::spawn(ahead::listen(self.bus.owner().foresight().listen(), self.functions.clone()));
        shutdown.cancelled().await;
        self.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(invocations = self.tasks.len(), "the grace period is over; what still runs is ended");
        }
        called.abort();
        progress.abort();
        ahead.abort();
    }

    async fn pull(self, kind: RuntimeKind) {
        let mut source = Source::new(self.bus.nats().clone(), self.bus.subjects().clone(), kind.as_str());
        loop {
            let next = async {
                let room = self.room.clone().acquire_owned().await.ok()?;
                let delivered = source.next().await;
                let kib = (delivered.event.data.len() >> 10).min(HELD_KIB) as u32;
                let memory = self.memory.clone().acquire_many_owned(kib).await.ok()?;
                Some((delivered, [room, memory]))
            };
            let (delivered, room) = tokio::select! {
                next = next => match next {
                    Some(next) => next,
                    None => return,
                },
                () = self.draining.cancelled() => return,
            };
            let worker = self.clone();
            self.tasks.spawn(async move { worker.deliver(delivered, room).await });
        }
    }

    async fn deliver(self, delivered: Delivered, room: Room) {
        let batching = self.batching(&delivered);
        let held = self.hold(delivered, room);
        let wanted = held.wanted();
        let Some((trigger, batching)) = batching else {
            return self.execute(&wanted, || vec![held], false).await;
        };
        let (target, version) = (held.delivered.target(), self.functions.version_for(&wanted));
        let kind = Kind { target, version, trigger, format: held.delivered.format };
        let bytes = held.delivered.event.data.len();
        let Some(batch) = self.gathering.add(kind, held, bytes, batching) else { return };
        tokio::select! {
            () = batch.filled(batching.window) => {}
            () = self.draining.cancelled() => {}
        }
        self.execute(&wanted, || batch.take(), true).await;
    }

    /// How a delivery is gathered with others of its trigger.
    fn batching(&self, delivered: &Delivered) -> Option<(Name, Batching)> {
        let trigger = delivered.event.trigger.clone()?;
        let batching = self.bus.owner().catalog().batching(&trigger, &delivered.function)?;
        Some((trigger, batching))
    }

    fn hold(&self, delivered: Delivered, room: Room) -> Holding {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let delivered = Arc::new(delivered);
        lock(&self.held).insert(key, Held { delivered: delivered.clone(), attempt: None });
        Holding { worker: self.clone(), key, delivered, room: Some(room) }
    }

    /// Runs one invocation for the deliveries that are there when an instance is.
    async fn execute(&self, wanted: &Wanted, take: impl FnOnce() -> Vec<Holding>, batched: bool) {
        let (owner, function) = (self.bus.owner(), &wanted.function);
        let leased = tokio::select! {
            leased = self.functions.lease_of(wanted, PATIENCE) => leased,
            () = self.draining.cancelled() => return release(&take()).await,
        };
        let held = take();
        let lease = match leased {
            Ok(lease) => Ok(lease),
            Err(LeaseError::Init(outcome)) => Err(*outcome),
            // whoever waited for it would wait for good
            Err(error @ LeaseError::NoVersion { .. }) => Err(no_version(&error)),
            Err(_) => {
                for held in &held {
                    if let Err(error) = owner.give_back(&held.claim()).await {
                        tracing::warn!(%error, "a delivery could not be given back");
                    }
                    held.delivered.ack().await;
                }
                return;
            }
        };
        let claims: Vec<Claim> = held.iter().map(Holding::claim).collect();
        let answers = match owner.begin(&claims).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(%error, function.name = %function, "deliveries could not begin");
                // others may use the instance meanwhile
                drop(lease);
                sleep(AGAIN).await;
                return release(&held).await;
            }
        };
        let mut begun = Vec::with_capacity(held.len());
        for (mut held, answer) in held.into_iter().zip(answers) {
            match answer {
                Begin::Run { attempt, .. } => {
                    held.room = None;
                    begun.push((held, attempt));
                }
                _ => held.delivered.ack().await,
            }
        }
        if begun.is_empty() {
            return;
        }
        self.note_attempts(&begun);
        self.foresee(function);
        let outcomes = match lease {
            Ok(lease) => self.invoke(lease, &begun, batched).await,
            Err(outcome) => Ok(vec![outcome; begun.len()]),
        };
        let outcomes: Vec<Option<Outcome>> = match outcomes {
            Ok(outcomes) => {
                failpoint::reach(Failpoint::InvokeEnded);
                say_failed(function, &begun, &outcomes);
                outcomes.into_iter().map(Some).collect()
            }
            Err(error) => {
                tracing::warn!(%error, function.name = %function, "deliveries to `{function}` could not be run and wait");
                vec![None; begun.len()]
            }
        };
        let ends = begun.iter().zip(outcomes).map(|((held, attempt), outcome)| self.end(held, *attempt, outcome));
        join_all(ends).await;
    }

    /// What follows from a call of a function that ends well is called soon.
    fn foresee(&self, function: &Name) {
        let catalog = self.bus.owner().catalog();
        let Some(chain) = catalog.functions.get(function).map(|f| &f.chain).filter(|chain| !chain.then.is_empty())
        else {
            return;
        };
        let next: Vec<Name> = chain.then.iter().filter_map(|target| target.name().cloned()).collect();
        ahead::follow(&self.functions, &[vec![function.clone()], next]);
    }

    /// From now on it is said of them that they run.
    fn note_attempts(&self, begun: &[(Holding, RowId)]) {
        let mut all = lock(&self.held);
        for (held, attempt) in begun {
            if let Some(held) = all.get_mut(&held.key) {
                held.attempt = Some(*attempt);
            }
        }
    }

    /// The outcome of each, in their order. An error when there was no instance after all: nothing has run.
    async fn invoke(
        &self,
        lease: Lease,
        begun: &[(Holding, RowId)],
        batched: bool,
    ) -> Result<Vec<Outcome>, LeaseError> {
        let Some((first, attempt)) = begun.first() else { return Ok(Vec::new()) };
        let format = first.delivered.format;
        let mut events = Vec::with_capacity(begun.len());
        for (held, _) in begun {
            match self.whole(&held.delivered).await {
                Some(event) => events.push(event),
                None => return Ok(vec![unread(); begun.len()]),
            }
        }
        let all: Vec<&Event> = events.iter().map(|event| &**event).collect();
        let payload = match &all[..] {
            [one] if !batched => payload::render(one, format),
            all => payload::render_batch(all, format),
        };
        let outcome = run(lease, payload, &first.delivered.event, attempt.uuid(), None).await?;
        if !batched && !batch::reports_items(format) {
            return Ok(vec![outcome]);
        }
        let ids: Vec<String> = all.iter().map(|event| event.id.to_string()).collect();
        Ok(batch::split(outcome, &ids.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// The event with its body; none when that cannot be read.
    async fn whole<'a>(&self, delivered: &'a Delivered) -> Option<Cow<'a, Event>> {
        if !delivered.by_reference {
            return Some(Cow::Borrowed(&delivered.event));
        }
        let data = self.bus.owner().data_of(delivered.id).await.ok()??;
        Some(Cow::Owned(Event { data, ..delivered.event.clone() }))
    }

    /// Reports an outcome, or that there is none, until the owner has it, and gives the message up.
    async fn end(&self, held: &Holding, attempt: RowId, outcome: Option<Outcome>) {
        let (owner, target) = (self.bus.owner(), held.claim().target);
        loop {
            let ended = match &outcome {
                Some(outcome) => owner.end(&target, attempt, outcome.clone()).await,
                None => owner.take_back(&target, attempt).await,
            };
            match ended {
                Ok(_) => return held.delivered.ack().await,
                Err(error) if error.is_final() => return held.delivered.release().await,
                Err(error) => {
                    tracing::error!(%error, attempt = %attempt, "an outcome could not be recorded; trying again");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn serve(self, mut calls: Calls) {
        while let Some(called) = calls.next().await {
            let Some(place) = self.calls.take(&called.function) else {
                called.answer(Err(Refusal::Busy));
                continue;
            };
            let worker = self.clone();
            self.tasks.spawn(async move {
                worker.call(called).await;
                drop(place);
            });
        }
    }

    async fn call(self, mut called: Called) {
        let (outlet, id) = (called.outlet.take(), Uuid::now_v7());
        let wanted = Wanted::new(called.function.clone(), called.version.clone(), id);
        let ran = match self.functions.lease_of(&wanted, QUEUE_WAIT).await {
            Ok(lease) => {
                self.foresee(&called.function);
                let payload = payload::render(&called.event, called.format);
                run(lease, payload, &called.event, id, outlet).await
            }
            Err(error) => Err(error),
        };
        called.answer(match ran {
            Ok(outcome) => Ok(outcome),
            Err(LeaseError::Init(outcome)) => Ok(*outcome),
            Err(error @ LeaseError::NoVersion { .. }) => Ok(no_version(&error)),
            Err(LeaseError::Unknown(_)) => Err(Refusal::Unknown),
            Err(LeaseError::Stopped) => Err(Refusal::Stopped),
            Err(_) => Err(Refusal::Busy),
        });
    }

    /// Tells JetStream and the owner that what we hold is still held.
    async fn report_progress(self) {
        let mut tick = interval(PROGRESS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let held: Vec<(Arc<Delivered>, Option<RowId>)> =
                lock(&self.held).values().map(|held| (held.delivered.clone(), held.attempt)).collect();
            // First the owner: whether NATS is there says nothing about what runs.
            for (delivered, attempt) in &held {
                if let Some(attempt) = attempt {
                    self.bus.owner().renew(&delivered.target(), *attempt);
                }
            }
            let progress = async {
                for (delivered, _) in &held {
                    delivered.progress().await;
                }
            };
            if self.bus.nats().is_connected() {
                // A connection that stalls may hold this up, and not the next renewal.
                let _ = tokio::time::timeout(PROGRESS / 2, progress).await;
            }
        }
    }
}

/// A message in our hands, as long as this lives.
struct Holding {
    worker: Worker,
    key: u64,
    delivered: Arc<Delivered>,
    /// Until it runs: how many can run is bounded for each function.
    room: Option<Room>,
}

impl Holding {
    fn claim(&self) -> Claim {
        let Delivery { id, publication, .. } = &**self.delivered;
        Claim { target: self.delivered.target(), delivery: *id, publication: *publication }
    }

    /// The same version at each attempt, as long as the parts of the calls are the same.
    fn wanted(&self) -> Wanted {
        let Delivery { function, version, id, .. } = &**self.delivered;
        Wanted::new(function.clone(), version.clone(), id.uuid())
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        lock(&self.worker.held).remove(&self.key);
    }
}

/// Somebody else may have them.
async fn release(held: &[Holding]) {
    for held in held {
        held.delivered.release().await;
    }
}

/// One line for an invocation, however many deliveries it failed for.
fn say_failed(function: &Name, begun: &[(Holding, RowId)], outcomes: &[Outcome]) {
    let mut failed = begun.iter().zip(outcomes).filter_map(|(begun, outcome)| Some((begun, outcome.fault.as_ref()?)));
    let Some(((held, attempt), fault)) = failed.next() else { return };
    let others = match failed.count() {
        0 => String::new(),
        others => format!(" (and {others} more of its batch)"),
    };
    tracing::warn!(
        function.name = %function, event.id = %held.delivered.event.id, attempt = %attempt,
        "{function} failed: {}: {}{others}", fault.kind, fault.message
    );
}

fn no_version(error: &LeaseError) -> Outcome {
    Outcome::failure(Ending::InitError, "Runtime.VersionNotFound", error.to_string())
}

fn unread() -> Outcome {
    Outcome::failure(Ending::Lost, "Runtime.Lost", "the event's body could not be read from the log")
}

async fn run(
    lease: Lease,
    payload: Payload,
    event: &Event,
    request_id: Uuid,
    outlet: Option<Outlet>,
) -> Result<Outcome, LeaseError> {
    let trace = event.extensions.get("traceparent").cloned().or_else(|| match &event.meta {
        Meta::Http(http) => http.header("traceparent").map(str::to_owned),
        _ => None,
    });
    let client_context = match &event.meta {
        Meta::Invoke(invoke) => Some(invoke.client_context.clone()),
        _ => None,
    };
    let event_id = event.id.to_string();
    lease.invoke(Invocation { request_id, payload, event_id, trace, client_context, outlet }).await
}
