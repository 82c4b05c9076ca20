//! Versions: immutable snapshots of a function's code with what its instances are started with.
//!
//! The code is copied to `<data>/versions/<hash of the code>/` and run from there, so an edit never changes what runs. A
//! folder stays as long as the log keeps a version of it, or something runs from it. Left out: `.git`, `__pycache__`,
//! `*.pyc`, and `.venv`, which is used where it is (it is large, and no edit of code touches it). An archive is unpacked
//! there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak},
};

use bus::{
    failpoint::{self, Failpoint},
    log::version::{KeptVersion, NewVersion},
    target::Qualifier,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    archive::{self, BadArchive},
    cgroups::Limits,
    config::{EPHEMERAL_STORAGE, EnvValue, Folders, FunctionConfig, Isolation, Peer, RuntimeKind},
    lifecycle::Lifecycle,
    lock,
};

/// Deeper folders are a link that leads back into itself.
const MAX_DEPTH: usize = 32;

/// What an instance is started from. What is left out of its JSON stands beside it in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Version {
    /// 12 hex digits of the hash over code and configuration.
    #[serde(skip)]
    pub(crate) id: Arc<str>,
    /// What it is called; none before it is known.
    #[serde(skip)]
    pub(crate) number: Option<u32>,
    /// The copy that runs.
    #[serde(skip)]
    pub(crate) code: PathBuf,
    #[serde(skip)]
    pub(crate) _held: Arc<Held>,
    /// The folder or archive it was copied from.
    pub(crate) source: PathBuf,
    pub(crate) runtime: RuntimeKind,
    /// Set where it asks for one of a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pin: Option<Lifecycle>,
    pub(crate) handler: String,
    pub(crate) env: BTreeMap<String, EnvValue>,
    /// MiB.
    pub(crate) memory: u32,
    pub(crate) processes: u32,
    pub(crate) cpu: Option<u32>,
    /// MiB.
    #[serde(default = "ephemeral_storage")]
    pub(crate) ephemeral_storage: u32,
    /// Invocations that an instance runs at once.
    #[serde(default = "one")]
    pub(crate) slots: u32,
    /// Whether its instances may be forked.
    pub(crate) zygote: bool,
    pub(crate) isolation: Isolation,
    pub(crate) network: bool,
    pub(crate) folders: Folders,
    #[serde(default)]
    pub(crate) hosts: Vec<Peer>,
    /// Files of its code.
    pub(crate) files: usize,
    /// Their size.
    pub(crate) bytes: u64,
}

fn ephemeral_storage() -> u32 {
    EPHEMERAL_STORAGE
}

fn one() -> u32 {
    1
}

/// Keeps a folder of code on the disk as long as it lives.
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
pub(crate) fn is_left_out(name: &std::ffi::OsStr) -> bool {
    [".git", ".venv", "__pycache__"].iter().any(|n| name == *n)
        || Path::new(name).extension().is_some_and(|e| e == "pyc")
}

/// Whether instances of both configurations are started alike.
pub(crate) fn starts_alike(a: &FunctionConfig, b: &FunctionConfig) -> bool {
    let parts = |c: &FunctionConfig| (c.runtime, c.pin, c.isolation, c.code.clone(), c.handler.clone(), c.zygote);
    let limits = |c: &FunctionConfig| (c.memory, c.processes, c.cpu, c.ephemeral_storage, c.slots);
    let reach = |c: &FunctionConfig| (c.network, c.folders.clone(), c.hosts.clone());
    parts(a) == parts(b) && limits(a) == limits(b) && a.env == b.env && reach(a) == reach(b)
}

/// The bytes that a process of a runtime may have, for functions of so many MiB: what it takes before any code is loaded is
/// not theirs.
pub(crate) fn most_memory(runtime: RuntimeKind, memory: u32) -> u64 {
    // Node.js maps much at once, thread stacks included
    let base = if runtime == RuntimeKind::Node { 128 } else { 64 };
    (u64::from(memory) + base) << 20
}

impl Version {
    /// What it is run by, as it stands in the config.
    pub(crate) fn runtime_name(&self) -> &'static str {
        self.pin.map_or(self.runtime.as_str(), |pin| pin.name)
    }

    /// As the function reads it: its number.
    pub(crate) fn called(&self) -> String {
        self.number.map_or_else(|| Qualifier::LATEST.to_owned(), |number| number.to_string())
    }

    /// Bytes that each of its processes may have.
    pub(crate) fn most_memory(&self) -> u64 {
        most_memory(self.runtime, self.memory)
    }

    /// Bytes that an instance may have in files of its own.
    pub(crate) fn most_storage(&self) -> u64 {
        u64::from(self.ephemeral_storage) << 20
    }

    /// What an instance may have with all that it starts.
    pub(crate) fn limits(&self) -> Limits {
        // there its files are in memory
        let files = if self.isolation == Isolation::Namespaces { self.most_storage() } else { 0 };
        Limits { memory: self.most_memory() + files, processes: self.processes, cpu: self.cpu }
    }

    /// As the log keeps it.
    pub(crate) fn to_keep(&self) -> NewVersion {
        NewVersion {
            id: self.id.to_string(),
            code: self.code.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            config: serde_json::to_string(self).unwrap_or_default(),
            bytes: self.bytes,
        }
    }
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
        Ok(Version {
            id: version_id(&hash, config),
            number: None,
            code: self.folder.join(&hash),
            _held: held,
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
        let held = self.hold(&kept.code);
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

    /// Removes folders that nobody uses, but these. Blocks.
    pub(crate) fn collect(&self, keep: &BTreeSet<String>) {
        let gone = self.folder.join(format!(".{}", uuid::Uuid::now_v7().simple()));
        {
            let mut used = lock(&self.used);
            used.retain(|_, held| held.strong_count() > 0);
            for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
                if !entry.file_name().to_str().is_some_and(|name| used.contains_key(name) || keep.contains(name)) {
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

fn version_id(code: &str, config: &FunctionConfig) -> Arc<str> {
    let FunctionConfig {
        runtime,
        pin,
        handler,
        env,
        memory,
        processes,
        cpu,
        ephemeral_storage,
        slots,
        isolation,
        network,
        folders,
        hosts,
        zygote,
        ..
    } = config;
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    [code, runtime.as_str(), handler, &memory.to_string(), isolation.as_str()].into_iter().for_each(&mut part);
    part(&format!("{processes} {cpu:?}"));
    if *ephemeral_storage != EPHEMERAL_STORAGE {
        part(&format!("storage {ephemeral_storage}"));
    }
    for (has, word) in [(zygote, "no zygote"), (network, "no network")] {
        if !has {
            part(word);
        }
    }
    if let Some(pin) = pin {
        part(pin.name);
    }
    if *slots > 1 {
        part(&format!("{slots} slots"));
    }
    for (access, paths) in [("read", &folders.read), ("write", &folders.write)] {
        for path in paths {
            part(access);
            part(&path.to_string_lossy());
        }
    }
    for host in hosts {
        part("host");
        part(&host.to_string());
    }
    for (name, value) in env {
        let (kind, value) = match value {
            EnvValue::Plain(text) => ("plain", text.as_str().into()),
            EnvValue::SecretEnv(name) => ("env", name.as_str().into()),
            EnvValue::SecretFile(path) => ("file", path.to_string_lossy()),
        };
        [name, kind, &value].into_iter().for_each(&mut part);
    }
    hex(&hash.finalize())[..12].into()
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|d| DIGITS[usize::from(d)] as char).collect()
}

fn failed(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Copy { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(code: &Path) -> FunctionConfig {
        FunctionConfig {
            runtime: RuntimeKind::Python,
            pin: None,
            code: code.to_owned(),
            handler: "app.handler".into(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(1),
            memory: 256,
            processes: 1024,
            cpu: None,
            ephemeral_storage: EPHEMERAL_STORAGE,
            concurrency: 1,
            slots: 1,
            warm: 0,
            keep_alive: Duration::from_secs(1).into(),
            retry: bus::retry::RetryPolicy::default(),
            chain: bus::catalog::Chain::default(),
            isolation: Isolation::Process,
            network: true,
            folders: Folders::default(),
            freeze: true,
            hosts: Vec::new(),
            zygote: true,
        }
    }

    #[test]
    fn a_version_is_its_content_and_what_instances_are_started_with() {
        let temp = tempfile::tempdir().unwrap();
        let (code, data) = (temp.path().join("code"), temp.path().join("code/.fnbus"));
        fs::create_dir_all(code.join("lib/__pycache__")).unwrap();
        fs::write(code.join("app.py"), "one").unwrap();
        fs::write(code.join("lib/a.py"), "a").unwrap();
        let store = Store::new(&data);
        let first = store.snapshot(&config(&code)).unwrap();
        assert_eq!(fs::read(first.code.join("lib/a.py")).unwrap(), b"a");

        fs::write(code.join("lib/__pycache__/a.pyc"), "x").unwrap();
        assert_eq!(store.snapshot(&config(&code)).unwrap().id, first.id, "what is no code makes no version");

        let other = FunctionConfig { memory: 512, ..config(&code) };
        let bigger = store.snapshot(&other).unwrap();
        assert_ne!(bigger.id, first.id);
        assert_eq!(bigger.code, first.code);
        assert!(!starts_alike(&other, &config(&code)));
        assert!(starts_alike(&FunctionConfig { warm: 3, ..config(&code) }, &config(&code)));

        fs::write(code.join("app.py"), "two").unwrap();
        let edited = store.snapshot(&config(&code)).unwrap();
        assert_ne!(edited.code, first.code);
        assert_eq!(fs::read(first.code.join("app.py")).unwrap(), b"one", "an edit changed what runs");
        fs::set_permissions(code.join("app.py"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(store.snapshot(&config(&code)).unwrap().id, edited.id);
    }

    #[test]
    fn folders_that_nobody_uses_and_the_log_does_not_keep_are_collected() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::new(&temp.path().join("data"));
        let snapshot = |text| {
            fs::write(temp.path().join("app.py"), text).unwrap();
            store.snapshot(&config(temp.path())).unwrap()
        };
        let (old, kept, used) = (snapshot("one"), snapshot("two"), snapshot("three"));
        let (gone, known) = (old.code.clone(), kept.to_keep());
        drop((old, kept));
        store.collect(&BTreeSet::from([known.code]));
        assert!(!gone.exists() && used.code.is_dir());
        assert_eq!(fs::read_dir(&store.folder).unwrap().count(), 2);
    }

    #[test]
    fn a_version_that_is_kept_starts_as_it_did_with_its_variables() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("app.py"), "one").unwrap();
        let store = Store::new(&temp.path().join("data"));
        let secret = EnvValue::SecretEnv("PRICE_TOKEN".into());
        let env = BTreeMap::from([("A".to_owned(), EnvValue::Plain("b".into())), ("TOKEN".to_owned(), secret)]);
        let snapshot = store.snapshot(&FunctionConfig { env, memory: 64, ..config(temp.path()) }).unwrap();
        let made = Version { number: Some(1), ..snapshot };
        let NewVersion { id, code, config, bytes } = made.to_keep();
        let kept = KeptVersion { number: 1, id, code, config, bytes, deployed: chrono::Utc::now(), note: None };
        let back = store.restore(&kept).unwrap();
        assert_eq!(format!("{back:?}"), format!("{made:?}"));
        assert_eq!((back.env, bytes), (made.env, 3));
        fs::remove_dir_all(&made.code).unwrap();
        assert!(store.restore(&kept).is_none());
    }

    #[test]
    fn a_missing_folder_is_said_to_be_missing() {
        let temp = tempfile::tempdir().unwrap();
        let error = Store::new(temp.path()).snapshot(&config(&temp.path().join("no"))).unwrap_err();
        assert!(error.to_string().contains("there is no"), "{error}");
    }
}
