//! The keeper of a pool: expiry, warmth, starts ahead of calls and the ends of idle instances. It sleeps until one of them is
//! due, so a pool at rest costs nothing; a call wakes it only where what it leaves idle is due sooner than before.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time};
use tracing::warn;

use super::{Pool, Pooled};
use crate::{lock, process::Group};

/// An instance that was idle for so long has come to rest: it is measured, and stopped.
const REST: Duration = Duration::from_secs(1);

/// Runs until the pool is gone, which it does not keep alive.
pub(super) async fn keep(pool: Weak<Pool>, wake: Arc<Notify>) {
    // the pool is there before anything in it wakes its keeper
    wake.notified().await;
    // a wake-up from here on is kept by `Notify`, so nothing that happens after the look is missed
    while let Some(next) = pool.upgrade().map(|pool| pool.tend()) {
        let ends = poll_fn(|context| pool.upgrade().map_or(Poll::Pending, |pool| pool.poll_ends(context)));
        let due = async {
            match next {
                Some(at) => time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = wake.notified() => {}
            () = ends => {}
            () = due => {}
        }
    }
}

impl Pool {
    /// What is due: ends idle instances that died or are too old, starts what must be warm. When to look again.
    fn tend(self: &Arc<Self>) -> Option<Instant> {
        let now = Instant::now();
        let mut ended = Vec::new();
        let mut state = lock(&self.state);
        let (alive, died): (Vec<_>, Vec<_>) = state.idle.drain(..).partition(|i| i.instance.is_alive());
        state.idle = alive;
        if !died.is_empty() && !state.closed {
            warn!(function.name = %self.name, "{} idle instances of `{}` ended by themselves", died.len(), self.name);
            state.backoff.failed(now);
        }
        ended.extend(died);
        state.expected = state.expected.filter(|expected| expected.until > now);
        let old = state.idle.iter().take_while(|i| state.stay.ends(i.since) <= now).count();
        let expendable = old.min(state.slots().expendable());
        ended.extend(state.idle.drain(..expendable));
        self.start_wanted(&mut state);
        self.start_ahead(&mut state, now);

        let (settled, rest) = state.settle(now);
        let slots = state.slots();
        let queue = slots.held_back().and_then(|after| Some(state.waiters.front()?.since + after));
        state.watches_queue = queue.is_some();
        let expected = state.expected.map(|expected| if expected.from > now { expected.from } else { expected.until });
        let expiry = match state.idle.first() {
            Some(_) if slots.expendable() == 0 => None,
            Some(oldest) => Some(state.stay.ends(oldest.since)),
            // whoever is busy now can be too old only then
            None => (!state.groups.is_empty()).then(|| state.stay.ends(now)),
        };
        // what instances are forked from may outlive them for a while
        let zygote = if state.groups.is_empty() { self.ground.zygotes.expire(&self.name, now) } else { None };
        let retry = state.backoff.until(now).filter(|_| slots.starts_for_warmth());
        let room = state.lack.until(now);
        let ahead = state.stay.starts();
        drop(state);
        drop(ended);
        self.measure(&settled);
        [expiry, retry, room, zygote, ahead, rest, queue, expected].into_iter().flatten().min()
    }

    /// Counts instances that came to rest with what they hold.
    fn measure(&self, settled: &[Arc<Group>]) {
        let measured = settled.iter().filter_map(|group| {
            let bytes = group.memory()?;
            group.holds(bytes);
            Some(bytes)
        });
        if let Some(bytes) = measured.max() {
            lock(&self.state).stay.measured(bytes);
            self.ground.trim();
        }
    }

    /// Starts one before anybody calls, when that is due and there is none.
    fn start_ahead(self: &Arc<Self>, state: &mut Pooled, now: Instant) {
        let may = !state.closed && state.backoff.until(now).is_none() && state.lack.until(now).is_none();
        if state.stay.takes_start(now)
            && may
            && state.slots().starts_first()
            && let Some(version) = state.version.clone()
        {
            self.start_one(state, version, true);
        }
    }

    /// Ready when an instance has ended since the last look.
    fn poll_ends(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        let before = state.groups.len();
        state.groups.retain(|group| group.poll_gone(context).is_pending());
        if state.groups.len() < before { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Pooled {
    /// Stops those that have come to rest, so that nothing that goes on in them takes a core, and gives them to be measured.
    fn settle(&mut self, now: Instant) -> (Vec<Arc<Group>>, Option<Instant>) {
        let mut settled = Vec::new();
        for idle in self.idle.iter_mut().filter(|idle| !idle.has_settled && idle.since + REST <= now) {
            idle.has_settled = true;
            if let Some(group) = idle.instance.group() {
                if self.limits.freeze {
                    group.freeze();
                }
                settled.push(group.clone());
            }
        }
        let next = self.idle.iter().filter(|idle| !idle.has_settled).map(|idle| idle.since + REST).min();
        self.watches_idle = next.is_some();
        (settled, next)
    }
}
