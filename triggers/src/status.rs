//! What a running trigger tells of itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, FixedOffset};

/// What is known of a trigger at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// In a few words, where there is more to say than that it runs.
    pub state: Option<String>,
    /// How much waits outside to be taken.
    pub lag: Option<u64>,
    /// When it fires next, in the local time of its zone.
    pub next: Option<DateTime<FixedOffset>>,
}

/// Where a trigger writes it; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Live(Arc<Mutex<Status>>);

impl Live {
    pub(crate) fn get(&self) -> Status {
        self.lock().clone()
    }

    pub(crate) fn next(&self, next: Option<DateTime<FixedOffset>>) {
        self.lock().next = next;
    }

    pub(crate) fn state(&self, state: impl Into<String>) {
        self.lock().state = Some(state.into());
    }

    pub(crate) fn lag(&self, lag: Option<u64>) {
        self.lock().lag = lag;
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
