//! What triggers remember.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, params};

use super::Tx;
use crate::{name::Name, sink::Mark};

/// Writes or forgets marks.
pub(crate) fn write(tx: &Tx<'_>, marks: &[Mark]) -> rusqlite::Result<()> {
    for Mark { trigger, key, value } in marks {
        match value {
            Some(value) => tx
                .prepare_cached("INSERT OR REPLACE INTO mark (trigger, key, value) VALUES (?1, ?2, ?3)")?
                .execute(params![trigger.as_str(), key, value])?,
            None => tx
                .prepare_cached("DELETE FROM mark WHERE trigger = ?1 AND key = ?2")?
                .execute(params![trigger.as_str(), key])?,
        };
    }
    Ok(())
}

/// All marks of a trigger.
pub(crate) fn of(connection: &Connection, trigger: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    connection
        .prepare_cached("SELECT key, value FROM mark WHERE trigger = ?1")?
        .query_map([trigger], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// The marks of a pause: that it is one, or when it ended.
const PAUSED: &str = "paused";
pub const RESUMED: &str = "resumed";

/// What is to be remembered of a trigger that is paused or resumed at `now`.
pub(crate) fn of_pause(trigger: &Name, paused: bool, now: DateTime<Utc>) -> Vec<Mark> {
    let mark = |key: &str, value| Mark { trigger: trigger.clone(), key: key.to_owned(), value };
    if paused {
        return vec![mark(PAUSED, Some(now.to_rfc3339()))];
    }
    vec![mark(PAUSED, None), mark(RESUMED, Some(now.to_rfc3339()))]
}

/// The triggers that are paused.
pub(crate) fn paused(connection: &Connection) -> rusqlite::Result<BTreeSet<Name>> {
    let mut statement = connection.prepare_cached("SELECT trigger FROM mark WHERE key = ?1")?;
    let names = statement.query_map([PAUSED], |row| row.get::<_, String>(0))?;
    Ok(names.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().filter_map(|name| name.parse().ok()).collect())
}

/// Whether a delivery by this trigger is unended.
pub(crate) fn has_open(connection: &Connection, trigger: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM delivery WHERE status IN (0, 1, 2) AND trigger = ?1) \
             OR EXISTS (SELECT 1 FROM delivery WHERE status = 3 AND trigger = ?1)",
        )?
        .query_row([trigger], |row| row.get(0))
}
