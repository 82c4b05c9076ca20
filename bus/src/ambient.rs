//! What the bus finds around it and is not given: the time, ids nobody had before, tasks beside the caller's.
//!
//! Whatever leads to a decision takes them from here, and nowhere else, so that the simulation can put its own in their
//! place: a clock that is wound by hand, ids from a seed, tasks that go on when they are told to. In a node these are
//! plain calls.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use uuid::Uuid;

#[cfg(test)]
use crate::simulation::surroundings as simulated;

/// What time it is, for people and for the log.
pub(crate) fn now() -> DateTime<Utc> {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    Utc::now()
}

/// The time that never goes back, for whatever is measured.
pub(crate) fn instant() -> Instant {
    #[cfg(test)]
    if let Some(now) = simulated::instant() {
        return now;
    }
    Instant::now()
}

/// An id that nobody had before, ordered by time.
pub(crate) fn uuid() -> Uuid {
    #[cfg(test)]
    if let Some(uuid) = simulated::uuid() {
        return uuid;
    }
    Uuid::now_v7()
}

/// Waits.
pub(crate) async fn sleep(time: Duration) {
    #[cfg(test)]
    if let Some(sleep) = simulated::sleep(time) {
        return sleep.await;
    }
    tokio::time::sleep(time).await;
}

/// Begins a task that nobody waits for.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    #[cfg(test)]
    let Some(task) = simulated::spawn(task) else { return };
    tokio::spawn(task);
}

/// A bound on how much is taken at once, which the simulation meets sooner.
pub(crate) fn bound(most: usize) -> usize {
    #[cfg(test)]
    if let Some(less) = simulated::bound() {
        return less.min(most);
    }
    most
}

/// Something that is to be done again and again.
#[derive(Debug)]
pub(crate) struct Every {
    period: Duration,
    next: Instant,
}

impl Every {
    /// The first time is at once.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, next: instant() }
    }

    /// The first time is after a period.
    pub(crate) fn later(period: Duration) -> Self {
        Self { period, next: instant() + period }
    }

    /// Returns when it is time. A time that was missed is not made up for.
    pub(crate) async fn tick(&mut self) {
        sleep(self.next.saturating_duration_since(instant())).await;
        self.next = instant() + self.period;
    }
}
