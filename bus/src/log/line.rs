//! The line of a key: the deliveries to one target that have one key. The first of them goes, the others are held.
//!
//! A delivery stands in its line by its `turn`, from the commit that writes it to the one that ends it. One that is given
//! up and is to block those behind it keeps its place: they wait until somebody redrives or edits it, which takes its
//! place, or drops it, which gives it up.

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Status, Tx,
    delivery::{Place, Placed},
    event::read_id,
};

/// SQL that holds for a `delivery d` that others of its key wait for.
pub(super) const HOLDS_UP: &str = "(d.turn IS NOT NULL AND EXISTS (SELECT 1 FROM delivery o WHERE o.target = d.target \
     AND o.key = d.key AND o.turn IS NOT NULL AND o.turn > d.turn))";

/// Where a new delivery stands, and whether somebody stands before it. It takes the place of one that has ended and
/// kept it, else the last one.
pub(super) fn join(
    tx: &Tx<'_>,
    target: &str,
    key: Option<&str>,
    instead_of: Option<i64>,
) -> rusqlite::Result<(Option<i64>, bool)> {
    let Some(key) = key else { return Ok((None, false)) };
    let left = instead_of.map(|delivery| leave(tx, delivery)).transpose()?.flatten();
    let (first, last): (Option<i64>, Option<i64>) = tx
        .prepare_cached(
            "SELECT (SELECT min(turn) FROM delivery WHERE target = ?1 AND key = ?2 AND turn IS NOT NULL), \
             (SELECT max(turn) FROM delivery WHERE target = ?1 AND key = ?2 AND turn IS NOT NULL)",
        )?
        .query_row([target, key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let turn = left.unwrap_or_else(|| last.map_or(1, |last| last + 1));
    Ok((Some(turn), first.is_some_and(|first| first < turn)))
}

/// Takes a delivery that has ended out of its line; gives the place it kept.
pub(super) fn leave(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<Option<i64>> {
    let turn: Option<i64> = tx
        .prepare_cached("SELECT turn FROM delivery WHERE seq = ?1 AND turn IS NOT NULL AND status >= 10")?
        .query_row([delivery], |row| row.get(0))
        .optional()?;
    if turn.is_some() {
        tx.prepare_cached("UPDATE delivery SET turn = NULL WHERE seq = ?1")?.execute([delivery])?;
    }
    Ok(turn)
}

/// A delivery has ended: the first in its line may go, when it is held.
pub(super) fn free_next(tx: &Tx<'_>, delivery: i64) -> rusqlite::Result<Option<Placed>> {
    let freed: Option<(i64, String)> = tx
        .prepare_cached(
            "UPDATE delivery SET status = 1 WHERE status = 0 AND seq = (SELECT next.seq FROM delivery d \
             JOIN delivery next ON next.target = d.target AND next.key = d.key AND next.turn IS NOT NULL \
             WHERE d.seq = ?1 ORDER BY next.turn LIMIT 1) RETURNING seq, target",
        )?
        .query_row([delivery], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(freed.and_then(|(row, target)| {
        Some(Placed { row, target: target.parse().ok()?, place: Place::Freed, path: Vec::new() })
    }))
}

/// What a held delivery waits for, and what sets it free.
pub(super) fn waits(connection: &Connection, delivery: i64) -> rusqlite::Result<Option<String>> {
    let first = connection
        .prepare_cached(
            "SELECT e.id, f.status, f.target FROM delivery d \
             JOIN delivery f ON f.target = d.target AND f.key = d.key AND f.turn IS NOT NULL AND f.turn < d.turn \
             JOIN event e ON e.seq = f.event WHERE d.seq = ?1 ORDER BY f.turn LIMIT 1",
        )?
        .query_row([delivery], |row| Ok((read_id(row, 0)?.unwrap_or_default(), row.get(1)?, row.get(2)?)))
        .optional()?;
    Ok(first.map(|(event, status, target): (_, Status, String)| {
        if status.is_ended() {
            format!(
                "the dead letter {event} blocks its key; free it with `fnbus dead redrive {event} --target {target}`, \
                 or edit or drop it"
            )
        } else {
            format!("{event}, which is {}, goes first of its key", status.as_str())
        }
    }))
}

/// How many wait behind a delivery that has ended and kept its place.
pub(super) fn blocked(connection: &Connection, delivery: i64) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(
            "SELECT count(*) FROM delivery d JOIN delivery o ON o.target = d.target AND o.key = d.key \
             AND o.turn IS NOT NULL AND o.turn > d.turn WHERE d.seq = ?1 AND d.status >= 10",
        )?
        .query_row(params![delivery], |row| row.get(0))
}
