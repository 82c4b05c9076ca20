//! What triggers remember.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::Tx;
use crate::sink::Mark;

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

/// Whether a delivery by this trigger is unended.
pub(crate) fn has_open(connection: &Connection, trigger: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM delivery WHERE status IN (0, 1, 2) AND trigger = ?1) \
             OR EXISTS (SELECT 1 FROM delivery WHERE status = 3 AND trigger = ?1)",
        )?
        .query_row([trigger], |row| row.get(0))
}
