//! What a pool has seen, for `fnbus functions`.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use bus::outcome::Fault;

use crate::lock;

/// What a pool has seen.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) invocations: AtomicU64,
    pub(crate) cold_starts: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) last_error: Mutex<Option<String>>,
}

impl Counts {
    /// `started`: a process was started for this invocation alone.
    pub(crate) fn invoked(&self, fault: Option<&Fault>, started: bool) {
        self.invocations.fetch_add(1, Ordering::Relaxed);
        self.handed_out(started);
        if let Some(fault) = fault {
            self.failed(fault);
        }
    }

    pub(super) fn handed_out(&self, cold: bool) {
        self.cold_starts.fetch_add(u64::from(cold), Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, fault: &Fault) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_error) = Some(format!("{}: {}", fault.kind, fault.message));
    }
}
