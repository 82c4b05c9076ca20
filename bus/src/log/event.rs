//! Event rows.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, params,
    types::{ToSqlOutput, Value, ValueRef},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Tx;
use crate::{
    ambient,
    event::{Event, Meta},
    id::EventId,
    sink::AcceptError,
};

/// The columns [`read`] expects, in order, from a table or alias `e`.
pub(crate) const COLUMNS: &str = "e.seq, e.id, e.source, e.type, e.time, e.subject, e.trigger, e.meta, e.data, \
                                  e.correlation, e.causation, e.hop, e.hash";

/// What became of an event that was to be logged.
pub(crate) enum Inserted {
    New(i64),
    /// It is there already, with the same body.
    Duplicate,
}

/// The attributes that have no column of their own, as they are read.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Attributes {
    datacontenttype: Option<Arc<str>>,
    dataschema: Option<Arc<str>>,
    extensions: BTreeMap<String, String>,
    facts: Meta,
    branches: Option<u32>,
}

/// The same as they are written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataschema: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_none")]
    facts: &'a Meta,
    #[serde(skip_serializing_if = "Option::is_none")]
    branches: Option<u32>,
}

fn is_none(meta: &Meta) -> bool {
    *meta == Meta::None
}

impl ToSql for EventId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Ours(uuid) => ToSqlOutput::Owned(Value::Blob(uuid.as_bytes().to_vec())),
            Self::Foreign(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

/// An event as it is written. Made before the writer's turn, which everybody waits for.
#[derive(Debug)]
pub struct Prepared {
    event: Arc<Event>,
    /// The attributes without a column, JSON.
    attributes: String,
    hash: [u8; 16],
}

impl Prepared {
    pub fn new(event: impl Into<Arc<Event>>) -> Self {
        let event = event.into();
        let attributes = Written {
            datacontenttype: event.datacontenttype.as_deref(),
            dataschema: event.dataschema.as_deref(),
            extensions: &event.extensions,
            facts: &event.meta,
            branches: (event.branches > 1).then_some(event.branches),
        };
        // strings, numbers and maps of strings: nothing that could not be written
        let attributes = serde_json::to_string(&attributes).unwrap_or_default();
        Self { hash: hash(&event.data), attributes, event }
    }

    pub fn event(&self) -> &Arc<Event> {
        &self.event
    }
}

impl std::ops::Deref for Prepared {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

/// Writes an event. A foreign id is checked against every event of its source that the log knows.
pub(crate) fn insert(tx: &Tx<'_>, event: &Prepared) -> Result<Inserted, AcceptError> {
    let hash = event.hash;
    if let EventId::Foreign(id) = &event.id {
        let known: Option<[u8; 16]> = tx
            .prepare_cached("SELECT hash FROM seen WHERE id = ?1 AND scope = ?2")?
            .query_row(params![id, event.source], |row| row.get(0))
            .optional()?;
        match known {
            Some(same) if same == hash => return Ok(Inserted::Duplicate),
            Some(_) => {
                return Err(AcceptError::Conflict { id: id.to_string(), source_uri: event.source.to_string() });
            }
            None => {}
        }
    }
    let seq = insert_row(tx, event)?;
    if let EventId::Foreign(id) = &event.id {
        tx.prepare_cached("INSERT INTO seen (id, scope, hash, event, at) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![id, event.source, hash, seq, ambient::now().timestamp_micros()])?;
    }
    Ok(Inserted::New(seq))
}

/// Writes an event whose id is known to be new.
pub(crate) fn insert_row(tx: &Tx<'_>, event: &Prepared) -> rusqlite::Result<i64> {
    tx.prepare_cached(
        "INSERT INTO event (id, source, type, time, subject, trigger, meta, data, hash, correlation, causation, hop, \
         received) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        event.id,
        event.source,
        event.kind,
        event.time.timestamp_micros(),
        event.subject,
        event.trigger.as_ref().map(crate::name::Name::as_str),
        event.attributes,
        &event.data[..],
        event.hash,
        event.correlation,
        event.causation,
        event.hop,
        ambient::now().timestamp_micros(),
    ])?;
    Ok(tx.last_insert_rowid())
}

/// An event as it was read.
pub(crate) struct Logged {
    pub(crate) event: Event,
    /// Its body is what was accepted. One that is not is left out.
    pub(crate) intact: bool,
}

/// Reads an event from [`COLUMNS`] that begin at column `at`. A body that retention took reads as empty.
pub(crate) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Logged> {
    let meta: Option<String> = row.get(at + 7)?;
    let attributes: Attributes = meta.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let data = body(row.get_ref(at + 8)?, row.get_ref(at + 12)?);
    let trigger: Option<String> = row.get(at + 6)?;
    let event = Event {
        id: read_id(row, at + 1)?.unwrap_or_default(),
        source: row.get(at + 2)?,
        kind: row.get(at + 3)?,
        time: time(row.get(at + 4)?),
        subject: row.get(at + 5)?,
        datacontenttype: attributes.datacontenttype,
        dataschema: attributes.dataschema,
        extensions: attributes.extensions,
        correlation: read_id(row, at + 9)?,
        causation: read_id(row, at + 10)?,
        hop: row.get(at + 11)?,
        branches: attributes.branches.unwrap_or(1),
        trigger: trigger.and_then(|name| name.parse().ok()),
        meta: attributes.facts,
        data: data.as_ref().ok().copied().flatten().map(Bytes::copy_from_slice).unwrap_or_default(),
    };
    Ok(Logged { event, intact: data.is_ok() })
}

/// A body that is not what was accepted.
pub(crate) struct Corrupt;

/// A body as it was accepted, if retention did not take it.
pub(crate) fn body<'a>(data: ValueRef<'a>, expected: ValueRef<'a>) -> Result<Option<&'a [u8]>, Corrupt> {
    match (data, expected) {
        (ValueRef::Null, _) => Ok(None),
        (ValueRef::Blob(data), ValueRef::Blob(expected)) if hash(data) == expected => Ok(Some(data)),
        _ => Err(Corrupt),
    }
}

/// An event id in column `at`; none when it is NULL.
pub(crate) fn read_id(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<EventId>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Blob(bytes) => uuid::Uuid::from_slice(bytes).ok().map(EventId::Ours),
        ValueRef::Text(text) => Some(EventId::foreign(&String::from_utf8_lossy(text))),
        _ => None,
    })
}

/// The rows of the events a person may mean by `text`: one of ours, or foreign ones of any source.
pub(crate) fn find(connection: &Connection, text: &str) -> rusqlite::Result<Vec<i64>> {
    if let Ok(uuid) = text.parse::<uuid::Uuid>() {
        let found: Option<i64> = connection
            .prepare_cached("SELECT seq FROM event WHERE id = ?1 AND typeof(id) = 'blob'")?
            .query_row([uuid], |row| row.get(0))
            .optional()?;
        if let Some(seq) = found {
            return Ok(vec![seq]);
        }
    }
    let mut foreign = connection
        .prepare_cached("SELECT s.event FROM seen s JOIN event e ON e.seq = s.event AND e.id = s.id WHERE s.id = ?1")?;
    foreign.query_map([text], |row| row.get(0))?.collect()
}

pub(crate) fn get(connection: &Connection, seq: i64) -> rusqlite::Result<Option<Logged>> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM event e WHERE e.seq = ?1"))?
        .query_row([seq], |row| read(row, 0))
        .optional()
}

pub(crate) fn hash(data: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(data);
    let mut short = [0; 16];
    short.copy_from_slice(&digest[..16]);
    short
}

/// Microseconds as they stand in the log.
pub(crate) fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}
