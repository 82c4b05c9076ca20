//! What people ask of the log, in the shapes they are answered: these types are the JSON of `--json` and of the
//! control API.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    LogError, Status, delivery,
    event::{self, time},
};
use crate::{
    catalog::Catalog,
    event::Meta,
    id::{Born, RowId},
    name::Name,
    outcome::{Fault, Start},
    presence::{LogLine, LogStream},
};

/// Which deliveries are meant. Every given part must hold; ids are of events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// The target of the delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// Why a selection has no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    #[error("no event has the id `{id}` in this log")]
    UnknownId { id: String },
    #[error("no run has the id `{id}` or began with an event of that id")]
    UnknownRun { id: String },
    #[error("`{id}` names {count} events of different sources; nothing was chosen")]
    Ambiguous { id: String, count: usize },
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Log(error.into())
    }
}

/// One line of `fnbus events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventRow {
    pub seq: i64,
    pub id: String,
    pub source: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub time: DateTime<Utc>,
    pub trigger: Option<String>,
    /// The least finished of its deliveries, or the worst of the ended ones; `filtered` when nothing wanted it. Of
    /// what was delivered again only the last time counts.
    pub status: Status,
    pub targets: Vec<String>,
}

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
    pub meta: Meta,
    /// The body when it is text, else none; see `data_base64`.
    pub data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
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
    /// Why it does not go on, as far as the config says; set by who knows the config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// Of a pipeline that runs: the steps it is at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepDetail>,
    pub attempts: Vec<AttemptDetail>,
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

/// One dead letter: a delivery that was given up and has not been delivered again since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub delivery: RowId,
    pub event: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub target: String,
    pub trigger: Option<String>,
    pub reason: Option<String>,
    pub attempts: u32,
    pub time: DateTime<Utc>,
    pub died: Option<DateTime<Utc>>,
    /// Of the last attempt.
    pub outcome: Option<String>,
    pub error: Option<Fault>,
}

impl Selection {
    /// SQL that holds for the chosen rows of `delivery d JOIN event e`, with its parameters.
    pub(crate) fn condition(&self, connection: &Connection) -> Result<(String, Vec<Value>), QueryError> {
        let mut parts = vec!["1".to_owned()];
        let mut values: Vec<Value> = Vec::new();
        let mut equals = |column: &str, value: Option<Value>| {
            if let Some(value) = value {
                parts.push(format!("{column} ?"));
                values.push(value);
            }
        };
        equals("e.trigger =", self.trigger.clone().map(Value::from));
        equals("d.target =", self.function.clone().map(Value::from));
        equals("e.type =", self.kind.clone().map(Value::from));
        equals("d.status =", self.status.map(|status| (status as i64).into()));
        equals("e.time >=", self.since.map(|since| since.timestamp_micros().into()));
        equals("e.time <", self.until.map(|until| until.timestamp_micros().into()));
        if !self.ids.is_empty() {
            let rows = self.ids.iter().map(|id| one(connection, id)).collect::<Result<Vec<_>, _>>()?;
            let rows: Vec<String> = rows.iter().map(i64::to_string).collect();
            parts.push(format!("e.seq IN ({})", rows.join(",")));
        }
        Ok((parts.join(" AND "), values))
    }
}

/// The row of the one event `id` names.
pub(crate) fn one(connection: &Connection, id: &str) -> Result<i64, QueryError> {
    match event::find(connection, id)?.as_slice() {
        [row] => Ok(*row),
        [] => Err(QueryError::UnknownId { id: id.to_owned() }),
        several => Err(QueryError::Ambiguous { id: id.to_owned(), count: several.len() }),
    }
}

/// The newest `limit` chosen events, oldest first.
pub fn events(connection: &Connection, selection: &Selection, limit: usize) -> Result<Vec<EventRow>, QueryError> {
    let mut rows = page(connection, selection, 0, limit, "DESC")?;
    rows.reverse();
    Ok(rows)
}

/// The next `limit` chosen events above row `after`, oldest first.
pub fn events_after(
    connection: &Connection,
    selection: &Selection,
    after: i64,
    limit: usize,
) -> Result<Vec<EventRow>, QueryError> {
    page(connection, selection, after, limit, "ASC")
}

fn page(
    connection: &Connection,
    selection: &Selection,
    after: i64,
    limit: usize,
    order: &str,
) -> Result<Vec<EventRow>, QueryError> {
    let (condition, mut values) = selection.condition(connection)?;
    values.push(after.into());
    values.push((limit as i64).into());
    let sql = format!(
        "SELECT e.seq, e.id, e.source, e.type, e.time, e.trigger, \
                (SELECT group_concat(d.status || ' ' || (d.run IS NOT NULL) || ' ' || d.target, char(10)) FROM delivery d \
                 WHERE d.event = e.seq AND {IS_LATEST}) \
         FROM event e LEFT JOIN delivery d ON d.event = e.seq AND {IS_LATEST} WHERE {condition} AND e.seq > ? \
         GROUP BY e.seq ORDER BY e.seq {order} LIMIT ?"
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), read_event_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn read_event_row(row: &Row<'_>) -> rusqlite::Result<EventRow> {
    let deliveries: Option<String> = row.get(6)?;
    let mut statuses = Vec::new();
    let mut targets: Vec<String> = Vec::new();
    for line in deliveries.iter().flat_map(|text| text.lines()) {
        let mut parts = line.splitn(3, ' ');
        let (Some(status), Some(step), Some(target)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let status = status.parse::<i64>().ok().and_then(|n| Status::ALL.into_iter().find(|s| *s as i64 == n));
        statuses.extend(status.map(|status| (status, step == "1")));
        if !targets.iter().any(|known| known == target) {
            targets.push(target.to_owned());
        }
    }
    Ok(EventRow {
        seq: row.get(0)?,
        id: event::read_id(row, 1)?.map(|id| id.to_string()).unwrap_or_default(),
        source: row.get(2)?,
        kind: row.get(3)?,
        time: time(row.get(4)?),
        trigger: row.get(5)?,
        status: overall(&statuses),
        targets,
    })
}

/// One word for all deliveries of an event, each with whether it is a step. A pipeline's delivery stands for its steps:
/// those of a run that was made again do not count any more.
fn overall(deliveries: &[(Status, bool)]) -> Status {
    const WORST_FIRST: [Status; 8] = [
        Status::Running,
        Status::Retrying,
        Status::Pending,
        Status::Held,
        Status::Dead,
        Status::Expired,
        Status::Done,
        Status::Filtered,
    ];
    let only_steps = deliveries.iter().all(|(_, step)| *step);
    let counts = |wanted: &Status| deliveries.iter().any(|(status, step)| status == wanted && (only_steps || !step));
    WORST_FIRST.into_iter().find(counts).unwrap_or(Status::Filtered)
}

/// Everything about the event `id`.
pub fn show(connection: &Connection, id: &str) -> Result<EventDetail, QueryError> {
    let row = one(connection, id)?;
    let event = event::get(connection, row)?.ok_or_else(|| QueryError::UnknownId { id: id.to_owned() })?;
    let deliveries = deliveries_where(connection, "d.event = ?1", row)?;
    let latest = |d: &&DeliveryDetail| {
        let again = |later: &DeliveryDetail| {
            (&later.target, &later.trigger) == (&d.target, &d.trigger) && later.generation > d.generation
        };
        !deliveries.iter().any(again)
    };
    let statuses: Vec<_> = deliveries.iter().filter(latest).map(|d| (d.status, d.step.is_some())).collect();
    let text = std::str::from_utf8(&event.data).ok().map(str::to_owned);
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
        meta: event.meta,
        data_base64: text.is_none().then(|| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &event.data)),
        data: text,
        deliveries,
    })
}

/// The deliveries for which a condition on one number holds, oldest first.
pub(crate) fn deliveries_where(
    connection: &Connection,
    condition: &str,
    number: i64,
) -> rusqlite::Result<Vec<DeliveryDetail>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT d.seq, d.born, d.target, d.trigger, d.generation, d.status, d.reason, d.retry_at, r.name, e.id, \
         d.run, run.born, d.step, d.key FROM delivery d LEFT JOIN replay r ON r.seq = d.replay \
         LEFT JOIN event e ON e.seq = d.event LEFT JOIN run ON run.seq = d.run WHERE {condition} ORDER BY d.seq"
    ))?;
    let rows = statement.query_map([number], |row| {
        let seq: i64 = row.get(0)?;
        let run: Option<i64> = row.get(10)?;
        let run_born: Option<i64> = row.get(11)?;
        Ok(DeliveryDetail {
            id: RowId::new(Born(row.get(1)?), seq),
            event: event::read_id(row, 9)?.map(|id| id.to_string()).unwrap_or_default(),
            target: row.get(2)?,
            trigger: row.get(3)?,
            generation: row.get(4)?,
            status: row.get(5)?,
            reason: row.get(6)?,
            retry_at: row.get::<_, Option<i64>>(7)?.map(time),
            run: run.zip(run_born).map(|(run, born)| RowId::new(Born(born), run)),
            step: row.get(12)?,
            key: row.get(13)?,
            replay: row.get(8)?,
            waits: None,
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
    let bounds = [delivery::attempt_row(delivery, 0), delivery::attempt_row(delivery + 1, 0) - 1];
    let rows = statement.query_map(bounds, |row| {
        let ms = |at: usize| -> rusqlite::Result<Option<f64>> {
            Ok(row.get::<_, Option<i64>>(at)?.map(|us| us as f64 / 1000.0))
        };
        let id: i64 = row.get(0)?;
        let error: Option<String> = row.get(11)?;
        let output: Option<Vec<u8>> = row.get(12)?;
        let (n, id) = (delivery::delivery_of(id).1, RowId::new(Born(row.get(1)?), id));
        Ok(AttemptDetail {
            id,
            n,
            request_id: row.get::<_, Option<Uuid>>(14)?.unwrap_or(id.uuid()),
            outcome: row.get(2)?,
            node: row.get(3)?,
            version: row.get(4)?,
            started: row.get::<_, Option<i64>>(5)?.map(time),
            start: row.get::<_, Option<i64>>(6)?.map(delivery::read_start),
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
    /// Says why it does not go on, or a step of its run, where the config is the reason.
    pub fn explain(&mut self, catalog: &Catalog) {
        let waits = |status: Status, target: &str| {
            let waits = matches!(status, Status::Pending | Status::Retrying | Status::Held);
            if waits { catalog.holds_back(&target.parse().ok()?) } else { None }
        };
        self.waits = waits(self.status, &self.target);
        for step in &mut self.steps {
            step.waits = waits(step.status, &step.target);
        }
    }
}

/// What makes a delivery a dead letter: given up or expired, no step (its pipeline's delivery is the letter), not a caller's to repeat, and not delivered again since.
pub(crate) const IS_DEAD_LETTER: &str = "d.status IN (11, 12) AND d.publication > 0 AND d.run IS NULL AND NOT EXISTS (SELECT 1 FROM delivery \
     later WHERE later.event = d.event AND later.target = d.target AND later.generation > d.generation)";

/// What makes a delivery the one that counts: it was not delivered again since.
pub(crate) const IS_LATEST: &str = "NOT EXISTS (SELECT 1 FROM delivery later WHERE later.event = d.event \
     AND later.target = d.target AND later.trigger IS d.trigger AND later.generation > d.generation)";

/// The newest `limit` dead letters of a selection, oldest first.
pub fn dead(connection: &Connection, selection: &Selection, limit: usize) -> Result<Vec<DeadLetter>, QueryError> {
    let (condition, mut values) = selection.condition(connection)?;
    values.push((limit as i64).into());
    let sql = format!(
        "SELECT d.seq, d.born, e.id, e.type, d.target, d.trigger, d.reason, d.attempts, e.time, d.ended, a.outcome, \
         a.error FROM delivery d JOIN event e ON e.seq = d.event \
         LEFT JOIN attempt a ON a.id = (d.seq << 12 | d.attempts) \
         WHERE {IS_DEAD_LETTER} AND {condition} ORDER BY d.seq DESC LIMIT ?"
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        let error: Option<String> = row.get(11)?;
        Ok(DeadLetter {
            delivery: RowId::new(Born(row.get(1)?), row.get(0)?),
            event: event::read_id(row, 2)?.map(|id| id.to_string()).unwrap_or_default(),
            kind: row.get(3)?,
            target: row.get(4)?,
            trigger: row.get(5)?,
            reason: row.get(6)?,
            attempts: row.get(7)?,
            time: time(row.get(8)?),
            died: row.get::<_, Option<i64>>(9)?.map(time),
            outcome: row.get(10)?,
            error: error.and_then(|text| serde_json::from_str(&text).ok()),
        })
    })?;
    let mut rows: Vec<DeadLetter> = rows.collect::<rusqlite::Result<_>>()?;
    rows.reverse();
    Ok(rows)
}

/// How many deliveries stand where.
pub fn totals(connection: &Connection) -> Result<Vec<(Status, u64)>, QueryError> {
    let mut statement = connection.prepare_cached("SELECT status, count(*) FROM delivery GROUP BY status")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The row of the newest event.
pub fn newest(connection: &Connection) -> Result<i64, QueryError> {
    let newest: Option<Option<i64>> =
        connection.query_row("SELECT max(seq) FROM event", [], |row| row.get(0)).optional()?;
    Ok(newest.flatten().unwrap_or_default())
}

/// What the newest attempts printed, as lines, oldest first; at most `limit` attempts.
pub fn logs(connection: &Connection, function: Option<&Name>, limit: usize) -> Result<Vec<LogLine>, QueryError> {
    let mut statement = connection.prepare_cached(
        "SELECT a.started, d.target, a.born, a.id, a.log, a.invocation FROM attempt a JOIN delivery d ON d.seq = a.id >> 12 \
         WHERE a.log IS NOT NULL AND (?1 IS NULL OR d.target = ?1) ORDER BY a.id DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![function.map(Name::as_str), limit as i64], |row| {
        let id = RowId::new(Born(row.get(2)?), row.get(3)?);
        let request = row.get::<_, Option<Uuid>>(5)?.unwrap_or(id.uuid());
        Ok((time(row.get(0)?), row.get::<_, String>(1)?, request, row.get::<_, String>(4)?))
    })?;
    let mut lines = Vec::new();
    for row in rows {
        let (time, target, request, text) = row?;
        let Ok(function) = target.parse::<Name>() else { continue };
        let attempt_lines = text.lines().rev().map(|text| LogLine {
            time,
            function: function.clone(),
            request_id: Some(request),
            stream: LogStream::Stdout,
            text: text.to_owned(),
        });
        lines.extend(attempt_lines);
    }
    lines.reverse();
    Ok(lines)
}
