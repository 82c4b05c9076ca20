//! Synchronous calls with an id of their own. Each is accepted before it runs, so a repeat finds it: its response, or that it
//! still runs. An attempt whose node ended in the middle has no response; the repeat runs it again.

use rusqlite::{OptionalExtension, params};

use super::{
    Status, Tx, attempt,
    delivery::{self, Current, Placed, Rules},
    event::{self as rows, Inserted, Prepared},
    follow,
};
use crate::{
    Outcome, ambient,
    id::{Born, RowId},
    name::Name,
    outcome::{Disposition, Ending},
    payload::Format,
    sink::AcceptError,
    target::Target,
};

/// What there is to do for a call.
#[derive(Debug)]
pub enum Admission<T> {
    /// It is in the log now, and to be run.
    New(T),
    /// It was called before and has not ended.
    Runs,
    /// It was called before and has ended so.
    Answered(Box<Outcome>),
    /// It was called before, and its response is no longer kept.
    Forgotten,
}

impl<T> Admission<T> {
    pub(crate) fn map<U>(self, new: impl FnOnce(T) -> U) -> Admission<U> {
        match self {
            Self::New(value) => Admission::New(new(value)),
            Self::Runs => Admission::Runs,
            Self::Answered(outcome) => Admission::Answered(outcome),
            Self::Forgotten => Admission::Forgotten,
        }
    }
}

/// Accepts a call of a function.
pub(crate) fn begin(
    tx: &Tx<'_>,
    event: &Prepared,
    target: &Target,
    format: Format,
    node: &str,
) -> Result<Admission<RowId>, AcceptError> {
    let Inserted::New(row) = rows::insert(tx, event)? else { return again(tx, event, target, node) };
    tx.prepare_cached(
        "INSERT INTO delivery (born, event, target, trigger, format, generation, publication, status, attempts) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, ?6, 1)",
    )?
    .execute(params![
        Born::now().0,
        row,
        target.to_string(),
        event.trigger.as_ref().map(Name::as_str),
        delivery::format_number(format),
        Status::Running,
    ])?;
    Ok(Admission::New(open(tx, tx.last_insert_rowid(), 1, node)?))
}

/// The same call came before.
fn again(tx: &Tx<'_>, event: &Prepared, target: &Target, node: &str) -> Result<Admission<RowId>, AcceptError> {
    let Some(known) = find(tx, event, target)? else { return Ok(Admission::Forgotten) };
    if !known.lost() {
        return Ok(known.admission());
    }
    let n = known.attempts + 1;
    tx.prepare_cached("UPDATE delivery SET status = 2, reason = NULL, ended = NULL, attempts = ?2 WHERE seq = ?1")?
        .execute(params![known.delivery, n])?;
    Ok(Admission::New(open(tx, known.delivery, n, node)?))
}

fn open(tx: &Tx<'_>, delivery: i64, n: u32, node: &str) -> rusqlite::Result<RowId> {
    let attempt = RowId::new(Born::now(), attempt::attempt_row(delivery, n));
    attempt::open(tx, attempt, node)?;
    Ok(attempt)
}

/// An earlier call, as it stands.
struct Known {
    delivery: i64,
    ended: bool,
    /// Nothing but its caller would run it again.
    synchronous: bool,
    attempts: u32,
    outcome: Option<Outcome>,
}

impl Known {
    /// Its node ended in the middle.
    fn lost(&self) -> bool {
        self.ended && self.synchronous && self.outcome.as_ref().is_some_and(|outcome| outcome.ending == Ending::Lost)
    }

    fn admission<T>(self) -> Admission<T> {
        match self.outcome {
            _ if !self.ended => Admission::Runs,
            Some(outcome) => Admission::Answered(Box::new(outcome)),
            None => Admission::Forgotten,
        }
    }
}

/// The first delivery of the event that has this one's id, to `target`.
fn find(tx: &Tx<'_>, event: &Prepared, target: &Target) -> rusqlite::Result<Option<Known>> {
    let found: Option<(i64, Status, u32, u32)> = tx
        .prepare_cached(
            "SELECT d.seq, d.status, d.publication, d.attempts FROM seen s JOIN event e ON e.seq = s.event AND e.id = s.id \
             JOIN delivery d ON d.event = e.seq WHERE s.id = ?1 AND s.scope = ?2 AND d.target = ?3 ORDER BY d.seq LIMIT 1",
        )?
        .query_row(params![event.id, event.source, target.to_string()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((delivery, status, publication, attempts)) = found else { return Ok(None) };
    let outcome = attempt::outcome(tx, attempt::attempt_row(delivery, attempts))?;
    Ok(Some(Known { delivery, ended: status.is_ended(), synchronous: publication == 0, attempts, outcome }))
}

/// What became of an earlier call that runs as a delivery like any other: a pipeline's.
pub(crate) fn known<T>(tx: &Tx<'_>, event: &Prepared, target: &Target) -> rusqlite::Result<Admission<T>> {
    Ok(find(tx, event, target)?.map_or(Admission::Forgotten, Known::admission))
}

/// Records how a call ended, with what follows from its output. Nothing, when it is not the current attempt.
pub(crate) fn end(
    tx: &Tx<'_>,
    attempt: RowId,
    outcome: &Outcome,
    by: &Rules<'_>,
) -> rusqlite::Result<Option<Vec<Placed>>> {
    let (delivery, n) = attempt::delivery_of(attempt.row());
    let Some(current) = Current::read(tx, delivery)? else { return Ok(None) };
    if current.status != Status::Running || current.attempts != n || !attempt::close(tx, attempt, outcome)? {
        return Ok(None);
    }
    let done = outcome.ending.disposition() == Disposition::Done;
    let (status, reason) = if done { (Status::Done, None) } else { (Status::Dead, Some("synchronous")) };
    tx.prepare_cached("UPDATE delivery SET status = ?2, reason = ?3, ended = ?4 WHERE seq = ?1")?.execute(params![
        delivery,
        status,
        reason,
        ambient::now().timestamp_micros()
    ])?;
    let parent = if done { current.parent(tx)? } else { None };
    let placed = parent.map(|parent| follow::place_outputs(tx, parent, &current, outcome, by)).transpose()?;
    Ok(Some(placed.unwrap_or_default()))
}

/// A call that nobody ran: it leaves the log as it was, so that a repeat is a new one.
pub(crate) fn withdraw(tx: &Tx<'_>, attempt: RowId) -> rusqlite::Result<()> {
    let (delivery, n) = attempt::delivery_of(attempt.row());
    if !attempt::remove(tx, attempt)? {
        return Ok(());
    }
    if n > 1 {
        // what was lost before stays so
        tx.prepare_cached(
            "UPDATE delivery SET status = 11, reason = 'synchronous', ended = ?2, attempts = attempts - 1 WHERE seq = ?1",
        )?
        .execute(params![delivery, ambient::now().timestamp_micros()])?;
        return Ok(());
    }
    tx.prepare_cached(
        "DELETE FROM seen WHERE (id, scope) = (SELECT e.id, e.source FROM delivery d JOIN event e ON e.seq = d.event \
         WHERE d.seq = ?1)",
    )?
    .execute([delivery])?;
    tx.prepare_cached("DELETE FROM event WHERE seq = (SELECT event FROM delivery WHERE seq = ?1)")?
        .execute([delivery])?;
    tx.prepare_cached("DELETE FROM delivery WHERE seq = ?1")?.execute([delivery])?;
    Ok(())
}
