//! How an attempt ended. Every end has its own name, and the name alone decides what happens next
//! ([`Ending::disposition`]): no text is ever parsed to decide on a retry.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ambient;

/// The ways an attempt can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The handler returned.
    Ok,
    /// The handler raised or rejected.
    Error,
    /// The handler ran over the function's timeout and was stopped.
    Timeout,
    /// The process ended in the middle, by exit code or signal.
    Crash,
    /// The function ran out of its memory limit.
    Oom,
    /// The code could not be loaded: missing handler, syntax error, import error, or the runtime would not start.
    InitError,
    /// The handler returned something that cannot be an output.
    BadOutput,
    /// The output is over the payload limit.
    TooLarge,
    /// The worker vanished before it could say; set by the owner, never by a worker.
    Lost,
}

/// What follows from an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The delivery is done.
    Done,
    /// Another attempt, as far as the retry policy goes; then a dead letter.
    Retry,
}

impl Ending {
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::Error,
        Self::Timeout,
        Self::Crash,
        Self::Oom,
        Self::InitError,
        Self::BadOutput,
        Self::TooLarge,
        Self::Lost,
    ];

    pub fn disposition(self) -> Disposition {
        match self {
            Self::Ok => Disposition::Done,
            _ => Disposition::Retry,
        }
    }

    /// The name in JSON, on the command line and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Crash => "crash",
            Self::Oom => "oom",
            Self::InitError => "init_error",
            Self::BadOutput => "bad_output",
            Self::TooLarge => "too_large",
            Self::Lost => "lost",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.as_str() == text)
    }
}

/// Whether an instance was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// An instance with the code loaded was waiting.
    #[default]
    Warm,
    /// The runtime was up, the code was not loaded.
    Partial,
    /// Nothing was there.
    Cold,
}

/// Where the time of an attempt went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// Waiting for a free instance.
    #[serde(with = "micros", rename = "queue_us")]
    pub queue: Duration,
    /// Starting the process; zero when warm.
    #[serde(with = "micros", rename = "start_us")]
    pub start: Duration,
    /// Loading the code; zero when warm.
    #[serde(with = "micros", rename = "init_us")]
    pub init: Duration,
    /// The handler itself.
    #[serde(with = "micros", rename = "run_us")]
    pub run: Duration,
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.as_micros() as u64)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

/// What went wrong, for people and for the error object of the invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The error's class, such as `ValueError` or `Runtime.ImportModuleError`.
    pub kind: String,
    /// One sentence, with the next step where there is one.
    pub message: String,
    /// Whether another attempt may end otherwise. Only the function itself can say no (`retry: false`).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub retry: bool,
}

impl Fault {
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), retry: true }
    }
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_yes(retry: &bool) -> bool {
    *retry
}

/// Everything a worker says of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub ending: Ending,
    /// The result as the function gave it; for a failure the error object (`errorMessage`, `errorType`, `stackTrace`).
    pub output: Bytes,
    /// Set for every ending but `Ok`.
    pub fault: Option<Fault>,
    /// The last lines of stdout and stderr, bounded.
    pub log: String,
    /// The id the function saw, when it ran.
    pub request_id: Option<Uuid>,
    /// The function's version that ran; empty when none could be chosen.
    pub version: Arc<str>,
    pub start: Start,
    pub started: DateTime<Utc>,
    pub times: Times,
    /// The output is that of a whole batch and stands with another delivery of it: nothing follows from it here.
    pub shared: bool,
}

impl Outcome {
    /// A failure that happened outside the function's code: its error object is made here.
    pub fn failure(ending: Ending, kind: &str, message: impl Into<String>) -> Self {
        let fault = Fault::new(kind, message);
        Self {
            ending,
            output: error_object(&fault),
            fault: Some(fault),
            log: String::new(),
            request_id: None,
            version: "".into(),
            start: Start::Warm,
            started: ambient::now(),
            times: Times::default(),
            shared: false,
        }
    }
}

/// The error object of an invocation, in the form Lambda's clients know.
pub fn error_object(fault: &Fault) -> Bytes {
    serde_json::json!({ "errorMessage": fault.message, "errorType": fault.kind }).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_only_when_it_is_not_to_be_tried_again() {
        let fault = Fault::new("ValueError", "no");
        assert_eq!(
            serde_json::to_value(&fault).ok(),
            Some(serde_json::json!({ "kind": "ValueError", "message": "no" }))
        );
        let last = serde_json::json!({ "kind": "ValueError", "message": "no", "retry": false });
        assert_eq!(serde_json::from_value::<Fault>(last.clone()).ok(), Some(Fault { retry: false, ..fault }));
    }

    #[test]
    fn every_ending_has_a_name_that_reads_back_and_only_ok_ends_a_delivery_well() {
        for ending in Ending::ALL {
            assert_eq!(Ending::parse(ending.as_str()), Some(ending));
            assert_eq!(serde_json::to_value(ending).ok(), Some(ending.as_str().into()));
            assert_eq!(ending.disposition() == Disposition::Done, ending == Ending::Ok);
        }
    }
}
