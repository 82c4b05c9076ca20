//! The HTTP binding: an event as `ce-` headers and a body (binary), or wholly in the body (structured), or a list of
//! events in the body (batch). The latter two are read by [`json`](super::json).

use bytes::Bytes;

use super::{InvalidEvent, attributes::Attributes, header::decode_header_value};
use crate::event::Event;

/// How a request carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Binary,
    Structured,
    Batch,
}

/// How these headers say the body carries events; none: they do not.
pub fn mode<'h>(mut headers: impl Iterator<Item = (&'h str, &'h str)>) -> Result<Option<Mode>, InvalidEvent> {
    let mut binary = false;
    let structured = headers.find_map(|(name, value)| {
        binary |= name.eq_ignore_ascii_case("ce-specversion");
        if name.eq_ignore_ascii_case("content-type") { structured_mode(value).transpose() } else { None }
    });
    match structured {
        Some(mode) => mode.map(Some),
        None => {
            Ok((binary || headers.any(|(name, _)| name.eq_ignore_ascii_case("ce-specversion"))).then_some(Mode::Binary))
        }
    }
}

/// What a content type says of events in the body.
pub(super) fn structured_mode(content_type: &str) -> Result<Option<Mode>, InvalidEvent> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(rest) = essence.strip_prefix("application/cloudevents") else { return Ok(None) };
    match rest {
        "+json" => Ok(Some(Mode::Structured)),
        "-batch+json" => Ok(Some(Mode::Batch)),
        _ if rest.is_empty() || rest.starts_with(['+', '-']) => Err(InvalidEvent::Format { media_type: essence }),
        _ => Ok(None),
    }
}

/// Reads an event in binary mode.
pub fn read_binary<'h>(headers: impl Iterator<Item = (&'h str, &'h str)>, body: &Bytes) -> Result<Event, InvalidEvent> {
    let mut attributes = Attributes::default();
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-type") {
            attributes.set("datacontenttype", value)?;
        } else if let Some(attribute) = attribute_name(name)
            // in HTTP this attribute is Content-Type alone
            && attribute != "datacontenttype"
        {
            set_encoded(&mut attributes, &attribute, value)?;
        }
    }
    attributes.into_event(body.clone())
}

/// The attribute a header carries, in lower case.
pub(super) fn attribute_name(header: &str) -> Option<String> {
    let prefixed = header.get(..3).is_some_and(|prefix| prefix.eq_ignore_ascii_case("ce-"));
    prefixed.then(|| header[3..].to_ascii_lowercase())
}

pub(super) fn set_encoded(attributes: &mut Attributes, name: &str, value: &str) -> Result<(), InvalidEvent> {
    let text = decode_header_value(value).ok_or_else(|| InvalidEvent::Attribute {
        attribute: name.chars().take(80).collect(),
        reason: "is not percent-encoded UTF-8",
    })?;
    attributes.set(name, &text)
}
