//! What triggers publish to. The bus is one; tests have another in memory.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use crate::{
    event::Event,
    id::EventId,
    log::{Failure, LogError},
    name::Name,
    outcome::Outcome,
    payload::Format,
    streamed::Outlet,
    target::{Qualifier, Target},
};

/// Takes events. `accept` is asynchronous delivery (durable before it answers), `call` a synchronous invocation.
pub trait Sink: Clone + Send + Sync + 'static {
    /// Writes the event and the deliveries that follow from its trigger and the event rules, in one synced commit.
    fn accept(&self, event: Event) -> impl Future<Output = Result<Accepted, AcceptError>> + Send;

    /// Runs one function and waits for its outcome. Dropping the future does not stop the invocation. An event with an id
    /// from outside is accepted first, and a repeat of it gets the outcome it had.
    fn call(&self, event: Event, call: Call) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

/// What a trigger remembers across restarts, beside its events: which files it saw, which cron slot was last.
pub trait Ledger: Sink {
    /// Accepts an event, if there is one, and writes the marks in the same commit. A duplicate event writes them too.
    fn accept_marked(
        &self,
        event: Option<Event>,
        marks: Vec<Mark>,
    ) -> impl Future<Output = Result<Option<Accepted>, AcceptError>> + Send;

    /// All marks of a trigger, by key.
    fn marks(&self, trigger: &Name) -> impl Future<Output = Result<BTreeMap<String, String>, AcceptError>> + Send;

    /// The next time of a trigger, so that what it feeds can be made ready.
    fn foresee(&self, _trigger: &Name, _at: DateTime<Utc>) {}

    /// Whether a delivery that came by this trigger is still unended.
    fn has_open(&self, trigger: &Name) -> impl Future<Output = Result<bool, AcceptError>> + Send;
}

/// The key of the mark that says when a trigger was resumed last, in RFC 3339.
pub use crate::log::mark::RESUMED;

/// One thing a trigger remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub trigger: Name,
    pub key: String,
    /// None: forget it.
    pub value: Option<String>,
}

/// The event is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub id: EventId,
    /// How many deliveries follow from it.
    pub deliveries: usize,
    /// The same event (source, id and body) was accepted before; nothing new follows.
    pub duplicate: bool,
}

/// Why an event was not accepted. Nothing of it is in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    #[error(
        "an event with id `{id}` from `{source_uri}` was accepted before with another body; send it under an id of its own"
    )]
    Conflict { id: String, source_uri: String },
    #[error("no space is left for the event log; free space on its disk or lower [log] max_size")]
    Full,
    /// Nothing may go, for it is unended, dead or part of a replay.
    #[error(
        "the event log is full of what cannot go yet ({bytes} of {most} bytes); `fnbus node` shows what waits: mend what \
         holds it up, or raise [log] max_size"
    )]
    Backlog { bytes: u64, most: u64 },
    #[error("the event log does not answer: {reason}")]
    Unavailable { reason: String },
    #[error("the event log is damaged: {reason}")]
    Damaged { reason: Arc<str> },
}

/// How to run a synchronous call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Or a pipeline.
    pub function: Name,
    /// Which version of the function; none: what serves.
    pub version: Option<Qualifier>,
    pub format: Format,
    /// How long the caller waits in all; none: as long as the function's own timeout and the queue allow.
    pub timeout: Option<Duration>,
    pub log: LogMode,
    /// Where the answer may go as it comes; none: it is wanted whole.
    pub outlet: Option<Outlet>,
}

impl Call {
    pub fn target(&self) -> Target {
        Target::of(self.function.clone(), self.version.clone())
    }
}

/// How much of a trigger's synchronous calls is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogMode {
    #[default]
    Full,
    /// Only calls that did not end well.
    Errors,
    Off,
}

/// The function ran, well or not: see `outcome.ending`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub event: EventId,
    pub outcome: Outcome,
}

/// Why a synchronous call has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    #[error("all instances of `{function}` stayed busy; try again, or raise its `concurrency`")]
    Busy { function: Name },
    #[error("`{function}` is stopped: its `concurrency` is 0")]
    Stopped { function: Name },
    #[error("no node runs `{function}` now")]
    NoNode { function: Name },
    #[error("the node that ran `{function}` vanished in the middle; it is not known whether it finished")]
    Vanished { function: Name },
    #[error("`{function}` did not answer in time; it may still finish")]
    TimedOut { function: Name },
    #[error("a call with the id `{id}` runs already; ask again when it has ended")]
    Running { id: EventId },
    #[error("the call with the id `{id}` has ended, and its response is no longer kept; call under an id of its own")]
    Forgotten { id: EventId },
    #[error(transparent)]
    Accept(#[from] AcceptError),
    #[error("what follows from the call could not be logged: {reason}")]
    Log { reason: String },
}

impl From<LogError> for AcceptError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Full => Self::Full,
            LogError::Damaged { reason } => Self::Damaged { reason },
            other => Self::Unavailable { reason: other.to_string() },
        }
    }
}

impl Failure for AcceptError {
    fn of_log(&self) -> Option<LogError> {
        match self {
            Self::Full => Some(LogError::Full),
            Self::Damaged { reason } => Some(LogError::Damaged { reason: reason.clone() }),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for AcceptError {
    fn from(error: rusqlite::Error) -> Self {
        LogError::from(error).into()
    }
}
