//! Starts before anybody calls: for a call that is known to come, or that follows from one that has.

use std::time::{Duration, Instant};

use super::Pool;
use crate::lock;

/// How long an instance that was started for an expected call waits for it, whatever its function's `keep_alive` is.
const HELD: Duration = Duration::from_secs(10);
/// It is there by so much earlier, and twice the time of a start.
const MARGIN: Duration = Duration::from_millis(100);
/// Of a start, before one was measured.
const ASSUMED_START: Duration = Duration::from_millis(200);

/// A call is expected: an instance is to be there in this time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) from: Instant,
    pub(super) until: Instant,
}

impl Pool {
    /// A call is expected then: an instance is to be there a little before, if there is none.
    pub(crate) fn expect(&self, at: Instant) {
        let (mut state, now) = (lock(&self.state), Instant::now());
        let slots = state.slots();
        let is_there = match state.idle.last() {
            Some(idle) => state.stay.ends(idle.since) > at + HELD,
            None => slots.total() > 0 && at < now + HELD,
        };
        if is_there || slots.concurrency == 0 || state.closed || !state.limits.keeps {
            return;
        }
        let start = state.stay.start().unwrap_or(ASSUMED_START);
        let from = at.checked_sub(start * 2 + MARGIN).unwrap_or(at);
        // one that comes sooner is met first
        if state.expected.is_none_or(|known| from < known.from || known.until <= now) {
            state.expected = Some(Expected { from, until: at + HELD });
            drop(state);
            self.wake.notify_one();
        }
    }

    /// How long an invocation takes, as far as is known.
    pub(crate) fn run(&self) -> Duration {
        lock(&self.state).run.unwrap_or_default()
    }
}
