//! Delivery rows and every change of their status. Each function here runs inside one change of the writer, so what
//! it checks still holds when it writes.

use std::{cell::OnceCell, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    DeadReason, Status, Tx, attempt,
    backlog::{self, Due},
    event::{self, time},
    follow, line, repeat, run,
};
use crate::{
    ambient,
    catalog::{Catalog, Match},
    event::Event,
    id::{Born, RowId},
    name::Name,
    outcome::{Disposition, Ending, Outcome},
    payload::Format,
    retry::{self, Next},
    target::{InvalidTarget, Target},
};

/// A delivery that a change made or set free, to wake whoever carries it.
#[derive(Debug)]
pub struct Placed {
    pub row: i64,
    pub target: Target,
    pub place: Place,
    /// The functions of its run, from this one on; of steps that begin together the first one has them.
    pub path: Vec<Vec<Name>>,
}

/// What there is to do about it.
#[derive(Debug)]
pub enum Place {
    /// It is the newest of its target, and this is all of it.
    New(Box<Due>),
    /// It is among the newest of its target.
    Last,
    /// It waits for an earlier one with its key: nothing to do.
    Held,
    /// It was held and may go now.
    Freed,
}

/// What an `end` led to, and everything that follows from it.
#[derive(Debug)]
pub struct End {
    pub ended: Ended,
    /// Deliveries that follow.
    pub placed: Vec<Placed>,
    /// The pipeline's delivery that ended with this one, and how.
    pub run: Option<(i64, Outcome)>,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        Self { ended, placed: Vec::new(), run: None }
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The delivery ended with this status.
    Final(Status),
    /// The next attempt is due then.
    RetryAt(DateTime<Utc>),
    /// The attempt was not the current one: nothing was recorded.
    Stale,
}

/// Writes the deliveries of a new event. Where an earlier one with the same key is unended, they are held.
pub(crate) fn place(tx: &Tx<'_>, row: i64, event: &Arc<Event>, matches: &[Match]) -> rusqlite::Result<Vec<Placed>> {
    matches.iter().map(|matched| place_one(tx, row, event, matched, Origin::default())).collect()
}

/// The same for one delivery.
pub(crate) fn place_one(
    tx: &Tx<'_>,
    event_row: i64,
    event: &Arc<Event>,
    matched: &Match,
    origin: Origin<'_>,
) -> rusqlite::Result<Placed> {
    let (id, held) = insert(tx, event_row, matched, origin)?;
    let due = || Due {
        row: id.row(),
        id,
        publication: 1,
        attempts: 0,
        format: matched.format,
        replay: None,
        block: matched.block,
        event: event.clone(),
        intact: true,
    };
    let place = if held { Place::Held } else { Place::New(Box::new(due())) };
    Ok(Placed { row: id.row(), target: matched.target.clone(), place, path: Vec::new() })
}

/// Where a delivery comes from, when it is no match of a new event.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin<'a> {
    /// The run it is a step of, and the step's path.
    pub(crate) step: Option<(i64, &'a str)>,
    /// The replay that makes it, and how many times its event was delivered before.
    pub(crate) replay: Option<(i64, u32)>,
    /// The delivery it is made again from: where that one kept its place in the line of its key, this one takes it.
    pub(crate) instead_of: Option<i64>,
}

/// Writes a delivery; gives its id and whether it is held.
pub(crate) fn insert(
    tx: &Tx<'_>,
    event_row: i64,
    matched: &Match,
    origin: Origin<'_>,
) -> rusqlite::Result<(RowId, bool)> {
    let (born, target) = (Born::now(), matched.target.to_string());
    let (turn, held) = line::join(tx, &target, matched.key.as_deref(), origin.instead_of)?;
    tx.prepare_cached(
        "INSERT INTO delivery (born, event, target, trigger, format, generation, publication, status, key, run, step, \
         replay, turn, block) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        born.0,
        event_row,
        target,
        matched.trigger.as_ref().map(Name::as_str),
        format_number(matched.format),
        origin.replay.map_or(0, |(_, generation)| generation),
        if held { Status::Held } else { Status::Pending },
        matched.key,
        origin.step.map(|(run, _)| run),
        origin.step.map(|(_, path)| path),
        origin.replay.map(|(replay, _)| replay),
        turn,
        matched.block.then_some(true),
    ])?;
    Ok((RowId::new(born, tx.last_insert_rowid()), held))
}

/// The columns [`read_match`] expects, in order.
pub(crate) const MATCH: &str = "d.target, d.trigger, d.format, d.key, d.block";

/// As what a delivery was made, from [`MATCH`] at column `at`.
pub(crate) fn read_match(row: &Row<'_>, at: usize) -> rusqlite::Result<Match> {
    let trigger: Option<String> = row.get(at + 1)?;
    Ok(Match {
        target: read_target(row, at)?,
        trigger: trigger.and_then(|name| name.parse().ok()),
        format: read_format(row.get(at + 2)?),
        key: row.get(at + 3)?,
        block: row.get::<_, Option<bool>>(at + 4)?.unwrap_or_default(),
    })
}

/// Opens an attempt. A delivery that has ended or moved on meanwhile is left alone.
pub(crate) fn begin(tx: &Tx<'_>, attempt: RowId, node: &str) -> rusqlite::Result<()> {
    let (delivery, n) = attempt::delivery_of(attempt.row());
    let opened = tx
        .prepare_cached(
            "UPDATE delivery SET status = 2, attempts = ?2 WHERE seq = ?1 AND status = 1 AND attempts = ?2 - 1",
        )?
        .execute(params![delivery, n])?;
    if opened == 1 {
        attempt::open(tx, attempt, node)?;
    }
    Ok(())
}

/// Records an outcome and everything that follows from it, by the config as it is now.
pub(crate) fn end(tx: &Tx<'_>, attempt: RowId, outcome: &Outcome, by: &Rules<'_>) -> rusqlite::Result<End> {
    let (delivery, n) = attempt::delivery_of(attempt.row());
    let Some(mut current) = Current::read(tx, delivery)? else { return Ok(Ended::Stale.into()) };
    let too_many = follow::too_many(tx, &current, outcome, by)?;
    let outcome = too_many.as_ref().unwrap_or(outcome);
    if current.status == Status::Pending && current.attempts + 1 == n {
        // It ended before its beginning was written: both are written now.
        attempt::insert(tx, attempt, by.node, outcome)?;
        current.attempts = n;
    } else if current.status != Status::Running || current.attempts != n || !attempt::close(tx, attempt, outcome)? {
        return Ok(Ended::Stale.into());
    }
    let now = ambient::now();
    if outcome.ending.disposition() == Disposition::Done {
        let freed = finish_attempt(tx, &current, Status::Done, None, now)?;
        return Ok(follow::ended(tx, &current, outcome, by, None)?.of(Ended::Final(Status::Done), freed));
    }
    let dice = dice(attempt);
    let next = if outcome.ending == Ending::Lost {
        // Nobody knows whether it ran: not held against the function's own attempts.
        retry::after_loss(attempt::lost(tx, delivery)?, dice).ok_or(DeadReason::Quarantined)
    } else if too_many.is_some() {
        Err(DeadReason::BranchLimit)
    } else if outcome.fault.as_ref().is_some_and(|fault| !fault.retry) {
        Err(DeadReason::Rejected)
    } else {
        let failures = n - attempt::lost(tx, delivery)?.min(n - 1);
        // one that may not be passed over has waited for others, perhaps long: its age is that of its attempts
        let first = if current.block { attempt::first(tx, delivery)? } else { None };
        let age = (now - first.unwrap_or(current.id.born().time())).to_std().unwrap_or_default();
        let policy = run::retry(tx, &current)?.unwrap_or_else(|| by.catalog.retry(&current.target));
        match policy.after(failures, age, dice) {
            Next::After(wait) => Ok(wait),
            Next::Exhausted => Err(DeadReason::AttemptsExhausted),
            Next::TooOld => Err(DeadReason::TooOld),
        }
    };
    match next {
        Ok(wait) => Ok(put_off(tx, delivery, n, now + wait)?.into()),
        Err(reason) => {
            let freed = finish_attempt(tx, &current, Status::Dead, Some(reason), now)?;
            Ok(follow::ended(tx, &current, outcome, by, Some(reason))?.of(Ended::Final(Status::Dead), freed))
        }
    }
}

/// An attempt that began could not be run, for want of an instance: it was none. The next one, a moment later, has its number.
pub(crate) fn take_back(tx: &Tx<'_>, attempt: RowId) -> rusqlite::Result<Ended> {
    let (delivery, n) = attempt::delivery_of(attempt.row());
    let Some(current) = Current::read(tx, delivery)? else { return Ok(Ended::Stale) };
    let unwritten = current.status == Status::Pending && current.attempts + 1 == n;
    let written = current.status == Status::Running && current.attempts == n;
    if !(unwritten || written && attempt::remove(tx, attempt)?) {
        return Ok(Ended::Stale);
    }
    put_off(tx, delivery, n - 1, ambient::now() + retry::without_capacity(dice(attempt)))
}

/// The next attempt is due then, after so many.
fn put_off(tx: &Tx<'_>, delivery: i64, attempts: u32, until: DateTime<Utc>) -> rusqlite::Result<Ended> {
    tx.prepare_cached(
        "UPDATE delivery SET status = 3, retry_at = ?2, publication = publication + 1, attempts = ?3 WHERE seq = ?1",
    )?
    .execute(params![delivery, until.timestamp_micros(), attempts])?;
    Ok(Ended::RetryAt(until))
}

/// What was answered to an outcome that is recorded; none when it is not, or the attempt was given up as lost.
pub(crate) fn answered(connection: &Connection, attempt: RowId) -> rusqlite::Result<Option<Ended>> {
    let (delivery, n) = attempt::delivery_of(attempt.row());
    connection
        .prepare_cached(
            "SELECT d.status, d.attempts, coalesce(d.retry_at, a.ended) FROM attempt a JOIN delivery d ON d.seq = ?3 \
             WHERE a.id = ?1 AND a.born = ?2 AND a.outcome IS NOT NULL AND a.outcome <> 'lost'",
        )?
        .query_row(params![attempt.row(), attempt.born().0, delivery], |row| {
            let (status, attempts): (Status, u32) = (row.get(0)?, row.get(1)?);
            // one that has moved on since, or has expired, waited for its retry
            let ended_it = matches!(status, Status::Done | Status::Dead) && attempts == n;
            Ok(if ended_it { Ended::Final(status) } else { Ended::RetryAt(time(row.get(2)?)) })
        })
        .optional()
}

/// A number in 0..1 that differs from attempt to attempt.
fn dice(attempt: RowId) -> f64 {
    (attempt.born().0 & 0x0fff) as f64 / 4096.0
}

/// What decides on what follows: the config as it is now.
pub(crate) struct Rules<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) namespace: &'a Name,
    /// Who decides.
    pub(crate) node: &'a str,
}

impl Rules<'_> {
    /// The source of what follows from a function.
    pub(crate) fn source(&self, function: &Name) -> String {
        format!("/{}/{function}", self.namespace)
    }
}

/// A delivery as it stands when its attempt ends.
pub(crate) struct Current {
    pub(crate) id: RowId,
    pub(crate) event: i64,
    pub(crate) target: Target,
    pub(crate) status: Status,
    pub(crate) attempts: u32,
    /// The run it is a step of, and the step's path.
    pub(crate) run: Option<(i64, String)>,
    /// A replay that lets nothing follow.
    pub(crate) hold: bool,
    /// Others may wait for it to end.
    pub(crate) keyed: bool,
    /// It may not be passed over.
    block: bool,
    /// Its event, when it was read.
    parent: OnceCell<Option<Event>>,
}

impl Current {
    pub(crate) fn read(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<Option<Self>> {
        tx.prepare_cached(
            "SELECT d.born, d.event, d.target, d.status, d.attempts, d.run, d.step, coalesce(r.hold, 0), \
             d.key IS NOT NULL, coalesce(d.block, 0) \
             FROM delivery d LEFT JOIN replay r ON r.seq = d.replay WHERE d.seq = ?1",
        )?
        .query_row([delivery], |row| {
            let run: Option<i64> = row.get(5)?;
            let step: Option<String> = row.get(6)?;
            Ok(Self {
                id: RowId::new(Born(row.get(0)?), delivery),
                event: row.get(1)?,
                target: read_target(row, 2)?,
                status: row.get(3)?,
                attempts: row.get(4)?,
                run: run.zip(step),
                hold: row.get(7)?,
                keyed: row.get(8)?,
                block: row.get(9)?,
                parent: OnceCell::new(),
            })
        })
        .optional()
    }

    /// Its event, from which something is to follow; none when that is gone.
    pub(crate) fn parent(&self, tx: &Tx<'_>) -> rusqlite::Result<Option<&Event>> {
        if self.parent.get().is_none() {
            let read = event::get(tx, self.event)?.map(|logged| logged.event);
            let _ = self.parent.set(read);
        }
        Ok(self.parent.get().and_then(Option::as_ref))
    }
}

fn read_target(row: &Row<'_>, at: usize) -> rusqlite::Result<Target> {
    row.get::<_, String>(at)?.parse().map_err(|error: InvalidTarget| {
        rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, error.into())
    })
}

/// Ends a delivery with the attempt that ended it; gives the one that waited for that. One that blocks its key keeps its
/// turn when it is given up.
pub(super) fn finish_attempt(
    tx: &Tx<'_>,
    current: &Current,
    status: Status,
    reason: Option<DeadReason>,
    now: DateTime<Utc>,
) -> rusqlite::Result<Option<Placed>> {
    let delivery = current.id.row();
    close(tx, delivery, status, reason, Some(current.attempts), now)?;
    if current.keyed { line::free_next(tx, delivery) } else { Ok(None) }
}

/// Ends a delivery without an attempt; gives the one that waited for that.
pub(crate) fn finish(
    tx: &Tx<'_>,
    delivery: i64,
    status: Status,
    reason: Option<DeadReason>,
    now: DateTime<Utc>,
) -> rusqlite::Result<Option<Placed>> {
    close(tx, delivery, status, reason, None, now)?;
    line::free_next(tx, delivery)
}

fn close(
    tx: &Tx<'_>,
    delivery: i64,
    status: Status,
    reason: Option<DeadReason>,
    attempts: Option<u32>,
    now: DateTime<Utc>,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE delivery SET status = ?2, reason = ?3, ended = ?4, retry_at = NULL, attempts = coalesce(?5, attempts), \
         turn = CASE WHEN ?2 IN (11, 12) AND block THEN turn END WHERE seq = ?1",
    )?
    .execute(params![delivery, status, reason.map(DeadReason::as_str), now.timestamp_micros(), attempts])
    .map(|_| ())
}

/// Makes retries whose time has come pending again.
pub(crate) fn due(tx: &Tx<'_>, now: DateTime<Utc>, limit: usize) -> rusqlite::Result<Vec<Placed>> {
    let rows: Vec<(i64, String)> = tx
        .prepare_cached(
            "SELECT seq, target FROM delivery WHERE status = 3 AND retry_at <= ?1 ORDER BY retry_at LIMIT ?2",
        )?
        .query_map(params![now.timestamp_micros(), limit as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut update = tx.prepare_cached("UPDATE delivery SET status = 1, retry_at = NULL WHERE seq = ?1")?;
    for (seq, _) in &rows {
        update.execute([seq])?;
    }
    Ok(placed(rows))
}

/// Moves the times of all retries back.
pub(crate) fn retry_earlier(tx: &Tx<'_>, by: TimeDelta) -> rusqlite::Result<()> {
    let by = by.num_microseconds().unwrap_or_default();
    tx.execute("UPDATE delivery SET retry_at = retry_at - ?1 WHERE status = 3", [by]).map(|_| ())
}

/// When the next retry is due.
pub(crate) fn next_due(connection: &Connection) -> rusqlite::Result<Option<DateTime<Utc>>> {
    let at: Option<i64> = connection
        .prepare_cached("SELECT min(retry_at) FROM delivery WHERE status = 3")?
        .query_row([], |row| row.get(0))?;
    Ok(at.map(time))
}

/// Decides anew that pending deliveries are published: what is still on its way becomes stale.
pub(crate) fn publish_anew(tx: &Tx<'_>, rows: &[i64]) -> rusqlite::Result<()> {
    let mut update =
        tx.prepare_cached("UPDATE delivery SET publication = publication + 1 WHERE seq = ?1 AND status = 1")?;
    for row in rows {
        update.execute([row])?;
    }
    Ok(())
}

/// Deliveries per target that may have been on their way when the node ended.
const ON_THEIR_WAY: i64 = 4096;

/// After a start: what was running when the node ended is closed as lost, with everything that follows from that.
pub(crate) fn recover(tx: &Tx<'_>, by: &Rules<'_>) -> rusqlite::Result<Vec<End>> {
    let open: Vec<(RowId, u32)> = tx
        .prepare_cached(
            // A pipeline's delivery is running as long as its run is: its steps are deliveries of their own.
            "SELECT a.id, a.born, d.publication FROM delivery d JOIN attempt a ON a.id = (d.seq << 12 | d.attempts) \
             WHERE d.status IN (0, 1, 2) AND d.status = 2 \
             AND NOT EXISTS (SELECT 1 FROM run WHERE run.delivery = d.seq AND run.status = 2)",
        )?
        .query_map([], |row| Ok((RowId::new(Born(row.get(1)?), row.get(0)?), row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let outcome = Outcome::failure(Ending::Lost, "Runtime.Lost", "the node ended before the attempt did");
    let mut ends = Vec::with_capacity(open.len());
    for (attempt, publication) in open {
        if publication == 0 {
            // a synchronous call: its caller is gone, and may repeat it
            repeat::end(tx, attempt, &outcome, by)?;
        } else {
            ends.push(end(tx, attempt, &outcome, by)?);
        }
    }
    // What was published before is published anew, so that nothing waits for a message somebody else held.
    for target in backlog::waiting(tx)? {
        tx.prepare_cached(
            "UPDATE delivery SET publication = publication + 1 WHERE seq IN (SELECT seq FROM delivery \
             WHERE target = ?1 AND status IN (0, 1, 2) AND status = 1 ORDER BY seq LIMIT ?2)",
        )?
        .execute(params![target, ON_THEIR_WAY])?;
    }
    Ok(ends)
}

/// Rows and targets as placed deliveries; a target that no longer reads as a name is left to `recover`.
fn placed(rows: Vec<(i64, String)>) -> Vec<Placed> {
    rows.into_iter()
        .filter_map(|(row, target)| {
            Some(Placed { row, target: target.parse().ok()?, place: Place::Last, path: Vec::new() })
        })
        .collect()
}

pub(crate) fn format_number(format: Format) -> i64 {
    match format {
        Format::Body => 0,
        Format::HttpV2 => 1,
        Format::CloudEvent => 2,
        Format::Scheduled => 3,
        Format::S3 => 4,
        Format::Sqs => 5,
    }
}

pub(crate) fn read_format(number: i64) -> Format {
    match number {
        1 => Format::HttpV2,
        2 => Format::CloudEvent,
        3 => Format::Scheduled,
        4 => Format::S3,
        5 => Format::Sqs,
        _ => Format::Body,
    }
}
