//! What a running trigger tells of itself.

use std::{
    mem::discriminant,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus::{Name, sink::AcceptError};
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
pub(crate) struct Live(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    status: Status,
    /// Why the log took nothing the last time.
    waits: Option<AcceptError>,
}

impl Live {
    pub(crate) fn get(&self) -> Status {
        let told = self.lock();
        let waits = told.waits.as_ref().map(|why| waiting_for(why).to_owned());
        Status { state: waits.or_else(|| told.status.state.clone()), ..told.status.clone() }
    }

    pub(crate) fn next(&self, next: Option<DateTime<FixedOffset>>) {
        self.lock().status.next = next;
    }

    pub(crate) fn state(&self, state: impl Into<String>) {
        self.lock().status.state = Some(state.into());
    }

    pub(crate) fn lag(&self, lag: Option<u64>) {
        self.lock().status.lag = lag;
    }

    /// The log did not take what came. It is tried again and again, and said once.
    pub(crate) fn waits(&self, trigger: &Name, error: &AcceptError) {
        if self.is_news(Some(error)) {
            tracing::warn!(%trigger, %error, "the event log takes nothing now: {trigger} waits with what it has");
        }
    }

    /// The log took what came.
    pub(crate) fn goes_on(&self, trigger: &Name) {
        if self.is_news(None) {
            tracing::info!(%trigger, "the event log takes events again: {trigger} goes on");
        }
    }

    /// Notes why the log takes nothing; whether that was not so before.
    fn is_news(&self, why: Option<&AcceptError>) -> bool {
        let mut told = self.lock();
        let news = told.waits.as_ref().map(discriminant) != why.map(discriminant);
        if news {
            told.waits = why.cloned();
        }
        news
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn waiting_for(why: &AcceptError) -> &'static str {
    match why {
        AcceptError::Backlog { .. } => "waiting for room in the event log",
        AcceptError::Full => "waiting for space on the disk",
        _ => "waiting for the event log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_the_log_takes_nothing_is_news_once_and_again_when_it_changes() {
        let live = Live::default();
        let full = |bytes| AcceptError::Backlog { bytes, most: 1 };
        live.state("watching inbox");
        assert!(!live.is_news(None), "nobody waited");
        assert!(live.is_news(Some(&full(2))));
        assert!(!live.is_news(Some(&full(3))));
        assert_eq!(live.get().state.as_deref(), Some("waiting for room in the event log"));
        assert!(live.is_news(Some(&AcceptError::Full)));
        assert!(live.is_news(None));
        assert_eq!(live.get().state.as_deref(), Some("watching inbox"));
    }
}
