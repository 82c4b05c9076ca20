//! Dead letters: deliveries that were given up, and how people settle them. A redrive is a replay ([`super::replay`]);
//! here are the other two: to drop one, and to deliver it again with another body. What happened stays in the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Duration, Utc};
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::{
    Tx,
    delivery::{self, Origin, Placed, Rules},
    event::{self, Logged, Prepared, time},
    line,
    query::{self, IS_LATEST, QueryError, Selection},
    retention::Keep,
    run,
};
use crate::{
    ambient, chain,
    id::{Born, RowId},
    outcome::Fault,
};

/// The last lines printed that are shown with a letter.
const LINES: usize = 5;

/// SQL that holds for a `delivery d` that was given up or expired, is not a caller's to repeat, and not settled by hand.
pub(super) const IS_GIVEN_UP: &str = "d.status IN (11, 12) AND d.publication > 0 AND d.settled IS NULL";

/// The same for one that is a dead letter: no step, for its pipeline's delivery is the letter, and the latest of its event
/// and target. What blocks its key is one also when it was replayed before it died: else nobody could free those behind it.
pub(super) fn is_dead_letter() -> String {
    format!("{IS_GIVEN_UP} AND d.run IS NULL AND (d.turn IS NOT NULL OR {IS_LATEST})")
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
    /// When it goes from the log; none while others wait for it.
    pub expires: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How many of its key wait for it.
    #[serde(default)]
    pub blocks: u64,
    /// Of the last attempt.
    pub outcome: Option<String>,
    pub error: Option<Fault>,
    /// The last lines it printed.
    pub log: Option<String>,
    /// Every attempt, the first first.
    pub history: Vec<Try>,
}

/// One attempt of a dead letter; `fnbus show` has all of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Try {
    pub n: u32,
    pub outcome: Option<String>,
    pub started: Option<DateTime<Utc>>,
    pub error: Option<Fault>,
}

/// What dropping letters leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub letters: u64,
    /// Letters per target, and per reason.
    pub targets: BTreeMap<String, u64>,
    pub reasons: BTreeMap<String, u64>,
    /// Deliveries that no longer wait for them.
    pub freed: u64,
}

/// A letter that is to be delivered again with another body.
#[derive(Debug, Clone)]
pub struct Edit {
    pub id: String,
    /// Which, where the event has several.
    pub target: Option<String>,
    pub data: Bytes,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edited {
    /// The event with the corrected body.
    pub event: String,
    /// The event it stands in for.
    pub corrects: String,
    pub target: String,
}

/// The newest `limit` dead letters of a selection, oldest first.
pub fn letters(
    connection: &Connection,
    selection: &Selection,
    limit: usize,
    keep: Keep,
) -> Result<Vec<DeadLetter>, QueryError> {
    let (condition, mut values) = selection.condition(connection)?;
    values.push((limit as i64).into());
    let sql = format!(
        "SELECT d.seq, d.born, e.id, e.type, d.target, d.trigger, d.reason, d.attempts, e.time, d.ended, d.key, \
         e.received, (SELECT max(d.ended) FROM delivery d WHERE d.event = e.seq AND {IS_GIVEN_UP}) \
         FROM delivery d JOIN event e ON e.seq = d.event \
         WHERE {} AND {condition} ORDER BY d.ended DESC, d.seq DESC LIMIT ?",
        is_dead_letter()
    );
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        let seq = row.get(0)?;
        let blocks = line::blocked(connection, seq)?;
        let goes = time(row.get(11)?) + after(keep.age);
        let goes = row.get::<_, Option<i64>>(12)?.map_or(goes, |dead| goes.max(time(dead) + after(keep.dead)));
        let mut letter = DeadLetter {
            delivery: RowId::new(Born(row.get(1)?), seq),
            event: event::read_id(row, 2)?.map(|id| id.to_string()).unwrap_or_default(),
            kind: row.get(3)?,
            target: row.get(4)?,
            trigger: row.get(5)?,
            reason: row.get(6)?,
            attempts: row.get(7)?,
            time: time(row.get(8)?),
            died: row.get::<_, Option<i64>>(9)?.map(time),
            expires: (blocks == 0).then_some(goes),
            key: row.get(10)?,
            blocks,
            outcome: None,
            error: None,
            log: None,
            history: Vec::new(),
        };
        for attempt in super::detail::attempts(connection, seq)? {
            (letter.outcome, letter.error) = (attempt.outcome.clone(), attempt.error.clone());
            letter.log = attempt.log.as_deref().map(last_lines);
            let (n, started) = (attempt.n, attempt.started);
            letter.history.push(Try { n, outcome: attempt.outcome, started, error: attempt.error });
        }
        Ok(letter)
    })?;
    let mut rows: Vec<DeadLetter> = rows.collect::<rusqlite::Result<_>>()?;
    rows.reverse();
    Ok(rows)
}

fn after(keep: std::time::Duration) -> Duration {
    // a hundred years are for good
    Duration::from_std(keep).unwrap_or(Duration::MAX).min(Duration::days(36_500))
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// What dropping the chosen letters would do. It is also how many there are, and of which kinds.
pub fn plan_drop(connection: &Connection, selection: &Selection) -> Result<Dropped, QueryError> {
    let mut dropped = Dropped::default();
    for Chosen { seq, target, reason } in chosen(connection, selection)? {
        dropped.count(target, reason);
        dropped.freed += line::blocked(connection, seq)?;
    }
    Ok(dropped)
}

/// Drops the chosen letters: they are settled, and what waited for them goes on.
pub fn drop(tx: &Tx<'_>, selection: &Selection) -> Result<(Dropped, Vec<Placed>), QueryError> {
    let (mut dropped, mut placed) = (Dropped::default(), Vec::new());
    for Chosen { seq, target, reason } in chosen(tx, selection)? {
        dropped.count(target, reason);
        dropped.freed += line::blocked(tx, seq)?;
        settle(tx, seq, None)?;
        if line::leave(tx, seq)?.is_some() {
            placed.extend(line::free_next(tx, seq)?);
        }
    }
    Ok((dropped, placed))
}

struct Chosen {
    seq: i64,
    target: String,
    reason: String,
}

impl Dropped {
    fn count(&mut self, target: String, reason: String) {
        self.letters += 1;
        *self.targets.entry(target).or_default() += 1;
        *self.reasons.entry(reason).or_default() += 1;
    }
}

fn chosen(connection: &Connection, selection: &Selection) -> Result<Vec<Chosen>, QueryError> {
    let (condition, values) = selection.condition(connection)?;
    let mut statement = connection.prepare(&format!(
        "SELECT d.seq, d.target, coalesce(d.reason, '') FROM delivery d JOIN event e ON e.seq = d.event \
         WHERE {} AND {condition} ORDER BY d.seq",
        is_dead_letter()
    ))?;
    let read = |row: &rusqlite::Row<'_>| Ok(Chosen { seq: row.get(0)?, target: row.get(1)?, reason: row.get(2)? });
    let chosen: Vec<Chosen> = statement.query_map(params_from_iter(values), read)?.collect::<rusqlite::Result<_>>()?;
    if chosen.is_empty() {
        look_for_settled(connection, selection)?;
    }
    Ok(chosen)
}

/// Fails when an event that is named had a letter, with what became of that.
pub(super) fn look_for_settled(connection: &Connection, selection: &Selection) -> Result<(), QueryError> {
    // the last time that it was given up, and when it was delivered again after that
    let mut last = connection.prepare_cached(
        "SELECT d.settled, d.corrected IS NOT NULL, \
         (SELECT min(r.created) FROM delivery later JOIN replay r ON r.seq = later.replay WHERE later.event = d.event \
          AND later.target = d.target AND later.trigger IS d.trigger AND later.generation > d.generation) \
         FROM delivery d WHERE d.event = ?1 AND d.status IN (11, 12) AND d.publication > 0 AND d.run IS NULL \
         AND (?2 IS NULL OR d.target = ?2) ORDER BY d.generation DESC LIMIT 1",
    )?;
    for id in &selection.ids {
        let row = query::one(connection, id)?;
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let found: Option<(Option<i64>, bool, Option<i64>)> =
            last.query_row(params![row, selection.function], read).optional()?;
        let (how, at) = match found {
            Some((Some(at), true, _)) => ("edited", at),
            Some((Some(at), false, _)) => ("dropped", at),
            Some((None, _, Some(at))) => ("delivered again", at),
            _ => continue,
        };
        return Err(QueryError::Settled { id: id.clone(), how, time: time(at) });
    }
    Ok(())
}

fn settle(tx: &Tx<'_>, delivery: i64, corrected: Option<i64>) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE delivery SET settled = ?2, corrected = ?3 WHERE seq = ?1")?
        .execute(params![delivery, ambient::now().timestamp_micros(), corrected])
        .map(|_| ())
}

/// Delivers a letter again with another body: a new event with the same facts, for that target alone.
pub(crate) fn edit(tx: &Tx<'_>, edit: &Edit, by: &Rules<'_>) -> Result<(Edited, Vec<Placed>), QueryError> {
    let id = || edit.id.clone();
    let selection = Selection { ids: vec![id()], function: edit.target.clone(), ..Selection::default() };
    let letters = chosen(tx, &selection)?;
    let [letter] = &letters[..] else {
        let targets: Vec<String> = letters.into_iter().map(|letter| letter.target).collect();
        let none = targets.is_empty();
        return Err(if none {
            QueryError::NoLetter { id: id() }
        } else {
            QueryError::SeveralLetters { id: id(), targets }
        });
    };
    let (row, matched) = tx
        .prepare_cached(&format!("SELECT d.event, {} FROM delivery d WHERE d.seq = ?1", delivery::MATCH))?
        .query_row([letter.seq], |row| Ok((row.get(0)?, delivery::read_match(row, 1)?)))?;
    let Logged { event: original, .. } = event::get(tx, row)?.ok_or_else(|| QueryError::UnknownId { id: id() })?;
    if original.data == edit.data {
        return Err(QueryError::Unchanged { id: id() });
    }
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>;
    if let (Ok(_), Err(reason)) = (is_json(&original.data), is_json(&edit.data)) {
        return Err(QueryError::NotJson { reason: reason.to_string() });
    }
    let event = Prepared::new(chain::corrected(&original, edit.data.clone()));
    let new = event::insert_row(tx, &event)?;
    settle(tx, letter.seq, Some(new))?;
    let origin = Origin { instead_of: Some(letter.seq), ..Origin::default() };
    let placed = delivery::place_one(tx, new, event.event(), &matched, origin)?;
    let edited =
        Edited { event: event.id.to_string(), corrects: original.id.to_string(), target: letter.target.clone() };
    Ok((edited, run::begin(tx, vec![placed], by)?))
}
