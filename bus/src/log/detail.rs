//! Everything the log knows of one event: its deliveries and their attempts, in the shapes of `fnbus show`.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Status, attempt,
    event::{self, Logged, time},
    line,
    query::{QueryError, one, overall},
};
use crate::{
    catalog::Catalog,
    event::{Event, Meta},
    id::{Born, RowId},
    outcome::{Fault, Start},
};

/// Everything the log knows of one event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventDetail {
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub time: DateTime<Utc>,
    pub trigger: Option<String>,
    pub status: Status,
    pub subject: Option<String>,
    pub datacontenttype: Option<String>,
    pub correlation: Option<String>,
    pub causation: Option<String>,
    pub hop: u8,
    /// The event whose dead letter this one stands in for, with another body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrects: Option<String>,
    pub meta: Meta,
    /// The body when it is text, else none; see `data_base64`.
    pub data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// The body in the log is not what was accepted, and is not shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrupt: bool,
    pub deliveries: Vec<DeliveryDetail>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeliveryDetail {
    pub id: RowId,
    pub event: String,
    pub target: String,
    pub trigger: Option<String>,
    pub generation: u32,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
    /// The run it is a step of, and the step's place in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RowId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What others of the same target wait for it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The name of the replay that made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
    /// Why it does not go on: what it is held by, or what the config says; that is added by who knows the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// How many of its key wait for it, although it has ended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub blocks: u64,
    /// How it stopped to be a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// Of a pipeline that runs: the steps it is at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepDetail>,
    pub attempts: Vec<AttemptDetail>,
}

/// How a dead letter was settled by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Settled {
    Drop {
        time: DateTime<Utc>,
    },
    /// With the event that has the corrected body, while the log has it.
    Edit {
        time: DateTime<Utc>,
        event: Option<String>,
    },
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A step that has begun and is not done: a delivery of the event that carries its input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepDetail {
    pub step: String,
    pub target: String,
    pub event: String,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptDetail {
    pub id: RowId,
    pub n: u32,
    /// What the function saw as `aws_request_id`.
    pub request_id: Uuid,
    /// How it ended; none while it runs.
    pub outcome: Option<String>,
    pub node: String,
    pub version: Option<String>,
    pub started: Option<DateTime<Utc>>,
    pub start: Option<Start>,
    pub queue_ms: Option<f64>,
    pub start_ms: Option<f64>,
    pub init_ms: Option<f64>,
    pub run_ms: Option<f64>,
    pub error: Option<Fault>,
    /// The output, or the error object of a failure, when it is text.
    pub output: Option<String>,
    /// The last lines of stdout and stderr.
    pub log: Option<String>,
}

/// Everything about the event `id`.
pub fn show(connection: &Connection, id: &str) -> Result<EventDetail, QueryError> {
    let row = one(connection, id)?;
    let Some(Logged { event, intact }) = event::get(connection, row)? else {
        return Err(QueryError::UnknownId { id: id.to_owned() });
    };
    let deliveries = deliveries_where(connection, "d.event = ?1", row)?;
    let latest = |d: &&DeliveryDetail| {
        let again = |later: &DeliveryDetail| {
            (&later.target, &later.trigger) == (&d.target, &d.trigger) && later.generation > d.generation
        };
        !deliveries.iter().any(again)
    };
    let statuses: Vec<_> = deliveries.iter().filter(latest).map(|d| (d.status, d.step.is_some())).collect();
    let text = std::str::from_utf8(&event.data).ok().map(str::to_owned);
    let corrects = corrects(connection, row, &event)?;
    Ok(EventDetail {
        id: event.id.to_string(),
        source: event.source.to_string(),
        kind: event.kind.to_string(),
        time: event.time,
        trigger: event.trigger.map(String::from),
        status: overall(&statuses),
        subject: event.subject.map(|s| s.to_string()),
        datacontenttype: event.datacontenttype.map(|s| s.to_string()),
        correlation: event.correlation.map(|id| id.to_string()),
        causation: event.causation.map(|id| id.to_string()),
        hop: event.hop,
        corrects,
        meta: event.meta,
        data_base64: text.is_none().then(|| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &event.data)),
        data: text.filter(|_| intact),
        corrupt: !intact,
        deliveries,
    })
}

/// The event a corrected one stands in for.
fn corrects(connection: &Connection, row: i64, event: &Event) -> rusqlite::Result<Option<String>> {
    let Some(causation) = event.causation.as_ref().map(ToString::to_string) else { return Ok(None) };
    let mut is =
        connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM delivery WHERE event = ?1 AND corrected = ?2)")?;
    for original in event::find(connection, &causation)? {
        if is.query_row([original, row], |row| row.get(0))? {
            return Ok(Some(causation));
        }
    }
    Ok(None)
}

/// The deliveries for which a condition on one number holds, oldest first.
pub(crate) fn deliveries_where(
    connection: &Connection,
    condition: &str,
    number: i64,
) -> rusqlite::Result<Vec<DeliveryDetail>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT d.seq, d.born, d.target, d.trigger, d.generation, d.status, d.reason, d.retry_at, r.name, e.id, \
         d.run, run.born, d.step, d.key, d.turn IS NOT NULL, d.settled, d.corrected, c.id \
         FROM delivery d LEFT JOIN replay r ON r.seq = d.replay LEFT JOIN event e ON e.seq = d.event \
         LEFT JOIN run ON run.seq = d.run LEFT JOIN event c ON c.seq = d.corrected WHERE {condition} ORDER BY d.seq"
    ))?;
    let rows = statement.query_map([number], |row| {
        let seq: i64 = row.get(0)?;
        let run: Option<i64> = row.get(10)?;
        let run_born: Option<i64> = row.get(11)?;
        let (status, in_line): (Status, bool) = (row.get(5)?, row.get(14)?);
        let settled = row.get::<_, Option<i64>>(15)?.map(time);
        let corrected: Option<i64> = row.get(16)?;
        let by = event::read_id(row, 17)?.map(|id| id.to_string());
        Ok(DeliveryDetail {
            id: RowId::new(Born(row.get(1)?), seq),
            event: event::read_id(row, 9)?.map(|id| id.to_string()).unwrap_or_default(),
            target: row.get(2)?,
            trigger: row.get(3)?,
            generation: row.get(4)?,
            status,
            reason: row.get(6)?,
            retry_at: row.get::<_, Option<i64>>(7)?.map(time),
            run: run.zip(run_born).map(|(run, born)| RowId::new(Born(born), run)),
            step: row.get(12)?,
            key: row.get(13)?,
            replay: row.get(8)?,
            waits: if status == Status::Held { line::waits(connection, seq)? } else { None },
            blocks: if in_line && status.is_ended() { line::blocked(connection, seq)? } else { 0 },
            settled: settled.map(|time| match corrected {
                Some(_) => Settled::Edit { time, event: by },
                None => Settled::Drop { time },
            }),
            steps: steps(connection, seq)?,
            attempts: attempts(connection, seq)?,
        })
    })?;
    rows.collect()
}

/// The steps that the run of a delivery is at; none when it is no pipeline's, or its run is over.
fn steps(connection: &Connection, delivery: i64) -> rusqlite::Result<Vec<StepDetail>> {
    let run: Option<i64> = connection
        .prepare_cached("SELECT seq FROM run WHERE delivery = ?1 AND status = 2")?
        .query_row([delivery], |row| row.get(0))
        .optional()?;
    let Some(run) = run else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT d.step, d.target, e.id, d.status FROM delivery d JOIN event e ON e.seq = d.event \
         WHERE d.run = ?1 AND d.status < 10 ORDER BY d.seq",
    )?;
    let rows = statement.query_map([run], |row| {
        Ok(StepDetail {
            step: row.get(0)?,
            target: row.get(1)?,
            event: event::read_id(row, 2)?.map(|id| id.to_string()).unwrap_or_default(),
            status: row.get(3)?,
            waits: None,
        })
    })?;
    rows.collect()
}

pub(crate) fn attempts(connection: &Connection, delivery: i64) -> rusqlite::Result<Vec<AttemptDetail>> {
    let mut statement = connection.prepare_cached(
        "SELECT id, born, outcome, node, version, started, cold, queue_us, start_us, init_us, run_us, error, output, \
         log, invocation FROM attempt WHERE id BETWEEN ?1 AND ?2 ORDER BY id",
    )?;
    let bounds = [attempt::attempt_row(delivery, 0), attempt::attempt_row(delivery + 1, 0) - 1];
    let rows = statement.query_map(bounds, |row| {
        let ms = |at: usize| -> rusqlite::Result<Option<f64>> {
            Ok(row.get::<_, Option<i64>>(at)?.map(|us| us as f64 / 1000.0))
        };
        let id: i64 = row.get(0)?;
        let error: Option<String> = row.get(11)?;
        let output: Option<Vec<u8>> = row.get(12)?;
        let (n, id) = (attempt::delivery_of(id).1, RowId::new(Born(row.get(1)?), id));
        Ok(AttemptDetail {
            id,
            n,
            request_id: row.get::<_, Option<Uuid>>(14)?.unwrap_or(id.uuid()),
            outcome: row.get(2)?,
            node: row.get(3)?,
            version: row.get(4)?,
            started: row.get::<_, Option<i64>>(5)?.map(time),
            start: row.get::<_, Option<i64>>(6)?.map(attempt::read_start),
            queue_ms: ms(7)?,
            start_ms: ms(8)?,
            init_ms: ms(9)?,
            run_ms: ms(10)?,
            error: error.and_then(|text| serde_json::from_str(&text).ok()),
            output: output.and_then(|bytes| String::from_utf8(bytes).ok()),
            log: row.get(13)?,
        })
    })?;
    rows.collect()
}

impl DeliveryDetail {
    /// Says why it does not go on, or a step of its run, where the config is the reason and nothing else is.
    pub fn explain(&mut self, catalog: &Catalog) {
        let waits = |status: Status, target: &str| {
            let waits = matches!(status, Status::Pending | Status::Retrying | Status::Held);
            if waits { catalog.holds_back(&target.parse().ok()?) } else { None }
        };
        self.waits = self.waits.take().or_else(|| waits(self.status, &self.target));
        for step in &mut self.steps {
            step.waits = waits(step.status, &step.target);
        }
    }
}
