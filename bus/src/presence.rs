//! What a node tells people of itself: the shapes of `fnbus functions`, `triggers` and `logs`, filled in by those who
//! know, shown by the control plane, which sees only the bus.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{log::LogError, name::Name, outcome::Start, sink::AcceptError};

/// One line a function printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    pub time: DateTime<Utc>,
    pub function: Name,
    /// The attempt; none while the code is being loaded.
    pub request_id: Option<Uuid>,
    pub stream: LogStream,
    pub text: String,
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    Stdout,
    Stderr,
    /// `START`, `END` and `REPORT`, as AWS prints them.
    Platform,
}

/// One function, as `fnbus functions` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionStatus {
    pub name: Name,
    pub runtime: String,
    /// That its runtime ends soon, or has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// The version that serves.
    pub version: Option<String>,
    /// Its number.
    #[serde(default)]
    pub number: Option<u32>,
    /// The number of the newest version.
    #[serde(default)]
    pub latest: Option<u32>,
    /// What serves stays until somebody promotes another version; else it is the newest.
    #[serde(default)]
    pub pinned: bool,
    /// Other versions that get a part of the calls, from 0 to 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shares: BTreeMap<u32, f64>,
    #[serde(flatten)]
    pub state: FunctionState,
    /// Why the last edit does not serve, while an older version does.
    pub refused: Option<String>,
    /// Most instances at once.
    pub concurrency: u32,
    /// Invocations that an instance runs at once.
    #[serde(default = "one")]
    pub slots: u32,
    /// Idle instances, ready at once.
    pub warm: usize,
    /// Invocations that run.
    pub busy: usize,
    pub starting: usize,
    /// Invocations waiting for an instance.
    pub waiting: usize,
    pub invocations: u64,
    /// Partial ones too.
    pub cold_starts: u64,
    /// Instances that were started before anybody called, and those of them that were then called.
    #[serde(default)]
    pub pre_warmed: u64,
    #[serde(default)]
    pub pre_warmed_used: u64,
    /// Invocations by whether an instance was there, and where their time went.
    #[serde(default)]
    pub starts: Vec<StartStatus>,
    /// Bytes that its instances hold.
    #[serde(default)]
    pub memory: u64,
    /// Idle instances that are stopped until the next call.
    #[serde(default)]
    pub frozen: usize,
    pub errors: u64,
    pub last_error: Option<String>,
}

/// The invocations of a function that found an instance in one way, since the node was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartStatus {
    pub found: Start,
    pub count: u64,
    pub queue_us: Quantiles,
    /// Zero when warm.
    pub start_us: Quantiles,
    /// Zero when warm.
    pub init_us: Quantiles,
    pub run_us: Quantiles,
}

/// Half of all times are at most `p50`, all but one in a hundred at most `p99`; to a fifth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: u64,
    pub p99: u64,
}

/// Whether a function can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum FunctionState {
    Ready,
    /// Its code is loaded for the first time.
    Starting,
    /// No version of it ever worked. The next call tries again.
    Failed {
        message: String,
    },
}

fn one() -> u32 {
    1
}

impl FunctionStatus {
    /// The state in one word.
    pub fn word(&self) -> &'static str {
        match self.state {
            FunctionState::Ready => "ready",
            FunctionState::Starting => "starting",
            FunctionState::Failed { .. } => "failed",
        }
    }

    /// What went wrong last, in the order of how much it hurts.
    pub fn trouble(&self) -> Option<&str> {
        match &self.state {
            FunctionState::Failed { message } => Some(message),
            _ => self.refused.as_deref().or(self.last_error.as_deref()),
        }
    }
}

/// One version of a function, as `fnbus functions versions` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionStatus {
    pub function: Name,
    /// From 1, in the order of their first deploys.
    pub version: u32,
    /// As attempts have it.
    pub id: String,
    pub runtime: String,
    pub handler: String,
    /// MiB.
    pub memory: u32,
    /// Size of its code, in bytes.
    pub bytes: u64,
    /// For the first time.
    pub deployed: DateTime<Utc>,
    /// The newest, which an edit made or brought back.
    pub latest: bool,
    /// The aliases that lead to it.
    pub aliases: Vec<String>,
    /// What became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Which version is to serve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Promote {
    /// A number, an id, `$LATEST` or an alias; none: the newest.
    pub version: Option<String>,
    /// Which alias is to lead to it; none: `live`, which is what calls without one go to.
    pub alias: Option<Name>,
    /// It stays even when it is the newest.
    pub pin: bool,
    /// A part of the calls alone, from 0 to 1; none: all of them.
    pub share: Option<f64>,
    /// With such a part it is watched for a while, and then serves or goes.
    pub canary: Option<CanaryPlan>,
}

/// How a version is watched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CanaryPlan {
    pub seconds: f64,
    /// Most of its calls that may fail, from 0 to 1.
    pub max_errors: f64,
    /// Before so many calls nothing is made of it.
    pub min_calls: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    pub function: Name,
    pub alias: String,
    pub version: u32,
    /// What served before.
    pub before: Option<u32>,
    /// False when it was so before.
    pub changed: bool,
    /// It stays until somebody promotes another version.
    pub pinned: bool,
    /// Its part of the calls, where it has not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// What became of the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Which alias is meant; none: `live`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    pub alias: Option<Name>,
}

/// An alias that leads to no version any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unaliased {
    pub function: Name,
    pub alias: Name,
    /// Where it led.
    pub before: Option<u32>,
}

/// Why what serves was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    #[error("there is no function `{function}`; `fnbus functions` lists them")]
    Gone { function: Name },
    #[error("`{function}` has no version `{version}`; it has {known}")]
    NoVersion { function: Name, version: String, known: String },
    #[error("version {version} of `{function}` serves all calls already; promote another one, or roll back first")]
    Serves { function: Name, version: u32 },
    #[error("`{alias}` is the number of a version and cannot be an alias; choose a name such as `stable`")]
    NoAlias { alias: Name },
    #[error("only `live` can have a canary; leave --alias or --canary out")]
    NotLive,
    #[error("`{function}` has no alias `{alias}`; it has {known}")]
    UnknownAlias { function: Name, alias: String, known: String },
    #[error("`live` is where calls go that name no version; promote another version instead")]
    Live,
    #[error("`{function}:{alias}` is where {by} goes; name another version there first")]
    Used { function: Name, alias: Name, by: String },
    #[error(
        "{waiting} unended deliveries are for `{function}:{alias}`; wait until they have ended, or give them up: fnbus dead, fnbus show"
    )]
    Awaited { function: Name, alias: Name, waiting: u64 },
    #[error(
        "`{function}:{alias}` led to no version before this one, or to none that is kept; `fnbus functions versions {function}` \
         has them"
    )]
    NothingBefore { function: Name, alias: String },
    #[error("version {version} of `{function}` does not start, and nothing was changed: {reason}")]
    DoesNotStart { function: Name, version: u32, reason: String },
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What a trigger can be told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// Accept an event now, as if its time had come.
    Fire,
    /// Take nothing until it is resumed, however often the node is started.
    Pause,
    Resume,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steered {
    pub trigger: Name,
    /// False when it was so before.
    pub changed: bool,
    /// The event of a trigger that was fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<usize>,
}

/// Why a trigger was not steered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SteerError {
    #[error("only the times of cron triggers can be fired; {instead}")]
    NotThis { instead: String },
    #[error("`{trigger}` was just taken out of the config")]
    Gone { trigger: Name },
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

/// One trigger, as `fnbus triggers` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerStatus {
    pub name: Name,
    /// `http`, `event`, …
    pub kind: String,
    /// What it listens to, such as `POST /orders/{region}`.
    pub on: Vec<String>,
    pub to: Vec<String>,
    /// `sync` or `async`.
    pub mode: String,
    /// It takes nothing until it is resumed.
    #[serde(default)]
    pub paused: bool,
    /// In a few words, where there is more to say than that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// How much waits outside to be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// When it fires next, in the local time of its zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<DateTime<FixedOffset>>,
}
