//! What people ask of runs, in the shapes they are answered.

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params_from_iter, types::Value};
use serde::{Deserialize, Serialize};

use super::{
    Status,
    detail::{self, AttemptDetail, DeliveryDetail},
    event::{self, time},
    query::{self, QueryError},
};
use crate::{
    id::{Born, RowId},
    outcome::Fault,
};

/// Which runs are meant. Every given part must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunSelection {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// One line of `fnbus runs list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    pub id: RowId,
    pub pipeline: String,
    /// `running`, `done` or `dead`.
    pub status: Status,
    /// The event it began with.
    pub event: String,
    pub started: DateTime<Utc>,
    pub ended: Option<DateTime<Utc>>,
    /// The steps that are under way.
    pub at: Vec<String>,
}

/// Everything the log knows of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunDetail {
    #[serde(flatten)]
    pub run: RunRow,
    /// What the last step gave, or the error object, when it is text.
    pub output: Option<String>,
    pub error: Option<Fault>,
    /// In the order they began.
    pub steps: Vec<DeliveryDetail>,
}

/// How many runs of a pipeline stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    pub running: u64,
    pub done: u64,
    pub dead: u64,
}

const ROW: &str = "SELECT r.seq, r.born, r.pipeline, r.status, e.id, r.started, r.ended, \
     (SELECT group_concat(d.step, char(10)) FROM delivery d WHERE d.run = r.seq AND d.status < 10 AND r.status = 2), \
     r.delivery FROM run r LEFT JOIN event e ON e.seq = r.event";

struct Read {
    row: RunRow,
    delivery: Option<i64>,
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Read> {
    let seq: i64 = row.get(0)?;
    let at: Option<String> = row.get(7)?;
    Ok(Read {
        row: RunRow {
            id: RowId::new(Born(row.get(1)?), seq),
            pipeline: row.get(2)?,
            status: row.get(3)?,
            event: event::read_id(row, 4)?.map(|id| id.to_string()).unwrap_or_default(),
            started: time(row.get(5)?),
            ended: row.get::<_, Option<i64>>(6)?.map(time),
            at: at.iter().flat_map(|steps| steps.lines()).map(str::to_owned).collect(),
        },
        delivery: row.get(8)?,
    })
}

/// The newest `limit` chosen runs, oldest first.
pub fn runs(connection: &Connection, selection: &RunSelection, limit: usize) -> Result<Vec<RunRow>, QueryError> {
    let mut parts = vec!["1"];
    let mut values: Vec<Value> = Vec::new();
    let mut holds = |part, value: Option<Value>| {
        if let Some(value) = value {
            parts.push(part);
            values.push(value);
        }
    };
    holds("r.pipeline = ?", selection.pipeline.clone().map(Value::from));
    holds("r.status = ?", selection.status.map(|status| (status as i64).into()));
    holds("r.started >= ?", selection.since.map(|since| since.timestamp_micros().into()));
    holds("r.started < ?", selection.until.map(|until| until.timestamp_micros().into()));
    values.push((limit as i64).into());
    let sql = format!("{ROW} WHERE {} ORDER BY r.seq DESC LIMIT ?", parts.join(" AND "));
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), read)?;
    let mut rows: Vec<RunRow> = rows.map(|read| Ok(read?.row)).collect::<rusqlite::Result<_>>()?;
    rows.reverse();
    Ok(rows)
}

/// Everything about the run `id`; the id of the event it began with names it too, of several the newest.
pub fn run(connection: &Connection, id: &str) -> Result<RunDetail, QueryError> {
    let Read { row: run, delivery } = find(connection, id)?;
    let ended = match delivery {
        Some(delivery) => detail::attempts(connection, delivery)?.pop(),
        None => None,
    };
    let (output, error) = match ended {
        Some(AttemptDetail { output, error, .. }) => (output, error),
        None => (None, None),
    };
    let steps = detail::deliveries_where(connection, "d.run = ?1", run.id.row())?;
    Ok(RunDetail { run, output, error, steps })
}

fn find(connection: &Connection, id: &str) -> Result<Read, QueryError> {
    let unknown = || QueryError::UnknownRun { id: id.to_owned() };
    if let Ok(row) = id.parse::<RowId>() {
        let found = connection
            .prepare_cached(&format!("{ROW} WHERE r.seq = ?1 AND r.born = ?2"))?
            .query_row([row.row(), row.born().0], read)
            .optional()?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    let event = match query::one(connection, id) {
        Ok(event) => event,
        Err(QueryError::UnknownId { .. }) => return Err(unknown()),
        Err(error) => return Err(error),
    };
    connection
        .prepare_cached(&format!(
            "{ROW} WHERE r.delivery IN (SELECT seq FROM delivery WHERE event = ?1) ORDER BY r.seq DESC LIMIT 1"
        ))?
        .query_row([event], read)
        .optional()?
        .ok_or_else(unknown)
}

/// How the runs of each pipeline stand.
pub fn counts(connection: &Connection) -> Result<Vec<(String, RunCounts)>, QueryError> {
    let mut statement = connection.prepare_cached(
        "SELECT pipeline, count(*) FILTER (WHERE status = 2), count(*) FILTER (WHERE status = 10), \
         count(*) FILTER (WHERE status = 11) FROM run GROUP BY pipeline",
    )?;
    let rows = statement.query_map([], |row| {
        Ok((row.get(0)?, RunCounts { running: row.get(1)?, done: row.get(2)?, dead: row.get(3)? }))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
