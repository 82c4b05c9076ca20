//! `[functions.NAME]`: code, runtime, handler and limits.

mod code;
mod keys;
mod pool;
mod peer;
mod reading;
mod runtime;
mod runtimes;

use std::{collections::BTreeMap, path::PathBuf, thread, time::Duration};

use bus::{
    catalog::Chain,
    config::{FromValue, Shape, Value, Word, Wrong, duration_text},
    retry::RetryPolicy,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{lifecycle::Lifecycle, wasm};

pub use code::CodeError;
pub use peer::Peer;
pub use pool::PoolConfig;
pub use runtime::Runtime;
pub use runtimes::RuntimesConfig;

/// MiB, as Lambda gives unless told otherwise.
pub(crate) const EPHEMERAL_STORAGE: u32 = 512;

/// One function as configured. Paths are absolute, every value is in its range.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionConfig {
    pub runtime: RuntimeKind,
    /// Set where `runtime` is one of the names that AWS has: it is that one and no other.
    pub pin: Option<Lifecycle>,
    /// The folder with the code.
    pub code: PathBuf,
    /// Where a call begins: `module.function` (Python), `file.export` (Node.js), a program (provided), or a program and
    /// its arguments (command, wasm).
    pub handler: String,
    pub env: BTreeMap<String, EnvValue>,
    /// Default 30 s.
    pub timeout: Duration,
    /// MiB; default 256.
    pub memory: u32,
    /// Most processes and threads of an instance; default 1,024.
    pub processes: u32,
    /// Most CPU time of an instance, in percent of a core; default none.
    pub cpu: Option<u32>,
    /// Most an instance may have in files of its own, in MiB; default 512.
    pub ephemeral_storage: u32,
    /// Most instances at once; 0 stops the function. Default 2 x cores.
    pub concurrency: u32,
    /// Invocations that an instance runs at once; default 1.
    pub slots: u32,
    /// Instances kept ready at all times; default 0.
    pub warm: u32,
    /// How long an instance beyond `warm` stays after its last invocation; default 10 min.
    pub keep_alive: KeepAlive,
    pub retry: RetryPolicy,
    /// What follows from its outcomes.
    pub chain: Chain,
    pub isolation: Isolation,
    /// Whether it may open connections; default true.
    pub network: bool,
    /// What it may reach of the machine beside its own files.
    pub folders: Folders,
    /// Whether idle instances are stopped, so that nothing that goes on in them takes any CPU; default true.
    pub freeze: bool,
    /// Where WebAssembly may send requests to; default nowhere.
    pub hosts: Vec<Peer>,
    /// Whether instances are forked from a process that has loaded the code, which only Python does; default true.
    pub zygote: bool,
}

impl FunctionConfig {
    /// A function with every default; the only place they are written.
    pub fn new(runtime: RuntimeKind, code: PathBuf) -> Self {
        Self {
            runtime,
            pin: None,
            code,
            handler: runtime.default_handler().to_owned(),
            env: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            memory: 256,
            processes: 1024,
            cpu: None,
            ephemeral_storage: EPHEMERAL_STORAGE,
            concurrency: thread::available_parallelism().map_or(2, |cores| 2 * cores.get() as u32),
            slots: 1,
            warm: 0,
            keep_alive: Duration::from_mins(10).into(),
            retry: RetryPolicy::default(),
            chain: Chain::default(),
            isolation: Isolation::default(),
            network: true,
            folders: Folders::default(),
            freeze: true,
            hosts: Vec::new(),
            zygote: true,
        }
    }

    /// What it is run by, as it stands in the config.
    pub fn runtime_name(&self) -> &'static str {
        self.pin.map_or(self.runtime.as_str(), |pin| pin.name)
    }

    /// A sentence from half a year before its runtime ends on.
    pub fn notice(&self, now: DateTime<Utc>) -> Option<String> {
        let pin = self.pin?;
        Some(format!("{} {}", pin.name, pin.warning(now)?))
    }

    /// Most invocations at once.
    pub fn calls(&self) -> u32 {
        self.concurrency.saturating_mul(self.slots)
    }

    /// Whether something keeps it away from the rest of the machine.
    pub fn is_sandboxed(&self) -> bool {
        self.isolation != Isolation::Process
    }

    /// Whether that is the kernel. WebAssembly has no processes.
    pub fn needs_kernel(&self) -> bool {
        self.is_sandboxed() && self.runtime != RuntimeKind::Wasm
    }
}

/// Folders and files a function in a sandbox may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Folders {
    pub read: Vec<PathBuf>,
    /// To read and to write.
    pub write: Vec<PathBuf>,
}

impl Folders {
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.read.iter().chain(&self.write)
    }
}

/// How long an idle instance stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAlive {
    For(Duration),
    /// As long as it pays, by how the function was called; and one is started before a call that is expected.
    Auto,
}

impl KeepAlive {
    pub(crate) const AUTO: &str = "auto";

    /// As it is written in the config.
    pub fn text(self) -> String {
        match self {
            Self::For(time) => duration_text(time),
            Self::Auto => Self::AUTO.to_owned(),
        }
    }
}

impl FromValue for KeepAlive {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        match value.as_str() {
            Some(Self::AUTO) => Ok(Self::Auto),
            // a word that was meant to be the other one
            Some(word) if word.starts_with(char::is_alphabetic) => {
                Err(Wrong::of_key(format!("cannot be `{word}`")).advice("write \"auto\", or a time such as \"30s\""))
            }
            _ => Duration::from_value(value, &Shape::Duration).map(Self::For),
        }
    }
}

impl From<Duration> for KeepAlive {
    fn from(time: Duration) -> Self {
        Self::For(time)
    }
}

/// How a language is started and spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    Python,
    Node,
    /// A program that speaks the Lambda Runtime API.
    Provided,
    /// A program that is started for each invocation.
    Command,
    /// WebAssembly.
    Wasm,
}

impl RuntimeKind {
    pub const ALL: [Self; 5] = [Self::Python, Self::Node, Self::Provided, Self::Command, Self::Wasm];

    /// Whether this binary can run its functions.
    pub const fn is_built(self) -> bool {
        !matches!(self, Self::Wasm) || wasm::BUILT
    }

    /// The word in the config, and the class of workers that can run it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Provided => "provided",
            Self::Command => "command",
            Self::Wasm => "wasm",
        }
    }

    /// The handler of a function that names none. A command has to name its program.
    pub fn default_handler(self) -> &'static str {
        match self {
            Self::Python => "app.handler",
            Self::Node => "index.handler",
            Self::Provided => "bootstrap",
            Self::Command => "",
            Self::Wasm => "main.wasm",
        }
    }
}

impl Word for RuntimeKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Python.as_str(), Self::Python),
        (Self::Node.as_str(), Self::Node),
        (Self::Provided.as_str(), Self::Provided),
        (Self::Command.as_str(), Self::Command),
        (Self::Wasm.as_str(), Self::Wasm),
    ];
}

/// What keeps a function away from the rest of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Its own process group, scrubbed environment and resource limits: stops accidents, not hostile code.
    Process,
    /// That, and the kernel holds it to its own files, processes and system calls.
    #[default]
    Sandbox,
    /// That, and it sees nothing else either.
    Namespaces,
}

impl Isolation {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Sandbox => "sandbox",
            Self::Namespaces => "namespaces",
        }
    }
}

impl Word for Isolation {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::Sandbox.as_str(), Self::Sandbox),
        (Self::Process.as_str(), Self::Process),
        (Self::Namespaces.as_str(), Self::Namespaces),
    ];
}

/// One environment variable of a function.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvValue {
    Plain(String),
    /// Read from fnbus' own environment when an instance starts.
    SecretEnv(String),
    /// Read from a file when an instance starts; a trailing line break is cut off.
    SecretFile(PathBuf),
}

impl std::fmt::Debug for EnvValue {
    /// A plain value may be a secret put in the wrong place: never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain(_) => f.write_str("Plain(…)"),
            Self::SecretEnv(name) => f.debug_tuple("SecretEnv").field(name).finish(),
            Self::SecretFile(path) => f.debug_tuple("SecretFile").field(path).finish(),
        }
    }
}
