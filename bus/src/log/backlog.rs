//! What waits in the log, as whoever carries it reads it: a window's worth at a time, lowest first.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    delivery::read_format,
    event::{self, Logged},
};
use crate::{
    event::Event,
    id::{Born, RowId},
    payload::Format,
};

/// A delivery to be carried to a worker.
#[derive(Debug, Clone)]
pub struct Due {
    pub row: i64,
    pub id: RowId,
    pub publication: u32,
    /// Attempts made so far.
    pub attempts: u32,
    pub format: Format,
    pub replay: Option<String>,
    /// It may not be passed over: it does not become too old while it waits.
    pub block: bool,
    pub event: Arc<Event>,
    /// The event's body is what was accepted.
    pub intact: bool,
}

const DUE: &str = "SELECT d.seq, d.born, d.publication, d.attempts, d.format, r.name, coalesce(d.block, 0), ";
const DUE_FROM: &str = " FROM delivery d JOIN event e ON e.seq = d.event LEFT JOIN replay r ON r.seq = d.replay ";

fn read_due(row: &Row<'_>) -> rusqlite::Result<Due> {
    let seq: i64 = row.get(0)?;
    let Logged { event, intact } = event::read(row, 7)?;
    Ok(Due {
        row: seq,
        id: RowId::new(Born(row.get(1)?), seq),
        publication: row.get(2)?,
        attempts: row.get(3)?,
        format: read_format(row.get(4)?),
        replay: row.get(5)?,
        block: row.get(6)?,
        event: Arc::new(event),
        intact,
    })
}

/// The lowest pending deliveries of a target above `after`, and whether the rest was left out because these have so many
/// bytes of bodies.
pub(crate) fn pending(
    connection: &Connection,
    target: &str,
    after: i64,
    limit: usize,
    bytes: usize,
) -> rusqlite::Result<(Vec<Due>, bool)> {
    let sql = format!(
        "{DUE}{}{DUE_FROM}WHERE d.target = ?1 AND d.seq > ?2 AND d.status IN (0, 1, 2) AND d.status = 1 \
         ORDER BY d.seq LIMIT ?3",
        event::COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut found = Vec::new();
    let mut read = 0;
    for due in statement.query_map(params![target, after, limit as i64], read_due)? {
        let due = due?;
        read += due.event.data.len();
        found.push(due);
        if read >= bytes {
            return Ok((found, true));
        }
    }
    Ok((found, false))
}

/// One delivery, if it is pending.
pub(crate) fn pending_row(connection: &Connection, row: i64) -> rusqlite::Result<Option<Due>> {
    let sql = format!("{DUE}{}{DUE_FROM}WHERE d.seq = ?1 AND d.status = 1", event::COLUMNS);
    connection.prepare_cached(&sql)?.query_row([row], read_due).optional()
}

/// The targets that have anything unended.
pub(super) fn waiting(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT DISTINCT target FROM delivery WHERE status IN (0, 1, 2)")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// The targets that have anything unended, with the row of their lowest pending deliveries, of so many the last one.
pub(crate) fn lowest(connection: &Connection, many: usize) -> rusqlite::Result<Vec<(String, i64)>> {
    let mut last = connection.prepare_cached(
        "SELECT coalesce(max(seq), 0) FROM (SELECT seq FROM delivery WHERE target = ?1 AND status IN (0, 1, 2) \
         AND status = 1 ORDER BY seq LIMIT ?2)",
    )?;
    let targets = waiting(connection)?.into_iter().map(|target| {
        let row = last.query_row(params![target, many as i64], |row| row.get(0))?;
        Ok((target, row))
    });
    targets.collect()
}

/// The targets that have anything unended or a retry to come, with how much.
pub(crate) fn unended(connection: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    connection
        .prepare_cached(
            "SELECT target, count(*) FROM (SELECT target FROM delivery WHERE status IN (0, 1, 2) \
             UNION ALL SELECT target FROM delivery WHERE status = 3) GROUP BY target ORDER BY target",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// The body of a delivery's event; none when it is not what was accepted.
pub(crate) fn data(connection: &Connection, delivery: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT e.data, e.hash FROM delivery d JOIN event e ON e.seq = d.event WHERE d.seq = ?1")?
        .query_row([delivery], |row| {
            Ok(event::body(row.get_ref(0)?, row.get_ref(1)?).ok().flatten().map(<[u8]>::to_vec))
        })
        .optional()
        .map(Option::flatten)
}
