//! What happened: a CloudEvents 1.0 event and the facts its trigger knows of it.
//!
//! `data` is the bytes as received, never parsed on the way to a function. The log's row, the NATS message and the
//! JSON form are types of their own (`log`, `wire`, `cloudevent`), so this one may change while stored events still
//! read.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, SubsecRound, Utc};
use serde::{Deserialize, Serialize};

use crate::{ambient, id::EventId, name::Name};

/// Events that follow from events that follow …: at this depth a chain is taken for a loop and ended.
pub const MAX_HOP: u8 = 16;

/// So many events may lie beside each other in a flow: what would branch further is ended.
pub const MAX_BRANCHES: u32 = 100_000;

/// One event. Unique per (`source`, `id`).
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: EventId,
    /// URI-reference of the emitter; `/<namespace>/<trigger>` for events of our triggers.
    pub source: Arc<str>,
    /// CloudEvents `type`, such as `http.request`.
    pub kind: Arc<str>,
    /// When it happened, to the microsecond.
    pub time: DateTime<Utc>,
    pub subject: Option<Arc<str>>,
    /// Media type of `data`.
    pub datacontenttype: Option<Arc<str>>,
    pub dataschema: Option<Arc<str>>,
    /// Any other CloudEvents attribute, `traceparent` among them, in its text form.
    pub extensions: BTreeMap<String, String>,
    /// The first event of the whole flow this one belongs to; none for that first one itself.
    pub correlation: Option<EventId>,
    /// The event this one directly follows from.
    pub causation: Option<EventId>,
    /// How many events this one is away from the first.
    pub hop: u8,
    /// Into how many the flow has branched on the way here: the product of what each event on it led to.
    pub branches: u32,
    /// The trigger it came in by; none for `emit` and `invoke`.
    pub trigger: Option<Name>,
    /// What the trigger knows beyond the data.
    pub meta: Meta,
    /// The body, byte for byte.
    pub data: Bytes,
}

impl Event {
    /// An event that happens now, with an id of ours.
    pub fn new(source: impl Into<Arc<str>>, kind: impl Into<Arc<str>>, data: impl Into<Bytes>) -> Self {
        Self::with_id(EventId::new(), source, kind, data)
    }

    /// The same under an id that is known.
    pub fn with_id(
        id: EventId,
        source: impl Into<Arc<str>>,
        kind: impl Into<Arc<str>>,
        data: impl Into<Bytes>,
    ) -> Self {
        Self {
            id,
            source: source.into(),
            kind: kind.into(),
            time: ambient::now().trunc_subsecs(6),
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
            correlation: None,
            causation: None,
            hop: 0,
            branches: 1,
            trigger: None,
            meta: Meta::None,
            data: data.into(),
        }
    }

    /// An attribute by its name, in its text form; ids are no attributes one would match by.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match name {
            "type" => Some(&self.kind),
            "source" => Some(&self.source),
            "subject" => self.subject.as_deref(),
            "trigger" => self.trigger.as_ref().map(Name::as_str),
            "datacontenttype" => self.datacontenttype.as_deref(),
            other => self.extensions.get(other).map(String::as_str),
        }
    }

    /// Whether `data` says it is JSON: `application/json`, `text/json` or any `+json`.
    pub fn is_json(&self) -> bool {
        self.datacontenttype.as_deref().is_some_and(is_json)
    }
}

/// Whether a media type means JSON.
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// The facts of a trigger that are not part of the data.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meta {
    #[default]
    None,
    Http(Box<HttpMeta>),
    Cron(Box<CronMeta>),
    File(Box<FileMeta>),
    Queue(Box<QueueMeta>),
    Invoke(Box<InvokeMeta>),
}

/// What an invocation through the Lambda API says beside its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvokeMeta {
    /// JSON, as the function gets it.
    pub client_context: String,
}

/// A message as it was taken from a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueMeta {
    pub subject: String,
    pub stream: String,
    /// Its number in the stream.
    pub sequence: u64,
    /// How often the stream handed it out until it was taken.
    pub deliveries: u64,
    pub published: DateTime<Utc>,
    /// As they came, duplicates kept; cut when there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

/// A file to which something happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    pub change: FileChange,
    /// Absolute.
    pub path: String,
    /// From the folder of the config file, where it is below that; else absolute.
    pub key: String,
    /// Where a renamed file was before; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// In bytes; of a removed file what it had.
    pub size: u64,
    pub modified: DateTime<Utc>,
    /// Another one: another content.
    pub etag: String,
    /// Greater for what happened later to the same path.
    pub sequencer: String,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// A file is there that was not, also in place of another one.
    Created,
    /// The same file has another content or time.
    Modified,
    Removed,
    Renamed,
}

impl FileChange {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Modified => "modified",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
        }
    }
}

/// A time of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronMeta {
    /// The time it was planned for, whenever it ran.
    pub slot: DateTime<Utc>,
    /// The same in local time, with its offset.
    pub local: String,
    /// The zone of the schedule.
    pub zone: String,
}

/// An HTTP request as it was received.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HttpMeta {
    /// Upper-case method.
    pub method: String,
    /// The path as sent, percent-encoding untouched, without the query.
    pub path: String,
    /// The query as sent, without `?`; empty when there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub query: String,
    /// The configured route that matched, such as `POST /orders/{region}`.
    pub route: String,
    /// Decoded path variables, in the order of the route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<(String, String)>,
    /// Headers in the order of arrival, lower-case names, duplicates kept.
    pub headers: Vec<(String, String)>,
    /// Such as `HTTP/1.1`.
    pub protocol: String,
    /// The peer's address, without the port.
    pub source_ip: String,
}

impl HttpMeta {
    /// The first value of a header, by lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}
