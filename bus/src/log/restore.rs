//! A backup in the place of a log.
//!
//! What was there is moved aside, with its write-ahead log: one that stayed would be played into the backup, and nothing
//! would notice.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    backup::{BackupError, Checked, Progress, existing, good_copy, unread, unwritten},
    open_reader, schema,
};
use crate::{ambient, node::DataFolder};

/// A log that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The backup, and what is in it.
    #[serde(flatten)]
    pub checked: Checked,
    /// Where it is now.
    pub restored: PathBuf,
    /// Where the log is that was there before.
    pub kept: Option<PathBuf>,
}

/// Puts a backup in the place of the log of a data folder that no node runs on. Nothing is moved before the copy was read
/// from end to end; when this returns it is on disk.
pub fn restore(from: &Path, data: &Path, mut tell: impl FnMut(Progress)) -> Result<Restored, BackupError> {
    let (from, log) = (existing(from)?, data.join("log.db"));
    if fs::canonicalize(&log).is_ok_and(|log| fs::canonicalize(&from).is_ok_and(|from| from == log)) {
        return Err(BackupError::Itself { path: from });
    }
    let _folder = DataFolder::take(data)?;
    let (partial, checked) = good_copy(&from, &log, &mut tell)?;
    let reader = open_reader(&from).map_err(|error| unread(&from, error))?;
    if let Some((found, known)) = schema::newer(&reader).map_err(|error| unread(&from, error))? {
        return Err(BackupError::Newer { path: from, found, known });
    }
    drop(reader);
    let kept = put_aside(&log).map_err(|error| unwritten(&log, &error))?;
    partial.keep(&log).map_err(|error| unwritten(&log, &error))?;
    Ok(Restored { checked: Checked { file: from, ..checked }, restored: log, kept })
}

/// Gives a log and what belongs to it another name, under which it can be read as before.
fn put_aside(log: &Path) -> std::io::Result<Option<PathBuf>> {
    let aside = log.with_file_name(format!("log-{}.db", ambient::now().format("%Y%m%dT%H%M%S%.3fZ")));
    let mut kept = None;
    for end in ["db", "db-wal", "db-shm"] {
        let file = log.with_extension(end);
        if file.exists() {
            fs::rename(file, aside.with_extension(end))?;
            kept = Some(aside.clone());
        }
    }
    Ok(kept)
}
