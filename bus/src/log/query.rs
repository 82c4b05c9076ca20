//! What people ask of the log, in the shapes they are answered: these types are the JSON of `--json` and of the
//! control API.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    DeadReason, Failure, LogError, Status, dead,
    event::{self, time},
};
use crate::{
    id::{Born, RowId},
    name::Name,
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
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<DeadReason>,
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
    #[error("`{id}` has no dead letter; `fnbus show {id}` says how it stands")]
    NoLetter { id: String },
    #[error("`{id}` has no dead letter any more: it was {how} at {}", .time.format("%Y-%m-%d %H:%M:%S UTC"))]
    Settled { id: String, how: &'static str, time: DateTime<Utc> },
    #[error("`{id}` has {} dead letters: name one with --target {}", .targets.len(), .targets.join(" or --target "))]
    SeveralLetters { id: String, targets: Vec<String> },
    #[error("the body is what it was, and nothing was done; `fnbus dead redrive {id}` delivers it again as it is")]
    Unchanged { id: String },
    #[error("the body was JSON and this is not ({reason}); nothing was done")]
    NotJson { reason: String },
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Log(error.into())
    }
}

impl Failure for QueryError {
    fn of_log(&self) -> Option<LogError> {
        match self {
            Self::Log(error) => Some(error.clone()),
            _ => None,
        }
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
        equals("d.target =", self.function.clone().map(Value::from));
        equals("e.type =", self.kind.clone().map(Value::from));
        equals("d.status =", self.status.map(|status| (status as i64).into()));
        equals("d.reason =", self.reason.map(|reason| reason.as_str().to_owned().into()));
        equals("e.time >=", self.since.map(|since| since.timestamp_micros().into()));
        equals("e.time <", self.until.map(|until| until.timestamp_micros().into()));
        if let Some(trigger) = &self.trigger {
            // the trigger it came in by, or the one whose rule it matched
            parts.push("(e.trigger = ? OR d.trigger = ?)".to_owned());
            values.extend([Value::from(trigger.clone()), Value::from(trigger.clone())]);
        }
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
pub(super) fn overall(deliveries: &[(Status, bool)]) -> Status {
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

/// What makes a delivery the one that counts: it was not delivered again since.
pub(crate) const IS_LATEST: &str = "NOT EXISTS (SELECT 1 FROM delivery later WHERE later.event = d.event \
     AND later.target = d.target AND later.trigger IS d.trigger AND later.generation > d.generation)";

/// How many deliveries stand where, by the words of their statuses. `dead` and `expired` are the dead letters; what was
/// given up and needs nobody any more is `settled`: dropped, edited or delivered again since, a step of a run, a call.
pub fn totals(connection: &Connection) -> Result<BTreeMap<String, u64>, QueryError> {
    // in one statement, so that nothing is given up between two looks
    let sql = format!(
        "SELECT 0, status, count(*) FROM delivery GROUP BY status \
         UNION ALL SELECT 1, d.status, count(*) FROM delivery d WHERE d.status IN (11, 12) AND NOT ({}) GROUP BY d.status",
        dead::is_dead_letter()
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let counted = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let counted: Vec<(bool, Status, u64)> = counted.collect::<rusqlite::Result<_>>()?;
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for (_, status, n) in counted.iter().filter(|(settled, ..)| !settled) {
        totals.insert(status.as_str().to_owned(), *n);
    }
    for (_, status, n) in counted.iter().filter(|(settled, ..)| *settled) {
        totals.entry(status.as_str().to_owned()).and_modify(|all| *all -= n);
        *totals.entry("settled".to_owned()).or_default() += n;
    }
    totals.retain(|_, n| *n > 0);
    Ok(totals)
}

/// Every target that anything was delivered to.
pub fn targets(connection: &Connection) -> Result<Vec<String>, QueryError> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT target FROM delivery ORDER BY target")?;
    let targets = statement.query_map([], |row| row.get(0))?;
    Ok(targets.collect::<rusqlite::Result<_>>()?)
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
    // the attempts of a batch have one invocation, and each may have kept what it printed
    let mut told = HashSet::new();
    for row in rows {
        let (time, target, request, text) = row?;
        if !told.insert(request) {
            continue;
        }
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
