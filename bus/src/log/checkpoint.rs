//! Moves what was committed from the write-ahead log into the database, on a thread of its own: that takes as long as many
//! commits, and whoever accepts an event would wait for it.
//!
//! While commits go on the log is never quite caught up with, and only grows. So when the thread is close behind, the
//! writer itself moves the little that is left, between two commits, and the log begins anew. It then waits for the disk
//! once: what was moved is synced when all of it is. Syncing it in pieces from the thread makes the commits wait longer,
//! as their own syncs stand behind it in the file system.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;

use super::{LogError, health::Health};

/// Pages that are worth a checkpoint: 64 MiB.
const PAGES: u32 = 8_000;
/// Pages that the writer moves itself without anybody noticing.
const FEW: u32 = 256;
/// How often the thread tries to come so close before it leaves the rest to the writer.
const ROUNDS: usize = 4;
/// Pages at which the writer waits in any case: 512 MiB.
const MOST: u32 = 64_000;

/// How long the writer waits for a lock that somebody else has, at its start and its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// The writer's side.
pub(super) struct Checkpoints {
    /// Pages in the write-ahead log, as of the last commit.
    pages: Arc<AtomicU32>,
    /// How many there were when the last checkpoint was asked for.
    asked_at: u32,
    /// Set when few pages are left to be moved.
    close_behind: Arc<AtomicBool>,
    /// The thread ends with this. None: it could not be started, and the writer does it all.
    ask: Option<SyncSender<()>>,
    health: Health,
}

impl Checkpoints {
    /// Takes over from SQLite, which would do it within a commit.
    pub(super) fn start(connection: &mut Connection, path: &Path, health: Health) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        connection.wal_hook(Some(move |_: &mut _, pages| {
            counted.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        let own = Connection::open(path)?;
        let (ask, asked) = sync_channel::<()>(1);
        let thread = thread::Builder::new().name("log-checkpoint".into());
        let close_behind = Arc::new(AtomicBool::new(false));
        let (caught_up, condition) = (close_behind.clone(), health.clone());
        let started = thread.spawn(move || {
            for () in asked {
                for _ in 0..ROUNDS {
                    match checkpoint(&own, "PASSIVE") {
                        Ok(left) if left > FEW => {}
                        Ok(_) => break,
                        Err(error) => {
                            tracing::warn!(%error, "the write-ahead log could not be moved into the event log");
                            condition.note(&error);
                            break;
                        }
                    }
                }
                caught_up.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self { pages, asked_at: 0, close_behind, ask: started.is_ok().then_some(ask), health })
    }

    /// After a commit, and after everybody was told of it.
    pub(super) fn committed(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.asked_at {
            self.asked_at = 0;
        }
        let late = pages >= if self.ask.is_some() { MOST } else { PAGES };
        if late || self.close_behind.swap(false, Ordering::Relaxed) {
            // With a reader in the way, such as a backup, the log goes on, and it is tried again when it has grown.
            let _ = connection.busy_timeout(Duration::ZERO);
            if let Err(error) = checkpoint(connection, "RESTART") {
                self.health.note(&error);
            }
            let _ = connection.busy_timeout(PATIENCE);
        } else if pages - self.asked_at >= PAGES {
            self.asked_at = pages;
            // full: one is asked for already
            let _ = self.ask.as_ref().map(|ask| ask.try_send(()));
        }
    }
}

/// Moves pages; how many are left.
fn checkpoint(connection: &Connection, how: &str) -> Result<u32, LogError> {
    let left = connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |row| {
        let (all, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(u32::try_from(all - moved).unwrap_or_default())
    });
    Ok(left?)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A log with some of its pages in the write-ahead log, and how many moved out of it.
    fn log() -> (tempfile::TempDir, Connection, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (body BLOB)").unwrap();
        let checkpoints = Checkpoints::start(&mut connection, &path, Health::new()).unwrap();
        (folder, connection, checkpoints)
    }

    fn fill(connection: &Connection, pages: u32) {
        connection.execute("INSERT INTO t VALUES (zeroblob(?1))", [pages * 4096]).unwrap();
    }

    #[test]
    fn a_long_write_ahead_log_is_moved_by_another_thread() {
        let (folder, connection, mut checkpoints) = log();
        let size = || std::fs::metadata(folder.path().join("log.db")).unwrap().len();
        fill(&connection, 100);
        checkpoints.committed(&connection);
        let before = size();
        fill(&connection, PAGES);
        checkpoints.committed(&connection);
        let begun = Instant::now();
        while size() < before + u64::from(PAGES) * 4096 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it was not moved");
            thread::yield_now();
        }
    }

    #[test]
    fn the_writer_moves_the_rest_and_the_log_begins_anew() {
        let (_folder, connection, mut checkpoints) = log();
        fill(&connection, PAGES);
        checkpoints.committed(&connection);
        let begun = Instant::now();
        while !checkpoints.close_behind.load(Ordering::Relaxed) {
            assert!(begun.elapsed() < Duration::from_secs(30), "it was not moved");
            thread::yield_now();
        }
        fill(&connection, 2);
        checkpoints.committed(&connection);
        fill(&connection, 1);
        assert!(checkpoints.pages.load(Ordering::Relaxed) < 10);
    }

    #[test]
    fn without_the_thread_the_writer_does_it_all() {
        let (_folder, connection, mut checkpoints) = log();
        checkpoints.ask = None;
        fill(&connection, PAGES);
        checkpoints.committed(&connection);
        fill(&connection, 1);
        assert!(checkpoints.pages.load(Ordering::Relaxed) < 10);
    }
}
