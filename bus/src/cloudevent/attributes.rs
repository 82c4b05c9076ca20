//! Attributes one by one, from whatever binding, into an event.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, Utc};

use super::{InvalidEvent, MAX_ATTRIBUTES, grammar};
use crate::{
    ambient,
    event::{Event, Meta},
    id::EventId,
};

/// The attributes seen so far; each may be given once.
#[derive(Default)]
pub(super) struct Attributes {
    specversion: Option<()>,
    id: Option<EventId>,
    source: Option<Arc<str>>,
    kind: Option<Arc<str>>,
    time: Option<DateTime<Utc>>,
    subject: Option<Arc<str>>,
    datacontenttype: Option<Arc<str>>,
    dataschema: Option<Arc<str>>,
    correlation: Option<EventId>,
    causation: Option<EventId>,
    hop: Option<()>,
    extensions: BTreeMap<String, String>,
    bytes: usize,
}

impl Attributes {
    /// The core attributes, which are strings in every format (extensions may be numbers or booleans too).
    pub(super) fn is_core(name: &str) -> bool {
        matches!(name, "specversion" | "id" | "source" | "type" | "time" | "subject" | "datacontenttype" | "dataschema")
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), InvalidEvent> {
        self.bytes += name.len() + value.len();
        if self.bytes > MAX_ATTRIBUTES {
            return Err(InvalidEvent::TooLong);
        }
        let bad = |reason| InvalidEvent::Attribute { attribute: name.chars().take(80).collect(), reason };
        if Self::is_core(name) && value.is_empty() {
            return Err(bad("is empty"));
        }
        if !grammar::is_string(value) {
            return Err(bad("has control characters"));
        }
        match name {
            "specversion" if value != "1.0" => Err(bad("is not 1.0, the only version understood here")),
            "specversion" => once(&mut self.specversion, name, ()),
            "id" => once(&mut self.id, name, EventId::foreign(value)),
            "source" if !grammar::is_uri_reference(value) => Err(bad("is not a URI-reference")),
            "source" => once(&mut self.source, name, value.into()),
            "type" => once(&mut self.kind, name, value.into()),
            "time" => {
                let time = grammar::time(value).ok_or_else(|| bad("is not a time such as 2026-01-31T09:00:00Z"))?;
                once(&mut self.time, name, time)
            }
            "subject" => once(&mut self.subject, name, value.into()),
            "datacontenttype" if !grammar::is_media_type(value) => Err(bad("is not a media type")),
            "datacontenttype" => once(&mut self.datacontenttype, name, value.into()),
            "dataschema" if !grammar::is_uri(value) => Err(bad("is not a URI with a scheme")),
            "dataschema" => once(&mut self.dataschema, name, value.into()),
            "correlationid" | "causationid" if value.is_empty() => Err(bad("is empty")),
            "correlationid" => once(&mut self.correlation, name, EventId::foreign(value)),
            "causationid" => once(&mut self.causation, name, EventId::foreign(value)),
            // ours alone: whoever could set it could make a loop endless
            "hop" => once(&mut self.hop, name, ()),
            _ => self.extend(name, value),
        }
    }

    fn extend(&mut self, name: &str, value: &str) -> Result<(), InvalidEvent> {
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !named || name == "data" {
            return Err(InvalidEvent::Name { given: name.chars().take(80).collect() });
        }
        match self.extensions.insert(name.to_owned(), value.to_owned()) {
            None => Ok(()),
            Some(_) => Err(InvalidEvent::Twice { attribute: name.to_owned() }),
        }
    }

    /// Whether this says it is a CloudEvent.
    pub(super) fn has_version(&self) -> bool {
        self.specversion.is_some()
    }

    /// Media type of the data.
    pub(super) fn datacontenttype(&self) -> Option<&str> {
        self.datacontenttype.as_deref()
    }

    /// Fills what an event sent without `specversion` may leave out.
    pub(super) fn default_to(&mut self, source: &Arc<str>) {
        self.specversion = Some(());
        self.id.get_or_insert_with(EventId::new);
        self.source.get_or_insert_with(|| source.clone());
        self.datacontenttype.get_or_insert_with(|| "application/json".into());
    }

    pub(super) fn into_event(self, data: Bytes) -> Result<Event, InvalidEvent> {
        let missing = |attribute| InvalidEvent::Missing { attribute };
        self.specversion.ok_or(missing("specversion"))?;
        Ok(Event {
            id: self.id.ok_or(missing("id"))?,
            source: self.source.ok_or(missing("source"))?,
            kind: self.kind.ok_or(missing("type"))?,
            time: self.time.unwrap_or_else(|| ambient::now().trunc_subsecs(6)),
            subject: self.subject,
            datacontenttype: self.datacontenttype,
            dataschema: self.dataschema,
            extensions: self.extensions,
            correlation: self.correlation,
            causation: self.causation,
            hop: 0,
            branches: 1,
            trigger: None,
            meta: Meta::None,
            data,
        })
    }
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), InvalidEvent> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(InvalidEvent::Twice { attribute: name.to_owned() }),
    }
}
