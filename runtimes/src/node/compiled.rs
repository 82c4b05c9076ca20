//! What Node.js compiled of a version's code, its compile cache, so that the next process which loads the code need not.
//!
//! It lies beside the code. The first process of a version writes it into its private folder, to which a link beside the code
//! leads meanwhile: some keys say how the code is reached from the cache. The files are copied before that process runs anything
//! for anybody, so no invocation decides what others run. They were made by a function's code, which may lie about them, and are
//! read by processes of the same version alone. Whatever goes wrong with them costs time, and is no failure of the function.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fd::AsFd,
    fs::{Dir, Mode, OFlags, open, openat},
};
use serde_json::{Value, json};
use tracing::debug;
use uuid::Uuid;

use super::NodeJs;
use crate::{config::Isolation, version::Version};

/// What is more is not kept: files and folders, and their bytes.
const MOST_FILES: usize = 1000;
const MOST_BYTES: u64 = 64 << 20;
/// Nor is what is less: looking for it takes as long as it saves.
const LEAST_BYTES: u64 = 32 << 10;
/// The folder for it in the private one of the first process.
const WRITTEN: &str = "compiled";
/// Whoever sets one of these decides for himself.
const OWN: [&str; 3] = ["NODE_COMPILE_CACHE", "NODE_COMPILE_CACHE_PORTABLE", "NODE_DISABLE_COMPILE_CACHE"];

/// What of it is there for a process that is going to be started.
pub(crate) struct Compiled {
    /// Its folder.
    place: PathBuf,
    /// It holds for code that lies elsewhere, too.
    portable: bool,
    state: State,
}

enum State {
    /// No process has tried.
    Missing,
    /// One has, and nothing was kept.
    Empty,
    Kept,
}

impl Compiled {
    /// None where nothing is to be kept. Looks at the disk.
    pub(crate) fn of(node: &NodeJs, version: &Version) -> Option<Self> {
        let decided = OWN.iter().any(|name| version.env.contains_key(*name));
        // in namespaces nobody else sees the files of a process; and they are not to use up what it may have
        let can = node.compiles() && version.isolation != Isolation::Namespaces;
        if decided || !can || version.bytes > version.most_storage() / 4 {
            return None;
        }
        let place = version.beside(node.version());
        let state = match fs::read_dir(&place) {
            Err(_) => State::Missing,
            Ok(mut entries) => entries.next().map_or(State::Empty, |_| State::Kept),
        };
        Some(Self { place, portable: node.is_portable(), state })
    }

    /// Its folder, where a process can use it that may read it; `elsewhere`: with a copy of the code.
    pub(crate) fn kept(&self, elsewhere: bool) -> Option<&Path> {
        (matches!(self.state, State::Kept) && (self.portable || !elsewhere)).then_some(&self.place)
    }

    /// What a process is told of it that has its code as `loaded` says, and a private folder; and what is to be done when it
    /// has written some.
    pub(crate) fn begin(&self, loaded: &Version, home: &Path) -> (Value, Option<Written>) {
        let beside = |name: &Path| loaded.code.with_file_name(name.file_name().unwrap_or_default());
        let elsewhere = beside(&self.place) != self.place;
        let told = |folder: &Path, fill| json!({ "folder": folder, "portable": self.portable, "fill": fill });
        if let Some(kept) = self.kept(elsewhere) {
            return (told(&beside(kept), false), None);
        }
        if !matches!(self.state, State::Missing) || elsewhere && !self.portable {
            return (Value::Null, None);
        }
        let link = loaded.beside(&Uuid::now_v7().simple().to_string());
        let written = Written { link, folder: home.join(WRITTEN), place: self.place.clone() };
        match fs::create_dir(&written.folder).and_then(|()| symlink(&written.folder, &written.link)) {
            Ok(()) => (told(&written.link, true), Some(written)),
            Err(error) => {
                debug!(%error, "what Node.js compiles cannot be kept");
                (Value::Null, None)
            }
        }
    }
}

/// What the first process of a version writes.
pub(crate) struct Written {
    /// Beside its code, and leads to the folder.
    link: PathBuf,
    folder: PathBuf,
    /// Where it is to be.
    place: PathBuf,
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.link);
    }
}

impl Written {
    /// Keeps it for others. To be called when the code is loaded, and before anything else is run.
    pub(crate) async fn keep(self) {
        let kept = tokio::task::spawn_blocking(move || self.copy()).await;
        if let Err(error) = kept.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            debug!(%error, "what Node.js compiled is not kept");
        }
    }

    /// Copies it to its place. Where that fails there is nothing, so that it is not tried again and again.
    fn copy(&self) -> io::Result<()> {
        let name = self.place.file_name().unwrap_or_default().to_string_lossy();
        let temporary = self.place.with_file_name(format!("{name}-{}", Uuid::now_v7().simple()));
        fs::create_dir(&temporary)?;
        let copied = copy(&self.folder, &temporary);
        if copied.is_err() {
            fs::remove_dir_all(&temporary)?;
            fs::create_dir(&temporary)?;
        }
        // another one may have been quicker
        if fs::rename(&temporary, &self.place).is_err() {
            fs::remove_dir_all(&temporary)?;
        }
        // what the process has there is no use to it, and counts
        let _ = fs::remove_dir_all(&self.folder);
        copied
    }
}

/// Copies the files in the folders of one folder, in which a process may do anything meanwhile.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut files, mut bytes) = (MOST_FILES, MOST_BYTES);
    let folder = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let too_much = || io::Error::other("it is too much");
    let from = open(from, folder, Mode::empty())?;
    for name in names(&from, &mut files)? {
        let to = to.join(&name);
        let Ok(from) = openat(&from, &name, folder, Mode::empty()) else { continue };
        fs::create_dir(&to)?;
        for name in names(&from, &mut files)? {
            let Ok(from) = openat(&from, &name, file, Mode::empty()).map(File::from) else { continue };
            if from.metadata()?.is_file() {
                // one more would be too much
                let copied = io::copy(&mut from.take(bytes + 1), &mut File::create_new(to.join(&name))?)?;
                bytes = bytes.checked_sub(copied).ok_or_else(too_much)?;
            }
        }
    }
    if MOST_BYTES - bytes < LEAST_BYTES {
        return Err(io::Error::other("it is too little"));
    }
    Ok(())
}

/// What is in an open folder; an error where it is more than may be left.
fn names(folder: impl AsFd, left: &mut usize) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("it is too much"))?;
            names.push(name.into());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    #[test]
    fn of_what_a_function_has_written_only_files_are_kept_and_no_link_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("v24/deep")).unwrap();
        fs::create_dir(&to).unwrap();
        let enough = vec![1; LEAST_BYTES as usize];
        fs::write(from.join("v24/one"), &enough).unwrap();
        fs::write(from.join("beside"), "2").unwrap();
        fs::write(temp.path().join("secret"), "3").unwrap();
        symlink(temp.path().join("secret"), from.join("v24/link")).unwrap();
        symlink(temp.path(), from.join("v25")).unwrap();
        mknodat(CWD, from.join("v24/pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        copy(&from, &to).unwrap();
        let mut found: Vec<_> =
            ["v24", "v24/one", "v24/deep", "v24/link", "v24/pipe", "v25", "beside", "secret"].into();
        found.retain(|path| fs::symlink_metadata(to.join(path)).is_ok());
        assert_eq!(found, ["v24", "v24/one"]);
        assert_eq!(fs::read(to.join("v24/one")).unwrap(), enough);
        assert!(copy(&temp.path().join("from/v25"), &to).is_err(), "the folder itself is no link either");
    }

    #[test]
    fn too_much_and_too_little_are_not_kept_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let written = |name: &str| {
            let (folder, place) = (temp.path().join(name), temp.path().join(format!("{name}-kept")));
            fs::create_dir_all(folder.join("v24")).unwrap();
            Written { link: temp.path().join(format!("{name}-link")), folder, place }
        };
        let (many, large, small, fits) = (written("many"), written("large"), written("small"), written("fits"));
        let sized = |written: &Written, bytes| {
            File::create(written.folder.join("v24/one")).unwrap().set_len(bytes).unwrap();
        };
        for number in 0..MOST_FILES {
            fs::write(many.folder.join(format!("v24/{number}")), "").unwrap();
        }
        sized(&large, MOST_BYTES + 1);
        sized(&small, LEAST_BYTES - 1);
        sized(&fits, LEAST_BYTES);
        for not in [many, large, small] {
            assert!(not.copy().is_err());
            assert_eq!(fs::read_dir(&not.place).unwrap().count(), 0, "it is known to have been tried");
        }
        fits.copy().unwrap();
        assert!(fits.place.join("v24/one").is_file() && !fits.folder.exists());
        // the next one is late
        fs::create_dir_all(fits.folder.join("v24")).unwrap();
        sized(&fits, LEAST_BYTES);
        fits.copy().unwrap();
        assert!(fits.place.join("v24/one").is_file());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 4, "nothing is left behind");
    }
}
