//! Moves what was committed from the write-ahead log into the database, on a thread of its own: that takes as long as many
//! commits, and whoever accepts an event would wait for it.
//!
//! While commits go on the log is never caught up with and only grows. So beyond [`MOST`] the writer does wait, once,
//! for the little that is left, and the log begins anew.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use rusqlite::Connection;

/// Pages that are worth a checkpoint: 32 MiB.
const PAGES: u32 = 4_000;
/// Pages at which the writer waits: 256 MiB.
const MOST: u32 = 32_000;

/// The writer's side.
pub(super) struct Checkpoints {
    /// Pages in the write-ahead log, as of the last commit.
    pages: Arc<AtomicU32>,
    /// How many there were when the last checkpoint was asked for.
    asked_at: u32,
    /// The thread ends with this. None: it could not be started, and the writer does it all.
    ask: Option<SyncSender<()>>,
}

impl Checkpoints {
    /// Takes over from SQLite, which would do it within a commit.
    pub(super) fn start(connection: &mut Connection, path: &Path) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        connection.wal_hook(Some(move |_: &mut _, pages| {
            counted.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        let own = Connection::open(path)?;
        let (ask, asked) = sync_channel::<()>(1);
        let thread = thread::Builder::new().name("log-checkpoint".into());
        let started = thread.spawn(move || {
            for () in asked {
                if let Err(error) = own.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                    tracing::warn!(%error, "the write-ahead log could not be moved into the event log");
                }
            }
        });
        Ok(Self { pages, asked_at: 0, ask: started.is_ok().then_some(ask) })
    }

    /// After a commit, and after everybody was told of it.
    pub(super) fn committed(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.asked_at {
            self.asked_at = 0;
        }
        if pages >= if self.ask.is_some() { MOST } else { PAGES } {
            let _ = connection.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()));
            self.pages.store(0, Ordering::Relaxed);
            self.asked_at = 0;
        } else if pages - self.asked_at >= PAGES {
            self.asked_at = pages;
            // full: one is asked for already
            let _ = self.ask.as_ref().map(|ask| ask.try_send(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A log with some of its pages in the write-ahead log, and how many moved out of it.
    fn log() -> (tempfile::TempDir, Connection, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (body BLOB)").unwrap();
        let checkpoints = Checkpoints::start(&mut connection, &path).unwrap();
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
    fn where_it_grows_without_end_the_writer_waits_once_and_it_begins_anew() {
        let (_folder, connection, mut checkpoints) = log();
        checkpoints.ask = None;
        fill(&connection, PAGES);
        checkpoints.committed(&connection);
        fill(&connection, 1);
        assert!(checkpoints.pages.load(Ordering::Relaxed) < 10);
    }
}
