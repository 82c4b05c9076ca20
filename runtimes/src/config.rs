//! `[functions.NAME]`: code, runtime, handler and limits.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use bus::retry::RetryPolicy;

/// One function as configured. Paths are absolute, every value is in its range.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionConfig {
    pub runtime: RuntimeKind,
    /// The folder with the code.
    pub code: PathBuf,
    /// `module.function` for Python; default `app.handler`.
    pub handler: String,
    pub env: BTreeMap<String, EnvValue>,
    /// Default 30 s.
    pub timeout: Duration,
    /// MiB; default 256.
    pub memory: u32,
    /// Most instances at once; 0 stops the function. Default 2 x cores.
    pub concurrency: u32,
    /// Instances kept ready at all times; default 0.
    pub warm: u32,
    /// How long an instance beyond `warm` stays after its last invocation; default 10 min.
    pub keep_alive: Duration,
    pub retry: RetryPolicy,
    pub isolation: Isolation,
}

/// How a language is started and spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuntimeKind {
    Python,
}

impl RuntimeKind {
    pub const ALL: [Self; 1] = [Self::Python];

    /// The word in the config, and the class of workers that can run it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
        }
    }
}

/// What keeps a function away from the rest of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Its own process group, scrubbed environment and resource limits: stops accidents, not hostile code.
    #[default]
    Process,
}

/// One environment variable of a function.
#[derive(Clone, PartialEq, Eq)]
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
