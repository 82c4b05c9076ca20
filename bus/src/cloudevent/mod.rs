//! CloudEvents 1.0: the form in which events come in from others and are shown to others.
//!
//! * [`json`]: the JSON format, one event or a batch;
//! * [`http`]: the HTTP binding, binary, structured and batched;
//! * [`nats`]: the NATS binding, binary and structured;
//! * [`header`]: how an attribute's text becomes a header's value and back, the same for both bindings.
//!
//! Reading is strict, and is always reading from *outside*: `hop` is ours alone and dropped, `correlationid` and
//! `causationid` are kept as foreign ids. Data is never parsed more than it takes to find its end.

mod attributes;
#[cfg(test)]
mod conformance;
mod grammar;
pub mod header;
pub mod http;
pub mod json;
pub mod nats;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::event::Event;

/// Most bytes all attributes of one event from outside may have together: they travel as headers on the bus.
pub const MAX_ATTRIBUTES: usize = 8 * 1024;

/// Why something is not a CloudEvent, although it says it is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    #[error("the attribute `{attribute}` is missing")]
    Missing { attribute: &'static str },
    #[error("the attribute `{attribute}` {reason}")]
    Attribute { attribute: String, reason: &'static str },
    #[error("the attribute `{attribute}` is given twice")]
    Twice { attribute: String },
    #[error("`{given}` is not an attribute's name: use a-z and 0-9")]
    Name { given: String },
    #[error("the attributes have more than {MAX_ATTRIBUTES} bytes; put large values into the data")]
    TooLong,
    #[error("`data` and `data_base64` are both given; keep one of them")]
    TwoData,
    #[error("`data_base64` is not a string of base64")]
    Base64,
    #[error("it is not JSON as expected here: {reason}")]
    Json { reason: String },
    #[error("the event format `{media_type}` is not supported; send application/cloudevents+json")]
    Format { media_type: String },
}

/// Gives every attribute of an event with its text to `visit`, `specversion` first: what a binding's headers are made
/// of. `correlationid`, `causationid` and `hop` are among them when set.
pub fn each_attribute(event: &Event, mut visit: impl FnMut(&str, &str)) {
    visit("specversion", "1.0");
    visit("id", &event.id.to_string());
    visit("source", &event.source);
    visit("type", &event.kind);
    visit("time", &timestamp(event.time));
    for (name, value) in
        [("subject", &event.subject), ("datacontenttype", &event.datacontenttype), ("dataschema", &event.dataschema)]
    {
        if let Some(value) = value {
            visit(name, value);
        }
    }
    for (name, value) in &event.extensions {
        visit(name, value);
    }
    for (name, id) in [("correlationid", &event.correlation), ("causationid", &event.causation)] {
        if let Some(id) = id {
            visit(name, &id.to_string());
        }
    }
    if event.hop > 0 {
        visit("hop", &event.hop.to_string());
    }
}

/// A time as CloudEvents writes it: RFC 3339 in UTC, no more digits than needed.
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
