//! What a function gets: pure rendering of events into the bytes of an invocation, done by the worker just before it.
//! So one stored event can be given to any code in any format.
//!
//! JSON is written straight into a buffer: this runs for every invocation, and no value tree is worth its time here.

// JSON, written by hand.
mod json;
// Of a request.
mod http;
// Of a time of a schedule.
mod schedule;
// Of files and messages.
mod records;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use json::{base64, string};

use crate::{
    cloudevent,
    event::{Event, Meta, is_json},
    pipeline::as_json,
};

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
    /// EventBridge's scheduled event, from an event of a schedule.
    Scheduled,
    /// S3's notification, from an event of a file.
    S3,
    /// A record of SQS, from an event of a queue.
    Sqs,
}

impl Format {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::HttpV2 => "http_v2",
            Self::CloudEvent => "cloudevent",
            Self::Scheduled => "scheduled",
            Self::S3 => "s3",
            Self::Sqs => "sqs",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        const ALL: [Format; 6] =
            [Format::Body, Format::HttpV2, Format::CloudEvent, Format::Scheduled, Format::S3, Format::Sqs];
        ALL.into_iter().find(|format| format.as_str() == text)
    }
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

/// Renders one event. Never fails: an event without the facts of a shape has no such shape and is given as its data.
pub fn render(event: &Event, format: Format) -> Payload {
    if format != Format::Body {
        let mut json = Vec::with_capacity(1024 + event.data.len() + event.data.len() / 8);
        if write(event, format, &mut json) {
            return Payload { bytes: json.into(), form: Form::Json };
        }
    }
    // Nothing is no JSON, whatever its media type says: an event may well have no data.
    let media_type = event.datacontenttype.as_deref().filter(|_| !event.data.is_empty());
    Payload { bytes: event.data.clone(), form: form_of(media_type) }
}

/// Renders the events of one invocation: what comes as records is one notification of all of them, anything else is a
/// list, of one element too.
pub fn render_batch(events: &[&Event], format: Format) -> Payload {
    let size = events.iter().map(|event| 1024 + event.data.len()).sum();
    let mut json = Vec::with_capacity(size);
    if !records::write(events, format, &mut json) {
        json.clear();
        json.push(b'[');
        for (at, event) in events.iter().enumerate() {
            if at > 0 {
                json.push(b',');
            }
            if !write(event, format, &mut json) {
                json.extend_from_slice(as_json(&event.data).get().as_bytes());
            }
        }
        json.push(b']');
    }
    Payload { bytes: json.into(), form: Form::Json }
}

/// Appends the shape of an event; false when it has none and is its data.
fn write(event: &Event, format: Format, to: &mut Vec<u8>) -> bool {
    match (format, &event.meta) {
        (Format::HttpV2, Meta::Http(meta)) => http::http_v2(event, meta, to),
        (Format::CloudEvent, _) => cloudevent::json::write(event, to),
        (Format::Scheduled, Meta::Cron(_)) => schedule::scheduled(event, to),
        (Format::S3, Meta::File(_)) | (Format::Sqs, Meta::Queue(_)) => return records::write(&[event], format, to),
        _ => return false,
    }
    true
}

fn form_of(media_type: Option<&str>) -> Form {
    match media_type {
        None => Form::Unknown,
        Some(media_type) if is_json(media_type) => Form::Json,
        Some(media_type) if is_text(media_type) => Form::Text,
        Some(_) => Form::Bytes,
    }
}

/// Whether a media type means text, JSON included.
pub fn is_text(media_type: &str) -> bool {
    const TEXTS: [&str; 9] =
        ["json", "xml", "javascript", "ecmascript", "x-www-form-urlencoded", "yaml", "x-yaml", "toml", "graphql"];
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let Some((kind, sub)) = essence.split_once('/') else { return false };
    let last = sub.rsplit('+').next().unwrap_or_default();
    kind.eq_ignore_ascii_case("text") || TEXTS.iter().any(|text| last.eq_ignore_ascii_case(text))
}

/// The account of every request: there is one bus and nobody to bill.
const ACCOUNT: &str = "000000000000";
/// The region of every event, as functions read it in `AWS_REGION`.
const REGION: &str = "us-east-1";

/// What AWS would call the source: our trigger. A name needs no escapes.
fn name_of(event: &Event) -> &str {
    event.trigger.as_ref().map_or("fnbus", |trigger| trigger.as_str())
}

#[cfg(test)]
mod tests;
