//! The tables, and how an older log becomes a newer one.
//!
//! `user_version` counts the migrations that were run; each runs in a transaction of its own, so one that was
//! interrupted is run again. Released migrations are never edited.

use rusqlite::Connection;
use uuid::Uuid;

use crate::failpoint::{self, Failpoint};

/// Every migration in order.
const MIGRATIONS: [&str; 5] = [
    include_str!("schema/001.sql"),
    include_str!("schema/002.sql"),
    include_str!("schema/003.sql"),
    include_str!("schema/004.sql"),
    include_str!("schema/005.sql"),
];

#[derive(Debug)]
pub(super) enum SchemaError {
    Sqlite(rusqlite::Error),
    Newer { found: i64, known: i64 },
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Sets the writing connection up and brings its schema to the newest.
pub(super) fn prepare(connection: &Connection) -> Result<(), SchemaError> {
    // FULL: a commit has been synced when it returns, which is what "accepted" promises.
    connection.execute_batch(
        "PRAGMA page_size = 8192;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -16000;
         PRAGMA temp_store = MEMORY;",
    )?;
    super::keep_plans(connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    if let Some((found, known)) = newer(connection)? {
        return Err(SchemaError::Newer { found, known });
    }
    let (found, known) = (version(connection)?, MIGRATIONS.len() as i64);
    if found > 0 && found < known {
        tracing::info!("the event log is brought from schema {found} to {known}; a large one takes a while");
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(found as usize) {
        connection.execute_batch(&format!("BEGIN; {migration} PRAGMA user_version = {}; COMMIT;", index + 1))?;
        failpoint::reach(Failpoint::SchemaMigrated);
    }
    Ok(())
}

/// The schema of a log and the newest that is known, when the log's is newer.
pub(super) fn newer(connection: &Connection) -> rusqlite::Result<Option<(i64, i64)>> {
    let (found, known) = (version(connection)?, MIGRATIONS.len() as i64);
    Ok((found > known).then_some((found, known)))
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The log's own id, made at its first opening.
pub(super) fn identity(connection: &Connection) -> rusqlite::Result<Uuid> {
    connection.execute("INSERT OR IGNORE INTO identity (one, id) VALUES (1, ?1)", [Uuid::now_v7()])?;
    connection.query_row("SELECT id FROM identity", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_in_an_older_log_stands_in_line_as_it_did() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("log.db")).unwrap();
        connection.execute_batch(&MIGRATIONS[..2].concat()).unwrap();
        connection.execute_batch("PRAGMA user_version = 2").unwrap();
        let insert = "INSERT INTO delivery (born, event, target, format, generation, publication, status, key) \
                      VALUES (0, 0, 'f', 0, 0, 1, ?1, ?2)";
        for (status, key) in [(10, Some("a")), (3, Some("a")), (0, Some("a")), (11, Some("b")), (1, None)] {
            connection.execute(insert, (status, key)).unwrap();
        }
        prepare(&connection).unwrap();
        let mut turns = connection.prepare("SELECT seq FROM delivery WHERE turn IS NOT NULL ORDER BY turn").unwrap();
        let turns: Vec<i64> = turns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(turns, [2, 3]);
    }

    #[test]
    fn preparing_twice_changes_nothing_and_a_newer_log_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let connection = Connection::open(folder.path().join("log.db")).unwrap();
        prepare(&connection).unwrap();
        let id = identity(&connection).unwrap();
        prepare(&connection).unwrap();
        assert_eq!(identity(&connection).unwrap(), id);
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
        assert!(matches!(prepare(&connection), Err(SchemaError::Newer { found: 99, .. })));
    }
}
