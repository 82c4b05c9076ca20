//! How large the log may get: what is to be accepted is refused while what cannot go fills the log.
//!
//! What has ended is removed when the log is over `max_size`. What is unended, a young dead letter or part of a replay
//! stays, whatever its size. So when nothing is left to be removed and the log is still over, or it grows faster than
//! anything can be removed, nothing more is taken; whatever was taken goes on. Asking costs two loads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tokio::sync::Notify;

/// How often the writer measures, at most.
const EVERY: Duration = Duration::from_millis(200);

/// The size of the log and what it may be; clones share it.
#[derive(Clone)]
pub(super) struct Bound {
    inner: Arc<Inner>,
}

struct Inner {
    /// Bytes in use, as of the last look.
    live: AtomicU64,
    /// `max_size`.
    most: AtomicU64,
    /// What could go has gone, and it was still over.
    stuck: AtomicBool,
    over: Notify,
}

impl Bound {
    pub(super) fn new() -> Self {
        let inner = Inner {
            live: AtomicU64::new(0),
            most: AtomicU64::new(u64::MAX),
            stuck: AtomicBool::new(false),
            over: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Bytes in use, and how many may be; an answer only when nothing more is taken.
    pub(super) fn reached(&self) -> Option<(u64, u64)> {
        let (live, most) = self.sizes();
        is_reached(live, most, self.inner.stuck.load(Relaxed)).then_some((live, most))
    }

    /// Bytes in use, and how many may be.
    pub(super) fn sizes(&self) -> (u64, u64) {
        (self.inner.live.load(Relaxed), self.inner.most.load(Relaxed))
    }

    /// Another `max_size`.
    pub(super) fn set(&self, most: u64) {
        self.inner.most.store(most, Relaxed);
    }

    pub(super) fn measured(&self, live: u64) {
        self.inner.live.store(live, Relaxed);
        if wants_removal(live, self.inner.most.load(Relaxed)) {
            self.inner.over.notify_one();
        }
    }

    /// What may go has gone.
    pub(super) fn removed(&self, live: u64) {
        let was = self.reached().is_some();
        self.inner.live.store(live, Relaxed);
        self.inner.stuck.store(live > self.inner.most.load(Relaxed), Relaxed);
        match self.reached() {
            Some((live, most)) if !was => tracing::error!(
                bytes = live,
                max_size = most,
                "the event log is full of what is unended or dead: nothing more is accepted until some of it has ended; \
                 `fnbus node` shows how much, raise [log] max_size or mend what holds it up"
            ),
            None if was => tracing::info!("the event log has room again: events are accepted"),
            _ => {}
        }
    }

    /// Returns when something should be removed.
    pub(super) async fn over(&self) {
        self.inner.over.notified().await;
    }
}

/// Somewhat over nothing is removed yet: many small removals cost more than a large one.
fn wants_removal(live: u64, most: u64) -> bool {
    live > most.saturating_add(most / 16)
}

fn is_reached(live: u64, most: u64, stuck: bool) -> bool {
    live > if stuck { most } else { most.saturating_add(most / 4) }
}

/// The writer's side.
pub(super) struct Gauge {
    bound: Bound,
    last: Option<Instant>,
}

impl Gauge {
    pub(super) fn new(bound: Bound) -> Self {
        Self { bound, last: None }
    }

    /// After a commit.
    pub(super) fn committed(&mut self, connection: &Connection) {
        if self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        // one that fails says nothing, and the next one may
        if let Ok(live) = live_bytes(connection) {
            self.bound.measured(live);
        }
    }
}

/// Bytes in use: the file less its free pages, which are used again before it grows.
pub(super) fn live_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let pragma = |sql: &str| connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
    let pages = pragma("PRAGMA page_count")? - pragma("PRAGMA freelist_count")?;
    Ok((pages * pragma("PRAGMA page_size")?) as u64)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::below(100, false, false)]
    #[case::over_and_something_may_go(110, false, false)]
    #[case::over_and_nothing_may_go(101, true, true)]
    #[case::it_grows_faster_than_anything_goes(126, false, true)]
    #[case::it_went(99, true, false)]
    fn nothing_more_is_taken_when_what_cannot_go_fills_the_log(
        #[case] live: u64,
        #[case] stuck: bool,
        #[case] reached: bool,
    ) {
        assert_eq!(is_reached(live, 100, stuck), reached);
    }

    #[tokio::test]
    async fn a_log_that_is_over_asks_for_removal_and_says_when_there_is_none_left() {
        let bound = Bound::new();
        bound.measured(1 << 40);
        assert_eq!(bound.reached(), None, "no bound was set");
        bound.set(1000);
        bound.measured(1100);
        bound.over().await;
        assert_eq!(bound.reached(), None);
        bound.removed(1050);
        assert_eq!(bound.reached(), Some((1050, 1000)));
        bound.removed(900);
        assert_eq!(bound.reached(), None);
    }
}
