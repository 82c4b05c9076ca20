//! Starts of a pool: what is waited for, as far as the limits go, each counted as long as it is under way.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::warn;

use super::{From, Pool, Pooled};
use crate::{
    fault::Lack,
    instance::{Instance, NoInstance},
    lease::LeaseError,
    lock,
    version::Version,
};

impl Pool {
    /// Starts what is waited for, as far as the limits go.
    pub(super) fn start_wanted(self: &Arc<Self>, state: &mut Pooled) {
        let Some(version) = state.version.clone().filter(|_| !state.closed) else { return };
        while state.lack.until(Instant::now()).is_none() {
            let slots = state.slots();
            let waited_for = slots.starts_for_waiting();
            let warm = slots.starts_for_warmth() && state.backoff.until(Instant::now()).is_none();
            if !waited_for && !warm {
                break;
            }
            let ahead = !waited_for && slots.total() >= state.limits.warm as usize;
            self.start_one(state, version.clone(), ahead);
        }
    }

    /// There is no room for another instance now: whoever waits goes on waiting, and a start is tried again then.
    pub(crate) fn lacks(&self, lack: &Lack) -> Instant {
        let (mut state, now) = (lock(&self.state), Instant::now());
        // those that were started together fail together
        let first = state.lack.until(now).is_none();
        // of a limit that was chosen nothing has to be said twice
        let news = first && (!lack.is_limit || state.lack.has_worked());
        if first {
            state.lack.failed(now);
        }
        let again = state.lack.until(now).unwrap_or(now);
        drop(state);
        if news {
            let wait = (again - now).as_millis();
            warn!(
                function.name = %self.name,
                "there is no room for another instance of `{}`: {lack}; trying again in {wait} ms", self.name
            );
        }
        self.wake.notify_one();
        again
    }

    pub(super) fn start_one(self: &Arc<Self>, state: &mut Pooled, version: Arc<Version>, ahead: bool) {
        state.starting += 1;
        tokio::spawn(start(Starting { pool: Some(self.clone()), ahead }, version, state.limits.timeout));
    }
}

/// A start that is under way, counted as long as this lives.
struct Starting {
    pool: Option<Arc<Pool>>,
    /// Nobody has called.
    ahead: bool,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            lock(&pool.state).starting -= 1;
        }
    }
}

async fn start(mut starting: Starting, version: Arc<Version>, timeout: Duration) {
    let Some(pool) = starting.pool.clone() else { return };
    let size = lock(&pool.state).stay.size();
    // until the instance itself is counted
    let _room = match pool.ground.make_room(size) {
        Ok(room) => room,
        Err(lack) => {
            drop(starting);
            return pool.wait_for_room(&lack).await;
        }
    };
    let started = Instance::start(&pool.ground, &pool.name, version, timeout).await;
    let failed = match started {
        Ok(mut instance) => {
            instance.is_ahead = starting.ahead;
            pool.counts.started(starting.ahead);
            // from now on counted as what it becomes
            starting.pool = None;
            return pool.give(instance, From::Start);
        }
        Err(NoInstance::Lack(lack)) => {
            drop(starting);
            pool.lacks(&lack);
            return;
        }
        Err(NoInstance::Init(failed)) => failed,
    };
    drop(starting);
    if let Some(fault) = &failed.fault {
        warn!(function.name = %pool.name, "`{}` could not be started: {}", pool.name, fault.message);
        pool.counts.failed(fault);
    }
    let first = {
        let mut state = lock(&pool.state);
        state.backoff.failed(Instant::now());
        state.waiters.pop_front()
    };
    if let Some(waiter) = first {
        let _ = waiter.tell.send(Err(LeaseError::Init(failed)));
    }
    pool.start_wanted(&mut lock(&pool.state));
    pool.wake.notify_one();
}
