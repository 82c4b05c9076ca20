//! Attempt rows: each execution of a delivery, open until its outcome is written.

use std::time::Duration;

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, params};

use super::{Tx, event::time};
use crate::{
    ambient,
    id::{Born, RowId},
    outcome::{Ending, Outcome, Start, Times},
};

/// Attempts of one delivery are numbered in twelve bits; the last number is never reached, see `retry.attempts` and [`crate::retry::LOST_LIMIT`].
const ATTEMPT_BITS: u32 = 12;

pub(crate) fn attempt_row(delivery: i64, n: u32) -> i64 {
    (delivery << ATTEMPT_BITS) | i64::from(n)
}

pub(crate) fn delivery_of(attempt: i64) -> (i64, u32) {
    (attempt >> ATTEMPT_BITS, (attempt & ((1 << ATTEMPT_BITS) - 1)) as u32)
}

/// How many workers vanished while they ran a delivery.
pub(super) fn lost(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<u32> {
    tx.prepare_cached("SELECT count(*) FROM attempt WHERE id BETWEEN ?1 AND ?2 AND outcome = 'lost'")?
        .query_row([attempt_row(delivery, 0), attempt_row(delivery + 1, 0) - 1], |row| row.get(0))
}

/// When the first attempt of a delivery began.
pub(super) fn first(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let started: Option<Option<i64>> = tx
        .prepare_cached("SELECT started FROM attempt WHERE id = ?1")?
        .query_row([attempt_row(delivery, 1)], |row| row.get(0))
        .optional()?;
    Ok(started.flatten().map(time))
}

/// Writes an attempt that begins.
pub(super) fn open(tx: &Tx<'_>, attempt: RowId, node: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO attempt (id, born, node, started) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![attempt.row(), attempt.born().0, node, ambient::now().timestamp_micros()])
        .map(|_| ())
}

/// The outcome of an attempt that has ended.
pub(super) fn outcome(tx: &Tx<'_>, attempt: i64) -> rusqlite::Result<Option<Outcome>> {
    tx.prepare_cached(
        "SELECT outcome, output, error, log, invocation, version, cold, started, queue_us, start_us, init_us, run_us \
         FROM attempt WHERE id = ?1 AND outcome IS NOT NULL",
    )?
    .query_row([attempt], |row| {
        let micros = |at: usize| -> rusqlite::Result<Duration> {
            Ok(Duration::from_micros(row.get::<_, Option<i64>>(at)?.unwrap_or_default() as u64))
        };
        let ending: String = row.get(0)?;
        let output: Option<Vec<u8>> = row.get(1)?;
        let error: Option<String> = row.get(2)?;
        Ok(Outcome {
            ending: Ending::parse(&ending).unwrap_or(Ending::Lost),
            output: output.unwrap_or_default().into(),
            fault: error.and_then(|error| serde_json::from_str(&error).ok()),
            log: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
            request_id: row.get(4)?,
            version: row.get::<_, Option<String>>(5)?.unwrap_or_default().into(),
            start: row.get::<_, Option<i64>>(6)?.map(read_start).unwrap_or_default(),
            started: time(row.get::<_, Option<i64>>(7)?.unwrap_or_default()),
            times: Times { queue: micros(8)?, start: micros(9)?, init: micros(10)?, run: micros(11)? },
            shared: false,
        })
    })
    .optional()
}

/// Writes the outcome into its open attempt; false when the attempt is not open or not this one.
pub(super) fn close(tx: &Tx<'_>, attempt: RowId, outcome: &Outcome) -> rusqlite::Result<bool> {
    const CLOSE: &str = "UPDATE attempt SET invocation = :invocation, version = :version, \
        started = CASE WHEN :outcome = 'lost' THEN coalesce(started, :started) ELSE :started END, \
        queue_us = :queue, start_us = :start, init_us = :init, run_us = :run, cold = :cold, outcome = :outcome, \
        output = :output, error = :error, log = :log, ended = :ended \
        WHERE id = :id AND born = :born AND outcome IS NULL";
    write_outcome(tx, CLOSE, attempt, None, outcome).map(|changed| changed == 1)
}

/// Removes an open attempt that ran nothing; false when it is not open or not this one.
pub(super) fn remove(tx: &Tx<'_>, attempt: RowId) -> rusqlite::Result<bool> {
    tx.prepare_cached("DELETE FROM attempt WHERE id = ?1 AND born = ?2 AND outcome IS NULL")?
        .execute(params![attempt.row(), attempt.born().0])
        .map(|removed| removed == 1)
}

/// Writes an attempt that is over already.
pub(super) fn insert(tx: &Tx<'_>, attempt: RowId, node: &str, outcome: &Outcome) -> rusqlite::Result<()> {
    const INSERT: &str = "INSERT INTO attempt (id, born, node, invocation, version, started, queue_us, start_us, \
        init_us, run_us, cold, outcome, output, error, log, ended) VALUES (:id, :born, :node, :invocation, :version, \
        :started, :queue, :start, :init, :run, :cold, :outcome, :output, :error, :log, :ended)";
    write_outcome(tx, INSERT, attempt, Some(node), outcome).map(|_| ())
}

fn write_outcome(
    tx: &Tx<'_>,
    sql: &str,
    attempt: RowId,
    node: Option<&str>,
    outcome: &Outcome,
) -> rusqlite::Result<usize> {
    let error = outcome.fault.as_ref().and_then(|fault| serde_json::to_string(fault).ok());
    let times = outcome.times;
    let mut statement = tx.prepare_cached(sql)?;
    if let Some(node) = node {
        let index = statement.parameter_index(":node")?.unwrap_or_default();
        statement.raw_bind_parameter(index, node)?;
    }
    let values: [(&str, &dyn rusqlite::ToSql); 15] = [
        (":id", &attempt.row()),
        (":born", &attempt.born().0),
        (":invocation", &outcome.request_id),
        (":version", &outcome.version),
        (":started", &outcome.started.timestamp_micros()),
        (":queue", &(times.queue.as_micros() as i64)),
        (":start", &(times.start.as_micros() as i64)),
        (":init", &(times.init.as_micros() as i64)),
        (":run", &(times.run.as_micros() as i64)),
        (":cold", &start_number(outcome.start)),
        (":outcome", &outcome.ending.as_str()),
        (":output", &&outcome.output[..]),
        (":error", &error),
        (":log", &(!outcome.log.is_empty()).then_some(&outcome.log)),
        (":ended", &ambient::now().timestamp_micros()),
    ];
    for (name, value) in values {
        let index = statement.parameter_index(name)?.unwrap_or_default();
        statement.raw_bind_parameter(index, value)?;
    }
    statement.raw_execute()
}

pub(crate) fn start_number(start: Start) -> i64 {
    match start {
        Start::Warm => 0,
        Start::Partial => 1,
        Start::Cold => 2,
    }
}

pub(crate) fn read_start(number: i64) -> Start {
    match number {
        0 => Start::Warm,
        1 => Start::Partial,
        _ => Start::Cold,
    }
}

/// Closes the open attempt of a delivery, whichever it is.
pub(crate) fn close_open(tx: &Tx<'_>, delivery: i64, outcome: &Outcome) -> rusqlite::Result<()> {
    let open: Option<(i64, i64)> = tx
        .prepare_cached("SELECT id, born FROM attempt WHERE id BETWEEN ?1 AND ?2 AND outcome IS NULL")?
        .query_row([attempt_row(delivery, 0), attempt_row(delivery + 1, 0) - 1], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((row, born)) = open {
        close(tx, RowId::new(Born(born), row), outcome)?;
    }
    Ok(())
}

/// Writes an attempt that is over already.
pub(crate) fn insert_closed(tx: &Tx<'_>, row: i64, node: &str, outcome: &Outcome) -> rusqlite::Result<()> {
    insert(tx, RowId::new(Born::now(), row), node, outcome)
}
