//! Where a delivery stands.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

/// A delivery's status. Below [`Status::Done`] it is unended; from there on it never changes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Another one stands before it in the line of its key.
    Held = 0,
    /// To be run, or on its way to a worker.
    Pending = 1,
    /// An attempt is open.
    Running = 2,
    /// The last attempt failed; the next is due at `retry_at`.
    Retrying = 3,
    Done = 10,
    /// Given up, with a [`DeadReason`]: a dead letter.
    Dead = 11,
    /// Too old before an attempt could begin.
    Expired = 12,
    Filtered = 13,
}

impl Status {
    pub const ALL: [Self; 8] = [
        Self::Held,
        Self::Pending,
        Self::Running,
        Self::Retrying,
        Self::Done,
        Self::Dead,
        Self::Expired,
        Self::Filtered,
    ];

    pub fn is_ended(self) -> bool {
        self >= Self::Done
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Expired => "expired",
            Self::Filtered => "filtered",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

impl ToSql for Status {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for Status {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        Self::ALL.into_iter().find(|s| *s as i64 == number).ok_or(FromSqlError::OutOfRange(number))
    }
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// All attempts failed.
    AttemptsExhausted,
    /// The next attempt would have been later than `max_age`.
    TooOld,
    /// The chain it is part of came back to itself too often.
    HopLimit,
    /// The flow it is part of has branched into too many.
    BranchLimit,
    /// A step of the pipeline was given up.
    StepFailed,
    /// It was older than `max_age` before an attempt could begin.
    Expired,
    /// Workers kept vanishing while they ran it: it may be what ends them.
    Quarantined,
    /// The event's body in the log is not what was accepted.
    Corrupt,
    /// The function said that another attempt would end the same.
    Rejected,
    /// Another event had its id, with another body, and its sender could not be told.
    Conflict,
}

impl DeadReason {
    pub const ALL: [Self; 10] = [
        Self::AttemptsExhausted,
        Self::TooOld,
        Self::HopLimit,
        Self::BranchLimit,
        Self::StepFailed,
        Self::Expired,
        Self::Quarantined,
        Self::Corrupt,
        Self::Rejected,
        Self::Conflict,
    ];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::TooOld => "too_old",
            Self::HopLimit => "hop_limit",
            Self::BranchLimit => "branch_limit",
            Self::StepFailed => "step_failed",
            Self::Expired => "expired",
            Self::Quarantined => "quarantined",
            Self::Corrupt => "corrupt",
            Self::Rejected => "rejected",
            Self::Conflict => "conflict",
        }
    }
}
