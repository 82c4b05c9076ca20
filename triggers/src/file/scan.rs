//! What is in the folders now. Only ordinary files count: links, pipes and sockets are passed over, never opened.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Pattern, inventory::Stamp};

/// Everything that is there of some patterns.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: HashMap<PathBuf, Stamp>,
    /// Roots that could not be read: nothing is known of what was in them.
    pub(super) unread: Vec<PathBuf>,
    /// Files whose names are not UTF-8 and cannot be told.
    pub(super) unnamed: usize,
}

pub(super) fn scan(patterns: &[Pattern]) -> Found {
    let mut found = Found::default();
    for pattern in patterns {
        let mut folders = vec![pattern.root().to_owned()];
        while let Some(folder) = folders.pop() {
            if read(pattern, &folder, &mut folders, &mut found).is_err() && folder == pattern.root() {
                found.unread.push(folder);
            }
        }
    }
    found
}

/// One folder. What vanishes while it is read is not there.
fn read(pattern: &Pattern, folder: &Path, below: &mut Vec<PathBuf>, found: &mut Found) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let Ok(entry) = entry else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        if kind.is_dir() && pattern.is_deep() {
            below.push(path);
        } else if kind.is_file() && pattern.matches(&path) {
            if path.to_str().is_none() {
                found.unnamed += 1;
            } else if let Some(stamp) = entry.metadata().ok().as_ref().and_then(stamp) {
                found.files.insert(path, stamp);
            }
        }
    }
    Ok(())
}

/// What an ordinary file is now; none: there is none.
pub(super) fn look(path: &Path) -> Option<Stamp> {
    stamp(&fs::symlink_metadata(path).ok()?)
}

pub(super) fn stamp(meta: &Metadata) -> Option<Stamp> {
    meta.is_file().then(|| Stamp {
        inode: meta.ino(),
        born: meta.created().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos() as i64),
        size: meta.size(),
        modified: meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec()),
    })
}

/// Whether nothing about a file, its name included, changed since a time.
pub(super) fn is_older(path: &Path, time: SystemTime) -> bool {
    let Ok(time) = time.duration_since(UNIX_EPOCH) else { return true };
    let at = |meta: Metadata| (meta.ctime(), meta.ctime_nsec()) < (time.as_secs() as i64, time.subsec_nanos().into());
    fs::symlink_metadata(path).is_ok_and(at)
}

/// Whether a file has more than one name: then it was made as a link, and nobody writes to it for being new.
pub(super) fn is_linked(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.nlink() > 1)
}

/// Which folder stands at a path: another one there is another folder.
pub(super) fn folder_id(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(path).ok()?;
    meta.is_dir().then(|| (meta.dev(), meta.ino()))
}
