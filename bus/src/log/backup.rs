//! A copy of the log: whole, of one moment, of a node that runs or of one that does not. And whether a log is what was
//! written into it.
//!
//! The copy is read by a transaction of its own from what was committed when it began. Nobody waits for it; the write-ahead
//! log only begins anew after it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};
use serde::Serialize;
use uuid::Uuid;

use super::{event, length, open_reader, wal};
use crate::node::StartError;

/// Pages copied between two looks at how far it is.
const STEP: i32 = 512;

/// Why there is no backup, or what is wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    #[error("there is no event log at {}", path.display())]
    Missing { path: PathBuf },
    #[error("{} is no event log, or its beginning is damaged ({found})", path.display())]
    NotALog { path: PathBuf, found: String },
    #[error("{} was written by a newer fnbus (schema {found}, this one knows {known})", path.display())]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("there is no folder {}", path.display())]
    NoFolder { path: PathBuf },
    #[error(transparent)]
    Folder(#[from] StartError),
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error("{} is the event log itself", path.display())]
    Itself { path: PathBuf },
    #[error("{} cannot be read: {error}", path.display())]
    Read { path: PathBuf, error: rusqlite::Error },
    #[error("{} cannot be written: {reason}", path.display())]
    Write { path: PathBuf, reason: String },
    #[error("{} is damaged: {found}", path.display())]
    Damaged { path: PathBuf, found: String },
}

/// What was found in a log that reads from end to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    pub file: PathBuf,
    pub bytes: u64,
    /// The log's id, which names its node.
    pub log: Uuid,
    pub events: u64,
    /// Deliveries that had not ended.
    pub unended: u64,
    /// Events whose body is not what was accepted.
    pub damaged: Vec<String>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the log, of all.
    Copied(u64, u64),
    /// Bodies compared with their hashes, of all.
    Checked(u64, u64),
}

/// Copies the log of a data folder to a file, which then is on disk, checked and its user's alone. A file that is there
/// is replaced only when that is wished, and only by a good copy.
pub fn backup(data: &Path, to: &Path, replace: bool, mut tell: impl FnMut(Progress)) -> Result<Checked, BackupError> {
    let log = existing(&data.join("log.db"))?;
    if fs::canonicalize(to).is_ok_and(|to| fs::canonicalize(&log).is_ok_and(|log| log == to)) {
        return Err(BackupError::Itself { path: to.to_owned() });
    }
    let is_taken = || !replace && to.exists();
    if is_taken() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    let folder = folder_of(to);
    if !folder.is_dir() {
        return Err(BackupError::NoFolder { path: folder.to_owned() });
    }
    let (partial, checked) = good_copy(&log, to, &mut tell)?;
    if is_taken() {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    partial.keep(to).map_err(|error| unwritten(to, &error))?;
    Ok(Checked { file: to.to_owned(), ..checked })
}

/// A copy beside `to` that was read from end to end, to be kept under that name.
pub(super) fn good_copy(
    log: &Path,
    to: &Path,
    tell: &mut impl FnMut(Progress),
) -> Result<(Partial, Checked), BackupError> {
    let partial = Partial::new(to).map_err(|error| unwritten(to, &error))?;
    copy(log, &partial.path, tell).map_err(|error| match error {
        Copy::Read(error) => unread(log, error),
        Copy::Write(error) => unwritten(to, &error),
    })?;
    let checked = check(&partial.path, tell).map_err(|error| match error {
        // what is wrong with an exact copy is wrong with the log
        BackupError::Damaged { found, .. } => BackupError::Damaged { path: log.to_owned(), found },
        BackupError::NotALog { found, .. } => BackupError::NotALog { path: log.to_owned(), found },
        error => error,
    })?;
    Ok((partial, checked))
}

/// Reads a log from end to end, live or not: its structure, and every body against its hash.
pub fn check(log: &Path, mut tell: impl FnMut(Progress)) -> Result<Checked, BackupError> {
    let log = existing(log)?;
    let unread = |error| unread(&log, error);
    let connection = open_reader(&log).map_err(unread)?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(unread)?;
    if found != "ok" {
        return Err(BackupError::Damaged { path: log, found });
    }
    let id = connection.query_row("SELECT id FROM identity", [], |row| row.get(0));
    let id = id.map_err(|error| BackupError::NotALog { path: log.clone(), found: error.to_string() })?;
    let unended = "SELECT count(*) FROM delivery WHERE status < 10";
    let unended = connection.query_row(unended, [], |row| row.get(0)).map_err(unread)?;
    let (events, damaged) = check_bodies(&connection, &mut tell).map_err(unread)?;
    Ok(Checked { bytes: length(&log) + wal(&log), file: log, log: id, events, unended, damaged })
}

fn check_bodies(connection: &Connection, tell: &mut impl FnMut(Progress)) -> rusqlite::Result<(u64, Vec<String>)> {
    let all: u64 = connection.query_row("SELECT count(*) FROM event", [], |row| row.get(0))?;
    let (mut read, mut damaged) = (0, Vec::new());
    let mut bodies = connection.prepare("SELECT e.id, e.data, e.hash FROM event e ORDER BY seq")?;
    let mut rows = bodies.query([])?;
    while let Some(row) = rows.next()? {
        if event::body(row.get_ref(1)?, row.get_ref(2)?).is_err() {
            damaged.push(event::read_id(row, 0)?.map(|id| id.to_string()).unwrap_or_default());
        }
        read += 1;
        if read % 1000 == 0 || read == all {
            tell(Progress::Checked(read, all));
        }
    }
    Ok((read, damaged))
}

enum Copy {
    Read(rusqlite::Error),
    Write(rusqlite::Error),
}

/// Copies what was committed when this began.
fn copy(log: &Path, to: &Path, tell: &mut impl FnMut(Progress)) -> Result<(), Copy> {
    let source = open_reader(log).map_err(Copy::Read)?;
    source.execute_batch("BEGIN; SELECT * FROM sqlite_schema").map_err(Copy::Read)?;
    let size: u64 = source.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(Copy::Read)?;
    let mut copy = Connection::open(to).map_err(Copy::Write)?;
    // it is a copy or nothing: there is nothing to go back to
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF").map_err(Copy::Write)?;
    {
        let backup = Backup::new(&source, &mut copy).map_err(Copy::Write)?;
        loop {
            let step = backup.step(STEP).map_err(Copy::Write)?;
            let progress = backup.progress();
            let (all, left) = (progress.pagecount as u64, progress.remaining as u64);
            tell(Progress::Copied((all - left) * size, all * size));
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // the log is being brought up or closed
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    // one file, without a write-ahead log beside it
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(Copy::Write)
}

pub(super) fn existing(log: &Path) -> Result<PathBuf, BackupError> {
    if log.is_file() { Ok(log.to_owned()) } else { Err(BackupError::Missing { path: log.to_owned() }) }
}

pub(super) fn unread(log: &Path, error: rusqlite::Error) -> BackupError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = log.to_owned();
    match error.sqlite_error_code() {
        Some(NotADatabase) => BackupError::NotALog { path, found: error.to_string() },
        Some(DatabaseCorrupt) => BackupError::Damaged { path, found: error.to_string() },
        _ => BackupError::Read { path, error },
    }
}

pub(super) fn unwritten(to: &Path, reason: &dyn std::fmt::Display) -> BackupError {
    BackupError::Write { path: to.to_owned(), reason: reason.to_string() }
}

/// The folder of a file.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A copy that is not done, and goes unless it is kept.
pub(super) struct Partial {
    path: PathBuf,
}

impl Partial {
    fn new(to: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.partial", std::process::id()));
        let path = to.with_file_name(name);
        File::options().create_new(true).write(true).mode(0o600).open(&path)?;
        Ok(Self { path })
    }

    /// When this returns it is on disk, under its name.
    pub(super) fn keep(self, to: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        fs::rename(&self.path, to)?;
        File::open(folder_of(to))?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // gone already when it was kept
        let _ = fs::remove_file(&self.path);
    }
}
