//! What a node tells people of itself: the shapes of `fnbus functions`, `triggers` and `logs`, filled in by those who
//! know, shown by the control plane, which sees only the bus.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::name::Name;

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
}
