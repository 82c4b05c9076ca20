//! What an end that was none left behind: a write-ahead log, whose pages may be in the system's memory only.
//!
//! It goes into the database, synced, before anything is written behind it; see docs/adr/0016. SQLite reads it up to its first
//! frame that is not whole, which is right where the last commit was cut off. It is wrong where a frame in the middle was
//! changed: what was confirmed behind it would be gone without a word. As each commit was synced before the next, at most one
//! commit can have been cut off; with two behind the frames that were read, something was changed.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use rusqlite::{Connection, config::DbConfig};

use super::{length, wal};

/// A log up to this size is looked through.
const LOOKED_THROUGH: u64 = 32 << 20;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Settles what was left behind, if anything; says what is damaged. Then everything stays as it is.
pub(super) fn settle(connection: &Connection, log: &Path) -> rusqlite::Result<Option<String>> {
    let path = log.with_extension("db-wal");
    if wal(log) == 0 {
        return Ok(None);
    }
    let read: i64 = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get(1))?;
    let lost = lost_commits(&path, read.max(0) as u64).unwrap_or_default();
    let found = if lost > 1 {
        let name = path.display();
        format!("{name} was changed after its frame {read}, and at least {} commits behind it cannot be read", lost - 1)
    } else {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        if length(log) > LOOKED_THROUGH {
            return Ok(None);
        }
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?
    };
    if found == "ok" {
        return Ok(None);
    }
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(Some(found))
}

/// Commits behind the first `read` frames of a write-ahead log that were written after it last began anew.
fn lost_commits(path: &Path, read: u64) -> io::Result<u64> {
    let mut file = BufReader::new(File::open(path)?);
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    let page = u64::from(number(&header, 8));
    let salts = if is_whole(&header) { Some(salts(&header, 16)) } else { None };
    file.seek(SeekFrom::Start(HEADER as u64 + read * (FRAME_HEADER as u64 + page)))?;
    let (mut frame, mut commits, mut expected) = ([0; FRAME_HEADER], 0, salts);
    while file.read_exact(&mut frame).is_ok() {
        // the header was changed: what the first frame says
        let expected = *expected.get_or_insert_with(|| self::salts(&frame, 8));
        commits += u64::from(self::salts(&frame, 8) == expected && number(&frame, 4) > 0);
        file.seek_relative(page as i64)?;
    }
    Ok(commits)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// What tells the frames of this life of a write-ahead log from those of the life before.
fn salts(bytes: &[u8], at: usize) -> (u32, u32) {
    (number(bytes, at), number(bytes, at + 4))
}

/// Whether the header is what SQLite wrote: the checksum of its first 24 bytes stands in its last 8.
fn is_whole(header: &[u8; HEADER]) -> bool {
    let big_endian = number(header, 0) & 1 == 1;
    let word = |at: usize| {
        let number = number(header, at);
        if big_endian { number } else { number.swap_bytes() }
    };
    let sums = [0, 8, 16].iter().fold((0_u32, 0_u32), |(first, second), at| {
        let first = first.wrapping_add(word(*at)).wrapping_add(second);
        (first, second.wrapping_add(word(at + 4)).wrapping_add(first))
    });
    sums == (number(header, 24), number(header, 28))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use rstest::rstest;

    use super::*;

    /// A log with five commits in its write-ahead log, as it is found after an end that was none.
    fn left_behind() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (before, log) = (folder.path().join("before.db"), folder.path().join("log.db"));
        let connection = Connection::open(&before).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (body BLOB)").unwrap();
        // a second life of it, with frames of the first behind
        connection.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        for _ in 0..4 {
            connection.execute("INSERT INTO t VALUES (zeroblob(100))", []).unwrap();
        }
        for end in ["db", "db-wal"] {
            fs::copy(before.with_extension(end), log.with_extension(end)).unwrap();
        }
        (folder, log)
    }

    fn rows(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    /// Changes a byte of the write-ahead log.
    fn flip(log: &Path, at: usize) {
        let path = log.with_extension("db-wal");
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x40;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_was_left_behind_is_moved_into_the_database() {
        let (_folder, log) = left_behind();
        let connection = Connection::open(&log).unwrap();
        assert_eq!(settle(&connection, &log).unwrap(), None);
        assert_eq!((rows(&connection), wal(&log)), (4, 0));
    }

    #[rstest]
    #[case::in_the_header(17)]
    #[case::in_the_first_frame(HEADER + FRAME_HEADER + 5)]
    #[case::in_the_second_frame(HEADER + FRAME_HEADER + 4096 + FRAME_HEADER + 5)]
    fn a_change_in_the_middle_is_said_and_everything_stays(#[case] at: usize) {
        let (_folder, log) = left_behind();
        flip(&log, at);
        let before = wal(&log);
        let connection = Connection::open(&log).unwrap();
        let found = settle(&connection, &log).unwrap();
        assert!(found.as_ref().is_some_and(|found| found.contains("cannot be read")), "{found:?}");
        drop(connection);
        assert_eq!(wal(&log), before);
    }

    #[test]
    fn a_last_commit_that_was_cut_off_is_no_damage() {
        let (_folder, log) = left_behind();
        flip(&log, HEADER + 4 * (FRAME_HEADER + 4096) - 1);
        let connection = Connection::open(&log).unwrap();
        assert_eq!(settle(&connection, &log).unwrap(), None);
        assert_eq!(rows(&connection), 3);
    }
}
