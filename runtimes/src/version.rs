//! Versions: immutable snapshots of a function's code with what its instances are started with.
//!
//! The code is copied to `<data>/versions/<hash of the code>/` and run from there, so an edit never changes what runs. A
//! folder stays as long as the log keeps a version of it, or something runs from it. Left out: `.git`, `__pycache__`,
//! `*.pyc`, and `.venv`, which is used where it is (it is large, and no edit of code touches it). An archive is unpacked
//! there.

mod store;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use bus::{
    log::version::{self, NewVersion},
    target::Qualifier,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    cgroups::Limits,
    config::{EPHEMERAL_STORAGE, EnvValue, Folders, FunctionConfig, Isolation, Peer, RuntimeKind},
    lifecycle::Lifecycle,
};

use store::Held;
pub(crate) use store::{Store, is_left_out};

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
    pub(crate) _held: [Arc<Held>; 2],
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

    /// The place beside its code for something that is made of it and goes with it.
    pub(crate) fn beside(&self, what: &str) -> PathBuf {
        let code = self.code.file_name().unwrap_or_default().to_string_lossy();
        self.code.with_file_name(format!("{}-{what}", version::beside(&code, &self.id)))
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
