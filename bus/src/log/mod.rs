//! The log: the SQLite event log of a node. What it says is the truth; NATS is transport.
//!
//! One thread owns the writing connection ([`writer`]). Callers hand it closures that run inside a transaction, all or
//! nothing of each; it commits at once when idle and otherwise in groups of what arrived meanwhile, and answers after
//! the fsync. So a check and the change it allows are always one, and many callers share one fsync. Readers have
//! connections of their own ([`reader`]) and hold no transaction longer than one query.
//!
//! * [`settle`]: what an end that was none left behind; [`schema`]: tables, and how an older log becomes a newer one;
//! * [`event`], [`delivery`], [`attempt`]: rows, and every change of a delivery's status; [`mod@line`]: which goes first of a key;
//!   [`backlog`]: what waits, for whoever carries it; [`unrun`]: what ends without having run;
//! * [`version`]: versions of functions and where their aliases lead;
//! * [`calls`]: synchronous calls, written behind the caller's back in bulk;
//! * [`backup`]: a copy of it, and whether it is what was written; [`restore`]: such a copy in its place;
//! * [`query`], [`detail`], [`runs`]: what people ask; [`usage`]: how functions were called;
//!   [`replay`]: fixed selections delivered again; [`dead`]: what was given up, and how it is settled; [`retention`]: what may go.

pub(crate) mod attempt;
pub mod backup;
pub mod restore;
mod bound;
pub mod calls;
mod checkpoint;
pub mod dead;
pub mod backlog;
pub mod delivery;
pub mod detail;
pub mod event;
mod follow;
mod health;
mod line;
pub(crate) mod run;
pub mod query;
pub(crate) mod mark;
mod reader;
pub(crate) mod repeat;
pub mod replay;
pub mod runs;
pub mod retention;
mod schema;
mod settle;
mod status;
pub(crate) mod unrun;
pub mod usage;
pub mod version;
mod writer;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};
use tokio::sync::watch;
use uuid::Uuid;

use crate::sink::AcceptError;

pub use status::{DeadReason, Status};
#[cfg(test)]
pub(crate) use writer::Turns;
pub use writer::Tx;

use bound::{Bound, Gauge};
use checkpoint::Checkpoints;
use health::Health;
use reader::Readers;
use writer::Writer;

/// A handle to the log of this node; clones are cheap.
#[derive(Clone)]
pub struct Log {
    writer: Writer,
    readers: Readers,
    health: Health,
    calls: calls::CallLog,
    bound: Bound,
    id: Uuid,
    path: Arc<Path>,
}

/// Why the log did not do something.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    #[error("no space is left for the event log")]
    Full,
    /// Nobody knows what of it is on disk. Syncing again would say yes without doing it.
    #[error("the disk did not keep what was written to the event log ({reason})")]
    Unsynced { reason: Arc<str> },
    #[error("the event log is damaged ({reason})")]
    Damaged { reason: Arc<str> },
    #[error("the event log failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    #[error("a change of the event log was undone together with another one that failed")]
    Undone,
    #[error("the event log is closed")]
    Closed,
}

impl LogError {
    /// Nothing is written any more until the node has been started anew: trying again is of no use.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Unsynced { .. } | Self::Damaged { .. } | Self::Closed)
    }
}

impl From<rusqlite::Error> for LogError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{
            ErrorCode as Code,
            ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHMSIZE},
        };
        if let rusqlite::Error::ToSqlConversionFailure(inner) = &error
            && let Some(inner) = inner.downcast_ref::<AcceptError>().and_then(Failure::of_log)
        {
            return inner;
        }
        let reason = || error.to_string().into();
        match error.sqlite_error().map(|error| (error.code, error.extended_code)) {
            Some((Code::DiskFull, _) | (_, SQLITE_IOERR_SHMSIZE)) => Self::Full,
            Some((_, SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC)) => Self::Unsynced { reason: reason() },
            Some((Code::DatabaseCorrupt | Code::NotADatabase, _)) => Self::Damaged { reason: reason() },
            _ => Self::Sqlite(Arc::new(error)),
        }
    }
}

/// What a change or a query fails with. When that is the log's own failure, it is more than theirs.
pub trait Failure: From<LogError> + Send + 'static {
    fn of_log(&self) -> Option<LogError>;
}

impl Failure for LogError {
    fn of_log(&self) -> Option<LogError> {
        Some(self.clone())
    }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("cannot write the data folder {path}: {error}")]
    Folder { path: PathBuf, error: io::Error },
    #[error("the event log {path} cannot be opened: {error}")]
    Sqlite { path: PathBuf, error: rusqlite::Error },
    #[error("the event log {path} is damaged: {found}")]
    Damaged { path: PathBuf, found: String },
    #[error("the event log {path} was written by a newer fnbus (schema {found}, this one knows {known})")]
    Newer { path: PathBuf, found: i64, known: i64 },
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens or makes the log in a data folder that this process has locked.
    pub fn open(data: &Path) -> Result<Self, OpenError> {
        let path = data.join("log.db");
        fs::create_dir_all(data).map_err(|error| OpenError::Folder { path: data.to_owned(), error })?;
        restrict(data, &path).map_err(|error| OpenError::Folder { path: data.to_owned(), error })?;
        let sqlite = |error| OpenError::Sqlite { path: path.clone(), error };
        let mut connection = Connection::open(&path).map_err(sqlite)?;
        if let Some(found) = settle::settle(&connection, &path).map_err(sqlite)? {
            return Err(OpenError::Damaged { path, found });
        }
        schema::prepare(&connection).map_err(|error| match error {
            schema::SchemaError::Sqlite(error) => OpenError::Sqlite { path: path.clone(), error },
            schema::SchemaError::Newer { found, known } => OpenError::Newer { path: path.clone(), found, known },
        })?;
        let id = schema::identity(&connection).map_err(sqlite)?;
        let health = Health::new();
        let checkpoints = Checkpoints::start(&mut connection, &path, health.clone()).map_err(sqlite)?;
        let bound = Bound::new();
        let gauge = Gauge::new(bound.clone());
        let writer = Writer::start(connection, Some(checkpoints), Some(gauge), health.clone());
        Ok(Self {
            calls: calls::CallLog::new(writer.clone(), bound.clone()),
            bound,
            readers: Readers::new(path.clone(), health.clone()),
            writer,
            health,
            id,
            path: path.into(),
        })
    }

    /// A log on a connection in memory, which writes when it is told to.
    #[cfg(test)]
    pub(crate) fn by_hand(connection: Arc<std::sync::Mutex<Connection>>) -> (Self, Turns) {
        let health = Health::new();
        let (writer, turns) = Turns::new(health.clone());
        let bound = Bound::new();
        let calls = calls::CallLog::new(writer.clone(), bound.clone());
        let log = Self {
            calls,
            readers: Readers::on(connection),
            health,
            writer,
            bound,
            id: Uuid::nil(),
            path: Path::new("").into(),
        };
        (log, turns)
    }

    /// Nothing more may be accepted, or again.
    #[cfg(test)]
    pub(crate) fn fill_up(&self, full: bool) {
        self.bound.set(if full { 0 } else { u64::MAX });
        self.bound.measured(1);
    }

    /// A connection in memory with the log's tables.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        schema::prepare(&connection).unwrap();
        connection.set_prepared_statement_cache_capacity(256);
        connection
    }

    /// The identity of this log: made with it, kept for good.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The size of the log on disk, in bytes, write-ahead log included.
    pub fn size(&self) -> u64 {
        length(&self.path) + wal(&self.path)
    }

    /// Whether anything is in it.
    pub async fn has_events(&self) -> Result<bool, LogError> {
        let any = "SELECT EXISTS (SELECT 1 FROM event)";
        self.read(move |connection| Ok::<_, LogError>(connection.query_row(any, [], |row| row.get(0))?)).await
    }

    /// Bytes in use and how many may be, `[log] max_size`.
    pub fn sizes(&self) -> (u64, u64) {
        self.bound.sizes()
    }

    /// The same when what cannot go fills the log, so that nothing more may be accepted.
    pub fn reached(&self) -> Option<(u64, u64)> {
        self.bound.reached()
    }

    /// Runs a change in the writer's next group and returns when it is on disk. It may run twice, when another change of
    /// the group failed half-way; only the last time counts.
    pub async fn write<T, E>(&self, change: impl Fn(&Tx<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: Failure,
    {
        self.write_and(change, |written| written).await
    }

    /// The same, with something to be done when it is on disk, in the order of the commits and whether or not the caller
    /// still waits. It runs on the writer's thread, so it must be short.
    pub async fn write_and<T, E, R>(
        &self,
        change: impl Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
        after: impl FnOnce(T) -> R + Send + 'static,
    ) -> Result<R, E>
    where
        T: Send + 'static,
        E: Failure,
        R: Send + 'static,
    {
        self.writer.write(change, after).await
    }

    /// Hands a change to the writer, in order with every other, without waiting for it.
    pub fn post(&self, change: impl Fn(&Tx<'_>) -> Result<(), LogError> + Send + 'static) {
        self.writer.post(change);
    }

    /// Runs a query on a connection of its own, away from the async threads.
    pub async fn read<T, E>(&self, query: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: Failure,
    {
        self.readers.read(query).await
    }

    /// Rises with every commit: followers wait on it instead of polling.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.writer.commits()
    }

    /// Whether what begins now could be recorded. After a disk was full it is tried with a change of nothing.
    pub async fn ready(&self) -> Result<(), LogError> {
        self.health.check()?;
        if self.health.was_full()? {
            self.write(|tx| Ok::<_, LogError>(tx.execute("UPDATE identity SET one = 1", []).map(|_| ())?)).await?;
        }
        Ok(())
    }

    /// Waits until the disk did not keep what was written, and says so. Whoever runs the log has to end then.
    pub async fn unsynced(&self) -> LogError {
        loop {
            match self.health.trouble().await {
                LogError::Damaged { .. } => std::future::pending().await,
                error => return error,
            }
        }
    }

    /// Why nothing is written any more; none while it is.
    pub fn trouble(&self) -> Option<LogError> {
        self.health.check().err()
    }

    /// The book of synchronous calls.
    pub fn calls(&self) -> &calls::CallLog {
        &self.calls
    }

    /// Writes what is still waiting and ends the writer's thread. Later changes fail with [`LogError::Closed`].
    pub async fn close(&self) {
        self.calls.flush().await;
        self.writer.close().await;
    }
}

/// The log holds whatever passes through the bus: nobody else reads it.
fn restrict(data: &Path, log: &Path) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700))
}

fn wal(log: &Path) -> u64 {
    length(&log.with_extension("db-wal"))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

/// A statement keeps its plan whatever is bound to it. Without this SQLite plans some joins anew at each use, because
/// another value might have a better plan; the ones here have one good plan each.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(|_| ())
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    keep_plans(&connection)?;
    connection.set_prepared_statement_cache_capacity(32);
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}
