//! The right to run one invocation on one instance: a guard. Dropped unused it gives the instance back; dropped in
//! the middle of an invocation it kills it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Name, Outcome,
    outcome::{Start, Times},
    payload::Payload,
    streamed::Outlet,
};
use chrono::Utc;
use uuid::Uuid;

use crate::{
    fault::Lack,
    gate::Entered,
    instance::{Birth, Instance, NotRun, Reply},
    pool::Pool,
};

/// How long an invocation waits for another instance when its own ended before it was asked.
const SECOND_CHOICE: Duration = Duration::from_secs(10);

/// What a function is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// The attempt's id.
    pub request_id: Uuid,
    pub payload: Payload,
    /// The event's id, the same at each attempt.
    pub event_id: String,
    /// `traceparent`.
    pub trace: Option<String>,
    /// JSON that the caller sent beside the payload.
    pub client_context: Option<String>,
    /// Where the answer may go as it comes.
    pub outlet: Option<Outlet>,
}

/// Why there is no instance.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    #[error("there is no function `{0}`; add [functions.{0}] or correct the name")]
    Unknown(Name),
    #[error("`{function}` has no version `{version}`; `fnbus functions versions {function}` has them")]
    NoVersion { function: Name, version: String },
    #[error("the function is stopped, its `concurrency` is 0; raise it to let it run")]
    Stopped,
    #[error("all instances are busy; try again, or raise `concurrency`")]
    Busy,
    #[error("there is no room for another instance now: {reason}; it is tried again")]
    NoRoom { reason: String },
    /// An outcome with `InitError`.
    #[error("the function could not be started: {}", .0.fault.as_ref().map_or("", |f| f.message.as_str()))]
    Init(Box<Outcome>),
}

/// An instance, held for one invocation.
pub struct Lease {
    pool: Arc<Pool>,
    /// There until the lease ends.
    instance: Option<Instance>,
    /// Set when the instance was started for this lease.
    cold: Option<Birth>,
    queue: Duration,
    /// An invocation is running: dropped now, the instance is in no known state.
    running: bool,
    /// Its place among the invocations of the function; given up after the instance.
    entered: Option<Entered>,
}

impl Lease {
    pub(crate) fn new(pool: Arc<Pool>, instance: Instance, cold: bool) -> Self {
        let cold = (cold && instance.keeps()).then_some(instance.birth);
        Self { pool, instance: Some(instance), cold, queue: Duration::ZERO, running: false, entered: None }
    }

    /// Holds a place among the invocations of the function.
    pub(crate) fn entered(mut self, entered: Entered) -> Self {
        self.entered = Some(entered);
        self
    }

    /// Says when it was asked for. What it took to start the instance is no waiting.
    pub(crate) fn asked(mut self, at: Instant) -> Self {
        let birth = self.cold.map_or(Duration::ZERO, |b| b.start + b.init);
        self.queue = at.elapsed().saturating_sub(birth);
        self
    }

    /// Takes the instance back when nobody wanted the lease.
    pub(crate) fn refused(mut self) -> Option<Instance> {
        self.instance.take()
    }

    /// The version that will run.
    pub fn version(&self) -> Arc<str> {
        self.instance.as_ref().map_or_else(|| "".into(), |i| i.version.id.clone())
    }

    pub fn is_cold(&self) -> bool {
        self.cold.is_some()
    }

    /// Runs one invocation. Dropping the future kills the instance and everything it started. An error when nothing of it
    /// has run, for want of an instance; never [`LeaseError::Init`], which is an outcome here.
    pub async fn invoke(mut self, invocation: Invocation) -> Result<Outcome, LeaseError> {
        loop {
            match self.run(&invocation).await {
                Ok(outcome) => return Ok(outcome),
                Err(NotRun::Lack(Lack { reason, .. })) => return Err(LeaseError::NoRoom { reason }),
                // it ended while idle
                Err(NotRun::NotTaken) => {}
            }
            let (pool, entered) = (self.pool.clone(), self.entered.take());
            drop(self);
            self = match Box::pin(pool.lease(SECOND_CHOICE)).await {
                Ok(mut lease) => {
                    lease.entered = entered;
                    lease
                }
                Err(LeaseError::Init(outcome)) => return Ok(*outcome),
                Err(e) => return Err(e),
            };
        }
    }

    async fn run(&mut self, invocation: &Invocation) -> Result<Outcome, NotRun> {
        let Some(instance) = self.instance.as_mut() else { return Err(NotRun::NotTaken) };
        let timeout = self.pool.timeout();
        self.running = true;
        let (started, begun) = (Utc::now(), Instant::now());
        let Reply { ending, output, fault, log, healthy, birth } = instance.invoke(invocation, timeout).await?;
        let run = begun.elapsed().saturating_sub(birth.map_or(Duration::ZERO, |b| b.start));
        let born = birth.or(self.cold);
        instance.finish(invocation, run, born);
        self.running = !healthy;
        instance.ran = Some(run);
        let is_own = birth.is_some();
        let birth = born.unwrap_or(Birth { kind: Start::Warm, start: Duration::ZERO, init: Duration::ZERO });
        let (start, version) = (birth.kind, instance.version.id.clone());
        let times = Times { queue: self.queue, start: birth.start, init: birth.init, run };
        self.pool.counts.invoked(fault.as_ref(), is_own, start, &times);
        let request_id = Some(invocation.request_id);
        Ok(Outcome { ending, output, fault, log, request_id, version, start, started, times, shared: false })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match self.instance.take() {
            Some(instance) if self.running => self.pool.ended(instance),
            Some(instance) => self.pool.release(instance),
            None => {}
        }
    }
}
