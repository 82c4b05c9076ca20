//! The copies of code on disk: one for each content, made once, kept as long as the log keeps a version of it, or something
//! runs from it. So does what is beside a copy, by the name of a version.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use bus::{
    failpoint::{self, Failpoint},
    log::version::{self, KeptVersion},
};
use sha2::{Digest, Sha256};

use super::{Version, hex, version_id};
use crate::{
    archive::{self, BadArchive},
    config::FunctionConfig,
    lock,
};

/// Deeper folders are a link that leads back into itself.
const MAX_DEPTH: usize = 32;

/// Keeps folders on the disk as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Held;

/// Why no version could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("its code is missing: there is no {path}; create it, or correct `code`", path = .0.display())]
    Missing(PathBuf),
    #[error("its code cannot be copied: {path}: {source}", path = path.display())]
    Copy { path: PathBuf, source: io::Error },
    #[error("its code cannot be unpacked: {path}: {source}", path = path.display())]
    Archive { path: PathBuf, source: BadArchive },
    #[error("its code has folders more than {MAX_DEPTH} deep: {path}; is there a link that leads back?", path = .0.display())]
    Deep(PathBuf),
}

/// The versions on disk.
#[derive(Debug)]
pub(crate) struct Store {
    data: PathBuf,
    folder: PathBuf,
    /// Folders that are being made or used.
    used: Mutex<HashMap<String, Weak<Held>>>,
}

/// Whether a name in a code folder is no code.
pub(crate) fn is_left_out(name: &OsStr) -> bool {
    [".git", ".venv", "__pycache__"].iter().any(|n| name == *n)
        || Path::new(name).extension().is_some_and(|e| e == "pyc")
}

impl Store {
    pub(crate) fn new(data: &Path) -> Self {
        // absolute, so that it is recognised inside a code folder
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        Self { folder: data.join("versions"), data, used: Mutex::default() }
    }

    /// Copies the code as it is now and names the version. Blocks.
    pub(crate) fn snapshot(&self, config: &FunctionConfig) -> Result<Version, SnapshotError> {
        let Copied { hash, held, files, bytes } = self.copied(&config.code)?;
        let is_file = config.code.is_file() && !archive::is_archive(&config.code);
        let source = if is_file { config.code.parent().unwrap_or(&config.code) } else { &config.code };
        let id = version_id(&hash, config);
        Ok(Version {
            number: None,
            code: self.folder.join(&hash),
            _held: [held, self.hold(&version::beside(&hash, &id))],
            id,
            source: source.to_owned(),
            runtime: config.runtime,
            pin: config.pin,
            handler: config.handler.clone(),
            env: config.env.clone(),
            memory: config.memory,
            processes: config.processes,
            cpu: config.cpu,
            ephemeral_storage: config.ephemeral_storage,
            slots: config.slots,
            zygote: config.zygote,
            isolation: config.isolation,
            network: config.network,
            folders: config.folders.clone(),
            hosts: config.hosts.clone(),
            files,
            bytes,
        })
    }

    /// The folder with a copy of code, made where there is none yet.
    fn copied(&self, code: &Path) -> Result<Copied, SnapshotError> {
        if archive::is_archive(code) {
            let failed = |source| SnapshotError::Archive { path: code.to_owned(), source };
            return self.place(|to| archive::unpack(code, to).map_err(failed));
        }
        let files = self.files(code)?;
        let (hash, bytes) = hash(&files)?;
        let held = self.hold(&hash);
        if self.folder.join(&hash).is_dir() {
            return Ok(Copied { hash, held, files: files.len(), bytes });
        }
        self.place(|to| files.iter().try_for_each(|file| copy(file, to)))
    }

    /// Has a folder filled, and names it by what is in it then: an edit may have come in between.
    fn place(&self, fill: impl FnOnce(&Path) -> Result<(), SnapshotError>) -> Result<Copied, SnapshotError> {
        let name = format!(".{}", uuid::Uuid::now_v7().simple());
        let (temporary, _held) = (self.folder.join(&name), self.hold(&name));
        let filled = fs::create_dir_all(&temporary).map_err(|source| failed(&temporary, source));
        if let Err(error) = filled.and_then(|()| fill(&temporary)) {
            let _ = fs::remove_dir_all(&temporary);
            return Err(error);
        }
        let files = self.files(&temporary)?;
        let (hash, bytes) = hash(&files)?;
        let held = self.hold(&hash);
        let place = self.folder.join(&hash);
        if place.is_dir() {
            let _ = fs::remove_dir_all(&temporary);
        } else {
            failpoint::reach(Failpoint::VersionCopied);
            if let Err(source) = fs::rename(&temporary, &place) {
                let _ = fs::remove_dir_all(&temporary);
                // another function with the same code may have been quicker
                if !place.is_dir() {
                    return Err(failed(&place, source));
                }
            }
            failpoint::reach(Failpoint::VersionNamed);
        }
        Ok(Copied { hash, held, files: files.len(), bytes })
    }

    /// A version that is kept; none when its code is not there any more.
    pub(crate) fn restore(&self, kept: &KeptVersion) -> Option<Version> {
        let held = [self.hold(&kept.code), self.hold(&version::beside(&kept.code, &kept.id))];
        let code = self.folder.join(&kept.code);
        let version: Version = serde_json::from_str(&kept.config).ok()?;
        code.is_dir().then(|| Version {
            id: kept.id.as_str().into(),
            number: Some(kept.number),
            code,
            _held: held,
            ..version
        })
    }

    fn hold(&self, folder: &str) -> Arc<Held> {
        let mut used = lock(&self.used);
        if let Some(held) = used.get(folder).and_then(Weak::upgrade) {
            return held;
        }
        let held = Arc::new(Held);
        used.insert(folder.to_owned(), Arc::downgrade(&held));
        held
    }

    /// Removes folders that nobody uses, but these and what is beside them. Blocks.
    pub(crate) fn collect(&self, keep: &BTreeSet<String>) {
        let gone = self.folder.join(format!(".{}", uuid::Uuid::now_v7().simple()));
        {
            let mut used = lock(&self.used);
            used.retain(|_, held| held.strong_count() > 0);
            for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let stays = |name: &str| used.contains_key(name) || keep.contains(name);
                if !name.to_str().is_some_and(|name| stays(version::goes_with(name))) {
                    // moved while nobody can begin to use it, removed when others go on
                    let _ = fs::create_dir_all(&gone);
                    let _ = fs::rename(entry.path(), gone.join(entry.file_name()));
                }
            }
        }
        let _ = fs::remove_dir_all(gone);
    }

    /// All files of a code folder, sorted by their path in it.
    fn files(&self, code: &Path) -> Result<Vec<CodeFile>, SnapshotError> {
        let mut files = Vec::new();
        let missing = |_| SnapshotError::Missing(code.to_owned());
        if fs::metadata(code).map_err(missing)?.is_file() {
            let name = code.file_name().unwrap_or_default();
            files.push(CodeFile { path: code.to_owned(), relative: name.into() });
        } else {
            self.walk(code, Path::new(""), 0, &mut files)?;
        }
        files.sort_by(|a, b| a.relative.cmp(&b.relative));
        Ok(files)
    }

    fn walk(&self, folder: &Path, at: &Path, depth: usize, to: &mut Vec<CodeFile>) -> Result<(), SnapshotError> {
        if depth > MAX_DEPTH {
            return Err(SnapshotError::Deep(folder.to_owned()));
        }
        for entry in fs::read_dir(folder).map_err(|source| failed(folder, source))? {
            let entry = entry.map_err(|source| failed(folder, source))?;
            let (path, name) = (entry.path(), entry.file_name());
            if is_left_out(&name) || path == self.data {
                continue;
            }
            // links are followed; one that leads nowhere, a socket and a pipe are no code
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() {
                self.walk(&path, &at.join(&name), depth + 1, to)?;
            } else if meta.is_file() {
                to.push(CodeFile { path, relative: at.join(name) });
            }
        }
        Ok(())
    }
}

/// A folder with a copy of code.
struct Copied {
    hash: String,
    held: Arc<Held>,
    files: usize,
    bytes: u64,
}

struct CodeFile {
    path: PathBuf,
    relative: PathBuf,
}

fn copy(file: &CodeFile, to: &Path) -> Result<(), SnapshotError> {
    let place = to.join(&file.relative);
    let copy = || {
        fs::create_dir_all(place.parent().unwrap_or(to))?;
        fs::copy(&file.path, &place)
    };
    match copy() {
        // removed since it was listed
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(&file.path, source)),
        Ok(_) => Ok(()),
    }
}

/// Hash over paths, contents and executable bits; and the size of all.
fn hash(files: &[CodeFile]) -> Result<(String, u64), SnapshotError> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    for file in files {
        let read = || Ok((fs::metadata(&file.path)?.permissions().mode() & 0o111 != 0, fs::read(&file.path)?));
        let (executable, content) = match read() {
            Ok(read) => read,
            Err(e) if io::Error::kind(&e) == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(failed(&file.path, source)),
        };
        let path = file.relative.as_os_str().as_encoded_bytes();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update([u8::from(executable)]);
        hash.update((content.len() as u64).to_le_bytes());
        bytes += content.len() as u64;
        hash.update(content);
    }
    Ok((hex(&hash.finalize())[..32].to_owned(), bytes))
}

fn failed(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Copy { path: path.to_owned(), source }
}
