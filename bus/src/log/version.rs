//! The versions of functions and where their aliases lead. What is in a version and in a route is for the runtimes to know.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Tx, backlog, event::time, open_reader};
use crate::ambient;

/// A version to be kept.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// As attempts have it.
    pub id: String,
    /// The folder of its code.
    pub code: String,
    /// What its instances are started with.
    pub config: String,
    /// Size of its code.
    pub bytes: u64,
}

/// A version that is kept.
#[derive(Debug, Clone)]
pub struct KeptVersion {
    /// From 1, in the order of their first deploys; never given twice.
    pub number: u32,
    pub id: String,
    pub code: String,
    pub config: String,
    pub bytes: u64,
    /// For the first time.
    pub deployed: DateTime<Utc>,
    pub note: Option<String>,
}

/// The versions of a function, lowest first.
pub fn of(connection: &Connection, function: &str) -> rusqlite::Result<Vec<KeptVersion>> {
    connection
        .prepare_cached(
            "SELECT number, id, code, config, bytes, deployed, note FROM version WHERE function = ?1 ORDER BY number",
        )?
        .query_map([function], |row| {
            Ok(KeptVersion {
                number: row.get(0)?,
                id: row.get(1)?,
                code: row.get(2)?,
                config: row.get(3)?,
                bytes: row.get::<_, i64>(4)? as u64,
                deployed: time(row.get(5)?),
                note: row.get(6)?,
            })
        })?
        .collect()
}

/// Keeps a version under the next number; one that is kept already has its number.
pub fn keep(tx: &Tx<'_>, function: &str, new: &NewVersion) -> rusqlite::Result<KeptVersion> {
    let number: Option<u32> = tx
        .prepare_cached("SELECT number FROM version WHERE function = ?1 AND id = ?2")?
        .query_row([function, &new.id], |row| row.get(0))
        .optional()?;
    if number.is_none() {
        tx.prepare_cached(
            "INSERT INTO version (function, number, id, code, config, bytes, deployed) VALUES \
             (?1, (SELECT 1 + coalesce(max(number), 0) FROM version WHERE function = ?1), ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            function,
            new.id,
            new.code,
            new.config,
            new.bytes as i64,
            ambient::now().timestamp_micros()
        ])?;
    }
    let kept = of(tx, function)?.into_iter().find(|version| version.id == new.id);
    kept.ok_or(rusqlite::Error::QueryReturnedNoRows)
}

/// Forgets versions.
pub fn forget(tx: &Tx<'_>, function: &str, numbers: &BTreeSet<u32>) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached("DELETE FROM version WHERE function = ?1 AND number = ?2")?;
    numbers.iter().try_for_each(|number| statement.execute(params![function, number]).map(|_| ()))
}

/// Says what became of a version.
pub fn note(tx: &Tx<'_>, function: &str, number: u32, note: Option<&str>) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE version SET note = ?3 WHERE function = ?1 AND number = ?2")?
        .execute(params![function, number, note])
        .map(|_| ())
}

/// The folders of all versions of all functions, and those beside them.
pub fn folders(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    let mut statement = connection.prepare_cached("SELECT DISTINCT code, id FROM version")?;
    let versions = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut folders = BTreeSet::new();
    for version in versions {
        let (code, id) = version?;
        folders.insert(beside(&code, &id));
        folders.insert(code);
    }
    Ok(folders)
}

/// How the names begin of what is kept of a version beside the folder of its code.
pub fn beside(code: &str, id: &str) -> String {
    format!("{code}-{id}")
}

/// What something in the folder of all versions is kept with, by its name: itself, if it is code, or what it begins with.
pub fn goes_with(name: &str) -> &str {
    name.match_indices('-').nth(1).map_or(name, |(at, _)| &name[..at])
}

/// Where the aliases of a function lead.
pub fn routes(connection: &Connection, function: &str) -> rusqlite::Result<BTreeMap<String, String>> {
    connection
        .prepare_cached("SELECT name, route FROM alias WHERE function = ?1")?
        .query_map([function], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Has an alias lead elsewhere, or to nothing.
pub fn lead(tx: &Tx<'_>, function: &str, alias: &str, route: Option<&str>) -> rusqlite::Result<()> {
    match route {
        Some(route) => tx
            .prepare_cached("INSERT OR REPLACE INTO alias (function, name, route) VALUES (?1, ?2, ?3)")?
            .execute([function, alias, route]),
        None => tx.prepare_cached("DELETE FROM alias WHERE function = ?1 AND name = ?2")?.execute([function, alias]),
    }
    .map(|_| ())
}

/// How many deliveries to a target have not ended.
pub fn waiting(connection: &Connection, target: &str) -> rusqlite::Result<u64> {
    let all = backlog::unended(connection)?;
    Ok(all.into_iter().find(|(known, _)| known == target).map_or(0, |(_, waiting)| waiting))
}

/// What the log of a data folder has of a function.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub versions: BTreeSet<u32>,
    /// Where its aliases lead.
    pub routes: BTreeMap<String, String>,
}

/// The versions and aliases of every function, by the log of a data folder; a node may use it meanwhile. None where there is
/// no log, or an older one.
pub fn all(data: &Path) -> BTreeMap<String, Kept> {
    let log = data.join("log.db");
    let read = || -> rusqlite::Result<BTreeMap<String, Kept>> {
        let (reader, mut all) = (open_reader(&log)?, BTreeMap::<String, Kept>::new());
        let mut versions = reader.prepare("SELECT function, number FROM version")?;
        for row in versions.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))? {
            let (function, number) = row?;
            all.entry(function).or_default().versions.insert(number);
        }
        let mut aliases = reader.prepare("SELECT function, name, route FROM alias")?;
        for row in aliases.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))? {
            let (function, alias, route) = row?;
            all.entry(function).or_default().routes.insert(alias, route);
        }
        Ok(all)
    };
    if log.is_file() { read().unwrap_or_default() } else { BTreeMap::new() }
}
