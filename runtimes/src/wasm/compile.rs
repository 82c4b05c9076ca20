//! From a file to machine code, once: what was compiled is kept on the disk, under a name that says what it was made from, by
//! which engine and with which settings, and together with its own hash.
//!
//! Machine code is trusted when it is loaded. So it is kept in a folder of the data folder, into which no function is let,
//! and taken from there only if it is the whole of what this user wrote; anything else is compiled anew.

use std::{
    fs,
    hash::{Hash, Hasher},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use uuid::Uuid;
use wasmtime::Engine;

use crate::version::hex;

/// In front of the code.
const HASH: usize = 32;

/// What a file of WebAssembly is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Module,
    Component,
}

impl Kind {
    /// By its first bytes.
    pub(super) fn of(wasm: &[u8]) -> Option<Self> {
        match wasm.get(..8)? {
            [0, b'a', b's', b'm', _, _, 0, 0] => Some(Self::Module),
            [0, b'a', b's', b'm', _, _, 1, 0] => Some(Self::Component),
            _ => None,
        }
    }
}

/// Compiled code on the disk.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
}

impl Kept {
    pub(super) fn new(data: &Path) -> Self {
        Self { folder: data.join("modules") }
    }

    /// The machine code of a file, and the name it is kept under. Blocks, for seconds where a large one is compiled.
    pub(super) fn compiled(&self, engine: &Engine, kind: Kind, wasm: &[u8]) -> wasmtime::Result<(Vec<u8>, String)> {
        let name = name(engine, wasm);
        let file = self.folder.join(&name);
        match read(&file) {
            Ok(code) => return Ok((code, name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(%error, file = %file.display(), "compiled code cannot be used; compiling anew"),
        }
        let code = match kind {
            Kind::Module => engine.precompile_module(wasm)?,
            Kind::Component => engine.precompile_component(wasm)?,
        };
        if let Err(error) = self.write(&file, &code) {
            warn!(%error, file = %file.display(), "compiled code cannot be kept; it is compiled anew after a restart");
        }
        Ok((code, name))
    }

    /// By another name first: nobody reads a part of it.
    fn write(&self, file: &Path, code: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let temporary = self.folder.join(format!(".{}", Uuid::now_v7().simple()));
        let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = to.write_all(&Sha256::digest(code)).and_then(|()| to.write_all(code));
        written.and_then(|()| fs::rename(&temporary, file)).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// Removes all but these.
    pub(super) fn collect(&self, used: impl Fn(&str) -> bool) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(&used) {
                debug!(file = %entry.path().display(), "compiled code that nobody uses is removed");
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Says what went in: the file, the version of the engine, the processor and every setting that counts.
fn name(engine: &Engine, wasm: &[u8]) -> String {
    let mut hasher = Digested(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.update(wasm);
    format!("{}.cwasm", &hex(&hasher.0.finalize())[..32])
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut all = fs::read(file)?;
    let meta = fs::metadata(file)?;
    if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("another user could have written it"));
    }
    let whole = all.len() >= HASH && all[..HASH] == Sha256::digest(&all[HASH..])[..];
    if !whole {
        return Err(io::Error::other("it is broken"));
    }
    all.drain(..HASH);
    Ok(all)
}

/// A hasher whose hashes are the same in every process.
struct Digested(Sha256);

impl Hasher for Digested {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.clone().finalize().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}
