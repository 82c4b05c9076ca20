//! The JSON format. Data that is JSON goes in and out as the bytes it has, never re-serialised.

use std::{borrow::Cow, fmt, str, sync::Arc};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{InvalidEvent, attributes::Attributes, timestamp};
use crate::{
    event::{Event, is_json},
    payload,
};

/// Media type of one event.
pub const EVENT: &str = "application/cloudevents+json";
/// Media type of a list of events.
pub const BATCH: &str = "application/cloudevents-batch+json";

/// Reads one event.
pub fn read(json: &Bytes) -> Result<Event, InvalidEvent> {
    parse(json, None)
}

/// Reads one event as people write it by hand: without `specversion` only `type` is needed, `source` has a default,
/// the id is made here and the data is JSON. With `specversion` it is read as strictly as [`read`] does.
pub fn read_loose(json: &Bytes, source: &Arc<str>) -> Result<Event, InvalidEvent> {
    parse(json, Some(source))
}

/// Splits a batch into its events, to be read one by one: each may be right or wrong.
pub fn split_batch(json: &Bytes) -> Result<Vec<Bytes>, InvalidEvent> {
    let events: Vec<&RawValue> = serde_json::from_slice(json).map_err(not_json)?;
    Ok(events.into_iter().map(|event| json.slice_ref(event.get().as_bytes())).collect())
}

fn parse(json: &Bytes, loose: Option<&Arc<str>>) -> Result<Event, InvalidEvent> {
    let Members(members) = serde_json::from_slice(json).map_err(not_json)?;
    let mut attributes = Attributes::default();
    let mut data = None;
    let mut data_base64 = None;
    for (name, value) in members {
        let twice = match &*name {
            "data" => data.replace(value).is_some(),
            "data_base64" if value.get() == "null" => false,
            "data_base64" => data_base64.replace(value).is_some(),
            _ => {
                if let Some(text) = attribute(&name, value)? {
                    attributes.set(&name, &text)?;
                }
                false
            }
        };
        if twice {
            return Err(InvalidEvent::Twice { attribute: name.into_owned() });
        }
    }
    if let (Some(source), false) = (loose, attributes.has_version()) {
        attributes.default_to(source);
    }
    let data = match (data, data_base64) {
        (Some(_), Some(_)) => return Err(InvalidEvent::TwoData),
        (Some(value), None) => data_of(json, value, attributes.datacontenttype())?,
        (None, Some(value)) => {
            let Text(text) = serde_json::from_str(value.get()).map_err(|_| InvalidEvent::Base64)?;
            BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| InvalidEvent::Base64)?.into()
        }
        (None, None) => Bytes::new(),
    };
    attributes.into_event(data)
}

/// The text of an attribute; none for `null`, which is the same as leaving it out.
fn attribute<'a>(name: &str, value: &'a RawValue) -> Result<Option<Cow<'a, str>>, InvalidEvent> {
    let bad = |reason| InvalidEvent::Attribute { attribute: name.chars().take(80).collect(), reason };
    let json = value.get();
    match json.as_bytes().first() {
        Some(b'"') => {
            let Text(text) = serde_json::from_str(json).map_err(not_json)?;
            Ok(Some(text))
        }
        Some(b'n') => Ok(None),
        _ if Attributes::is_core(name) => Err(bad("is not a string")),
        Some(b't' | b'f') => Ok(Some(json.into())),
        Some(b'-' | b'0'..=b'9') => match json.parse::<i32>() {
            Ok(number) => Ok(Some(number.to_string().into())),
            Err(_) => Err(bad("is not a whole number of 32 bits")),
        },
        _ => Err(bad("is neither a string, a whole number nor a boolean")),
    }
}

/// The bytes behind `data`: JSON as it stands, unless a string stands for the text of another media type.
fn data_of(json: &Bytes, value: &RawValue, media_type: Option<&str>) -> Result<Bytes, InvalidEvent> {
    if media_type.is_some_and(|media_type| !is_json(media_type)) && value.get().starts_with('"') {
        let Text(text) = serde_json::from_str(value.get()).map_err(not_json)?;
        return Ok(text.into_owned().into());
    }
    Ok(json.slice_ref(value.get().as_bytes()))
}

/// Appends one event.
pub fn write(event: &Event, to: &mut Vec<u8>) {
    to.extend_from_slice(br#"{"specversion":"1.0","id":"#);
    payload::string(to, &event.id.to_string());
    let mut member = |name: &str, value: &str| {
        to.push(b',');
        payload::string(to, name);
        to.push(b':');
        payload::string(to, value);
    };
    member("source", &event.source);
    member("type", &event.kind);
    member("time", &timestamp(event.time));
    for (name, value) in
        [("subject", &event.subject), ("datacontenttype", &event.datacontenttype), ("dataschema", &event.dataschema)]
    {
        if let Some(value) = value {
            member(name, value);
        }
    }
    for (name, value) in &event.extensions {
        member(name, value);
    }
    for (name, id) in [("correlationid", &event.correlation), ("causationid", &event.causation)] {
        if let Some(id) = id {
            member(name, &id.to_string());
        }
    }
    if event.hop > 0 {
        to.extend_from_slice(b",\"hop\":");
        to.extend_from_slice(event.hop.to_string().as_bytes());
    }
    write_data(event, to);
    to.push(b'}');
}

/// JSON as it stands, text as a string, everything else (and what only claims to be JSON) as base64: each reads back
/// to the same bytes.
fn write_data(event: &Event, to: &mut Vec<u8>) {
    if event.data.is_empty() {
        return;
    }
    let media_type = event.datacontenttype.as_deref();
    if media_type.is_none_or(is_json) {
        if let Ok(value) = serde_json::from_slice::<&RawValue>(&event.data) {
            to.extend_from_slice(b",\"data\":");
            to.extend_from_slice(value.get().as_bytes());
            return;
        }
    } else if media_type.is_some_and(payload::is_text)
        && let Ok(text) = str::from_utf8(&event.data)
    {
        to.extend_from_slice(b",\"data\":");
        payload::string(to, text);
        return;
    }
    to.extend_from_slice(b",\"data_base64\":");
    payload::base64(to, &event.data);
}

// by value: it stands in map_err
#[allow(clippy::needless_pass_by_value)]
fn not_json(error: serde_json::Error) -> InvalidEvent {
    InvalidEvent::Json { reason: error.to_string() }
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON object's members in their order, doubles included: a map would hide those.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        from.deserialize_map(Collect)
    }
}
