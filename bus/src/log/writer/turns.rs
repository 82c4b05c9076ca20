//! A writer that writes when it is told to, on a disk that fails when it is told to.

use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use super::{Change, Command, Health, LogError, QUEUE, Tx, Writer, step, turn};

/// A writer whose thread is the caller.
pub(crate) struct Turns {
    commands: mpsc::Sender<Command>,
    queue: mpsc::Receiver<Command>,
    committed: watch::Sender<u64>,
    health: Health,
}

impl Turns {
    pub(in crate::log) fn new(health: Health) -> (Writer, Self) {
        let (commands, queue) = mpsc::channel(QUEUE);
        let (committed, commits) = watch::channel(0);
        (Writer { commands: commands.clone(), commits }, Self { commands, queue, committed, health })
    }

    /// How many changes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Commits a group of at most so many.
    pub(crate) fn take(&mut self, connection: &Connection, most: usize) {
        if let Ok(first) = self.queue.try_recv() {
            turn(connection, first, &mut self.queue, most, &self.committed, &self.health);
        }
    }

    /// The disk fails the group of what waits. It is undone, as SQLite does when it finds no space, or `kept`: nobody is
    /// told that it is on disk, and it is.
    pub(crate) fn spoil(&mut self, error: LogError, kept: bool) {
        let _ = self.commands.try_send(Command::Change(Box::new(Spoilt { error, kept })));
    }
}

/// What SQLite does in a change when the disk fails.
struct Spoilt {
    error: LogError,
    kept: bool,
}

impl Change for Spoilt {
    fn apply(&mut self, tx: &Tx<'_>) -> Result<(), Option<LogError>> {
        step(tx, if self.kept { "COMMIT" } else { "ROLLBACK" })?;
        Err(Some(self.error.clone()))
    }

    fn answer(self: Box<Self>, _committed: Result<(), LogError>) {}
}
