//! From errors to answers: the only place of the control plane that knows both.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bus::{
    cloudevent::InvalidEvent,
    config::closest,
    log::{LogError, query::QueryError},
    nats::publish::NotPublished,
    presence::{MoveError, SteerError},
    sink::{AcceptError, CallError},
};
use serde::{Deserialize, Serialize};

/// What a refused question is answered: one sentence.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    #[serde(skip)]
    status: u16,
    /// A word for programs.
    pub(crate) code: String,
    /// A sentence for people.
    pub(crate) message: String,
}

impl Problem {
    #[allow(clippy::needless_pass_by_value, reason = "errors are given away here")]
    fn new(status: StatusCode, code: &str, message: impl std::fmt::Display) -> Self {
        Self { status: status.as_u16(), code: code.to_owned(), message: message.to_string() }
    }

    pub(crate) fn bad_request(message: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(crate) fn no_key() -> Self {
        let message = "the key of the node's socket is missing or wrong: it is in fnbus.key in the data folder, and functions \
                       in a sandbox may not read it";
        Self::new(StatusCode::FORBIDDEN, "no_key", message)
    }

    pub(crate) fn unknown_trigger(name: &str, known: &[String]) -> Self {
        let known = listed(known);
        Self::new(StatusCode::NOT_FOUND, "unknown_trigger", format!("there is no trigger `{name}`; known: {known}"))
    }

    pub(crate) fn nats(error: NotPublished) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "nats", error)
    }

    pub(crate) fn unknown_target(name: &str, known: &[String]) -> Self {
        let advice = match closest(name, known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => "none is configured".to_owned(),
            None => format!("known: {}", known.join(", ")),
        };
        Self::new(StatusCode::NOT_FOUND, "unknown_target", format!("there is no target `{name}`; {advice}"))
    }

    pub(crate) fn unknown_function(name: &str, known: &[String]) -> Self {
        let known = listed(known);
        Self::new(StatusCode::NOT_FOUND, "unknown_function", format!("there is no function `{name}`; known: {known}"))
    }
}

/// What there is, for who named something else.
pub(crate) fn listed(known: &[String]) -> String {
    if known.is_empty() { "none is configured".to_owned() } else { known.join(", ") }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match &error {
            QueryError::UnknownId { .. } | QueryError::UnknownRun { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown_id", error)
            }
            QueryError::NoLetter { .. } => Self::new(StatusCode::NOT_FOUND, "no_letter", error),
            QueryError::Settled { .. } => Self::new(StatusCode::CONFLICT, "settled", error),
            QueryError::SeveralLetters { .. } => Self::new(StatusCode::CONFLICT, "several_letters", error),
            QueryError::Unchanged { .. } => Self::new(StatusCode::CONFLICT, "unchanged", error),
            QueryError::NotJson { .. } => Self::new(StatusCode::BAD_REQUEST, "not_json", error),
            QueryError::Ambiguous { .. } => Self::new(StatusCode::CONFLICT, "ambiguous_id", error),
            QueryError::Log(error) => error.clone().into(),
            _ => Self::new(StatusCode::SERVICE_UNAVAILABLE, "log", error),
        }
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        match &error {
            LogError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "log_full", error),
            LogError::Damaged { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "log_damaged", error),
            _ => Self::new(StatusCode::SERVICE_UNAVAILABLE, "log", error),
        }
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match &error {
            AcceptError::Conflict { .. } => Self::new(StatusCode::CONFLICT, "conflict", error),
            AcceptError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "log_full", error),
            AcceptError::Damaged { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "log_damaged", error),
            AcceptError::Backlog { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "backlog", error),
            _ => Self::new(StatusCode::SERVICE_UNAVAILABLE, "log", error),
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        if let CallError::Accept(why) = error {
            return why.into();
        }
        let (status, code) = match &error {
            CallError::Busy { .. } => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            CallError::Stopped { .. } => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
            CallError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
            CallError::Vanished { .. } => (StatusCode::BAD_GATEWAY, "vanished"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, error)
    }
}

impl From<SteerError> for Problem {
    fn from(error: SteerError) -> Self {
        match error {
            SteerError::NotThis { .. } => Self::new(StatusCode::CONFLICT, "not_this_kind", error),
            SteerError::Gone { .. } => Self::new(StatusCode::NOT_FOUND, "unknown_trigger", error),
            SteerError::Accept(error) => error.into(),
            other => Self::bad_request(other),
        }
    }
}

impl From<MoveError> for Problem {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Gone { .. } => Self::new(StatusCode::NOT_FOUND, "unknown_function", error),
            MoveError::NoVersion { .. } | MoveError::UnknownAlias { .. } => {
                Self::new(StatusCode::NOT_FOUND, "unknown_version", error)
            }
            MoveError::Log(error) => error.into(),
            other => Self::new(StatusCode::CONFLICT, "not_moved", other),
        }
    }
}

impl From<InvalidEvent> for Problem {
    fn from(error: InvalidEvent) -> Self {
        Self::bad_request(error)
    }
}
