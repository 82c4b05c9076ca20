//! The one table from what is refused to a status. Nothing else in this crate chooses the status of an error.
//!
//! The body is a problem document (RFC 9457), with `message` besides, as API Gateway's clients read it. It says what
//! the client can do about it, never what happened inside: the id leads to that.

use bus::{
    EventId,
    cloudevent::InvalidEvent,
    outcome::Ending,
    sink::{AcceptError, CallError},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;

/// Why a request gets no answer of a function and no 202.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no route is configured for this path")]
    NoRoute,
    #[error("this route is paused")]
    Paused,
    #[error("this path does not take this method")]
    OtherMethods(Vec<&'static str>),
    #[error("the request {0}")]
    Malformed(&'static str),
    #[error("the request's target is too long")]
    UriTooLong,
    #[error("the request's headers are too many or too long")]
    HeadTooLarge,
    #[error("the request did not arrive in time")]
    TooSlow,
    #[error("too much is being sent here at once")]
    Overloaded,
    #[error("the body is over the limit of {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("{0}")]
    InvalidEvent(#[from] InvalidEvent),
    #[error("send application/json, application/cloudevents+json, or ce- headers")]
    NotAnEvent,
    #[error("a batch may have {max} events, this one has {given}")]
    BatchTooLarge { given: usize, max: usize },
    #[error("the source `{given}` belongs to this bus; name the sender's own")]
    SourceTaken { given: String },
    #[error(transparent)]
    Accept(#[from] AcceptError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the function did not end well ({})", .0.as_str())]
    Function(Ending),
    #[error("the function's result is not a response: {0}")]
    Response(&'static str),
    #[error("something failed here that should not")]
    Internal,
}

/// Seconds after which what is busy or away may be there again.
const SOON: u32 = 1;
/// Seconds for what needs somebody to act, such as a full disk.
const LATER: u32 = 30;

struct Row {
    urn: &'static str,
    status: StatusCode,
    retry_after: Option<u32>,
}

impl Refusal {
    fn row(&self) -> Row {
        use StatusCode as S;
        let (urn, status, retry_after) = match self {
            Self::NoRoute => ("no-route", S::NOT_FOUND, None),
            Self::Paused => ("paused", S::SERVICE_UNAVAILABLE, Some(LATER)),
            Self::OtherMethods(_) => ("method-not-allowed", S::METHOD_NOT_ALLOWED, None),
            Self::Malformed(_) => ("malformed-request", S::BAD_REQUEST, None),
            Self::UriTooLong => ("uri-too-long", S::URI_TOO_LONG, None),
            Self::HeadTooLarge => ("headers-too-large", S::REQUEST_HEADER_FIELDS_TOO_LARGE, None),
            Self::TooSlow => ("too-slow", S::REQUEST_TIMEOUT, None),
            Self::BodyTooLarge { .. } => ("body-too-large", S::PAYLOAD_TOO_LARGE, None),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, Some(SOON)),
            Self::InvalidEvent(InvalidEvent::Format { .. }) | Self::NotAnEvent => {
                ("not-an-event", S::UNSUPPORTED_MEDIA_TYPE, None)
            }
            Self::InvalidEvent(_) => ("invalid-event", S::BAD_REQUEST, None),
            Self::BatchTooLarge { .. } => ("batch-too-large", S::PAYLOAD_TOO_LARGE, None),
            Self::SourceTaken { .. } => ("source-taken", S::BAD_REQUEST, None),
            Self::Accept(why) | Self::Call(CallError::Accept(why)) => match why {
                AcceptError::Conflict { .. } => ("conflict", S::CONFLICT, None),
                AcceptError::Full => ("log-full", S::INSUFFICIENT_STORAGE, Some(LATER)),
                AcceptError::Backlog { .. } => ("backlog", S::SERVICE_UNAVAILABLE, Some(LATER)),
                _ => ("log-unavailable", S::SERVICE_UNAVAILABLE, Some(SOON)),
            },
            Self::Call(CallError::Running { .. }) => ("in-progress", S::CONFLICT, Some(SOON)),
            Self::Call(CallError::Forgotten { .. }) => ("response-gone", S::CONFLICT, None),
            Self::Call(CallError::Stopped { .. }) => ("function-stopped", S::SERVICE_UNAVAILABLE, Some(SOON)),
            Self::Call(CallError::Busy { .. }) => ("busy", S::TOO_MANY_REQUESTS, Some(SOON)),
            Self::Call(CallError::NoNode { .. }) => ("no-node", S::SERVICE_UNAVAILABLE, Some(SOON)),
            Self::Call(CallError::Vanished { .. }) => ("node-vanished", S::BAD_GATEWAY, None),
            Self::Call(CallError::TimedOut { .. }) | Self::Function(Ending::Timeout) => {
                ("timeout", S::GATEWAY_TIMEOUT, None)
            }
            Self::Call(_) => ("log-unavailable", S::SERVICE_UNAVAILABLE, Some(SOON)),
            Self::Function(_) => ("function-failed", S::BAD_GATEWAY, None),
            Self::Response(_) => ("bad-response", S::BAD_GATEWAY, None),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, None),
        };
        Row { urn, status, retry_after }
    }

    /// What the client may read. Reasons of ours (paths, addresses) stay here.
    fn detail(&self) -> String {
        match self {
            Self::Accept(why) | Self::Call(CallError::Accept(why)) => match why {
                AcceptError::Conflict { .. } => why.to_string(),
                AcceptError::Full => "the event was not accepted: no space is left for it".to_owned(),
                AcceptError::Backlog { .. } => {
                    "the event was not accepted: too much that was accepted before waits to be done".to_owned()
                }
                _ => "the event was not accepted: the event log does not answer".to_owned(),
            },
            Self::Call(CallError::Log { .. }) => {
                "what follows could not be logged: the event log does not answer".to_owned()
            }
            other => other.to_string(),
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.row().status
    }

    /// The problem document; `id` is that of the event, if it came so far.
    pub(super) fn body(&self, id: Option<&EventId>) -> Vec<u8> {
        let Row { urn, status, .. } = self.row();
        let title = status.canonical_reason().unwrap_or_default();
        let id = id.map_or_else(|| EventId::new().to_string(), ToString::to_string);
        tracing::debug!(event.id = %id, status = status.as_u16(), reason = %self, "request {id} is refused: {self}");
        let document = Document {
            kind: format!("urn:fnbus:{urn}"),
            title,
            status: status.as_u16(),
            detail: &self.detail(),
            id: &id,
            // the words API Gateway has for a function that fails
            message: if status == StatusCode::BAD_GATEWAY { "Internal Server Error" } else { title },
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    pub(super) fn response(&self, id: Option<&EventId>) -> Response<Full<Bytes>> {
        let Row { status, retry_after, .. } = self.row();
        let mut response = Response::new(Full::from(self.body(id)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Self::OtherMethods(methods) = self
            && let Ok(allow) = methods.join(", ").parse()
        {
            headers.insert(ALLOW, allow);
        }
        response
    }
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    id: &'a str,
    message: &'a str,
}
