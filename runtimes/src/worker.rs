//! The worker: pull, lease, begin, render, invoke, end, ack.
//!
//! One task a message. It waits for an instance first and only then asks the owner to `begin`: lack of capacity
//! burns no attempt. What the task holds is reported to JetStream as in progress, so nobody else gets it meanwhile;
//! the owner's window keeps what one function can pile up here small.
//!
//! Synchronous calls take the same instances by a shorter way: no owner, no acknowledgement, the answer goes straight
//! back to the caller.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bus::{
    Bus, Event, Outcome, RowId,
    call::{Called, Calls, QUEUE_WAIT, Refusal},
    deliver::{Delivered, Source},
    event::Meta,
    log::LogError,
    nats::stream::PROGRESS,
    owner::Claim,
    payload::{self, Format},
    window::Begin,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{Functions, Invocation, Lease, LeaseError, RuntimeKind, lock};

/// Messages held at once, over all functions.
const HELD: usize = 1024;
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
    tasks: TaskTracker,
    /// Set when no further delivery may begin.
    draining: CancellationToken,
}

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
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
        }
    }

    /// Opens the way for calls. Separate from [`Worker::run`], so that a node is ready when this returns.
    pub async fn open(&self) -> Result<Calls, bus::call::OpenError> {
        Calls::open(self.bus.nats().clone(), self.bus.subjects(), self.bus.owner().node()).await
    }

    /// Runs what comes until shut down, then finishes what has begun, for at most `grace`.
    pub async fn run(self, calls: Calls, grace: Duration, shutdown: CancellationToken) {
        for kind in RuntimeKind::ALL {
            self.tasks.spawn(self.clone().pull(kind));
        }
        let called = tokio::spawn(self.clone().serve(calls));
        let progress = tokio::spawn(self.clone().report_progress());
        shutdown.cancelled().await;
        self.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(invocations = self.tasks.len(), "the grace period is over; what still runs is ended");
        }
        called.abort();
        progress.abort();
    }

    async fn pull(self, kind: RuntimeKind) {
        let mut source = Source::new(self.bus.nats().clone(), self.bus.subjects().clone(), kind.as_str());
        loop {
            let next = async {
                let permit = self.room.clone().acquire_owned().await.ok()?;
                Some((source.next().await, permit))
            };
            let (delivered, permit) = tokio::select! {
                next = next => match next {
                    Some(next) => next,
                    None => return,
                },
                () = self.draining.cancelled() => return,
            };
            let worker = self.clone();
            self.tasks.spawn(async move { worker.deliver(delivered, permit).await });
        }
    }

    async fn deliver(self, delivered: Delivered, _room: OwnedSemaphorePermit) {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let delivered = Arc::new(delivered);
        lock(&self.held).insert(key, Held { delivered: delivered.clone(), attempt: None });
        let finished = self.execute(key, &delivered).await;
        lock(&self.held).remove(&key);
        match finished {
            Finished::Settled => delivered.ack().await,
            Finished::NotNow => delivered.release().await,
        }
    }

    async fn execute(&self, key: u64, delivered: &Delivered) -> Finished {
        let owner = self.bus.owner();
        let claim = Claim {
            target: delivered.function.clone().into(),
            delivery: delivered.id,
            publication: delivered.publication,
        };
        let leased = tokio::select! {
            leased = self.functions.lease(&delivered.function, PATIENCE) => leased,
            () = self.draining.cancelled() => return Finished::NotNow,
        };
        let lease = match leased {
            Ok(lease) => Ok(lease),
            Err(LeaseError::Init(outcome)) => Err(*outcome),
            Err(_) => {
                if let Err(error) = owner.give_back(&claim).await {
                    tracing::warn!(%error, "a delivery could not be given back");
                }
                return Finished::Settled;
            }
        };
        let answer = match owner.begin(std::slice::from_ref(&claim)).await {
            Ok(answers) => answers.into_iter().next().unwrap_or(Begin::Stale),
            Err(error) => {
                tracing::warn!(%error, delivery = %delivered.id, "a delivery could not begin");
                return Finished::NotNow;
            }
        };
        let Begin::Run { attempt, .. } = answer else { return Finished::Settled };
        if let Some(held) = lock(&self.held).get_mut(&key) {
            held.attempt = Some(attempt);
        }
        let outcome = match lease {
            Ok(lease) => self.invoke(lease, delivered, attempt).await,
            Err(outcome) => outcome,
        };
        if let Some(fault) = &outcome.fault {
            tracing::warn!(
                function.name = %delivered.function, event.id = %delivered.event.id, attempt = %attempt,
                "{} failed: {}: {}", delivered.function, fault.kind, fault.message
            );
        }
        loop {
            match owner.end(&claim.target, attempt, outcome.clone()).await {
                Ok(_) => return Finished::Settled,
                Err(LogError::Closed) => return Finished::NotNow,
                Err(error) => {
                    tracing::error!(%error, attempt = %attempt, "an outcome could not be recorded; trying again");
                    sleep(AGAIN).await;
                }
            }
        }
    }

    async fn invoke(&self, lease: Lease, delivered: &Delivered, attempt: RowId) -> Outcome {
        if !delivered.by_reference {
            return run(lease, &delivered.event, delivered.format, attempt.uuid()).await;
        }
        match self.bus.owner().data_of(delivered.id).await {
            Ok(Some(data)) => {
                let event = Event { data, ..delivered.event.clone() };
                run(lease, &event, delivered.format, attempt.uuid()).await
            }
            Ok(None) | Err(_) => Outcome::failure(
                bus::outcome::Ending::Lost,
                "Runtime.Lost",
                "the event's body could not be read from the log",
            ),
        }
    }

    async fn serve(self, mut calls: Calls) {
        while let Some(called) = calls.next().await {
            let worker = self.clone();
            self.tasks.spawn(async move { worker.call(called).await });
        }
    }

    async fn call(self, called: Called) {
        match self.functions.lease(&called.function, QUEUE_WAIT).await {
            Ok(lease) => {
                let outcome = run(lease, &called.event, called.format, Uuid::now_v7()).await;
                called.answer(outcome).await;
            }
            Err(LeaseError::Init(outcome)) => called.answer(*outcome).await,
            Err(LeaseError::Unknown(_)) => called.refuse(Refusal::Unknown).await,
            Err(LeaseError::Stopped) => called.refuse(Refusal::Stopped).await,
            Err(_) => called.refuse(Refusal::Busy).await,
        }
    }

    /// Tells JetStream and the owner that what we hold is still held.
    async fn report_progress(self) {
        let mut tick = interval(PROGRESS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let held: Vec<(Arc<Delivered>, Option<RowId>)> =
                lock(&self.held).values().map(|held| (held.delivered.clone(), held.attempt)).collect();
            for (delivered, attempt) in held {
                if let Some(attempt) = attempt {
                    self.bus.owner().renew(&delivered.function.clone().into(), attempt);
                }
                delivered.progress().await;
            }
        }
    }
}

/// What is to happen with a message.
enum Finished {
    /// It has served.
    Settled,
    /// Somebody else may have it.
    NotNow,
}

async fn run(lease: Lease, event: &Event, format: Format, request_id: Uuid) -> Outcome {
    let payload = payload::render(event, format);
    let trace = event.extensions.get("traceparent").cloned().or_else(|| match &event.meta {
        Meta::Http(http) => http.header("traceparent").map(str::to_owned),
        _ => None,
    });
    lease.invoke(Invocation { request_id, payload, event_id: event.id.to_string(), trace }).await
}
