//! Instances of a pool that end, and what takes their place.

use std::{
    sync::{Arc, MutexGuard},
    time::Instant,
};

use super::{Pool, Pooled};
use crate::{instance::Instance, lock, process::Group};

impl Pool {
    /// An instance comes back that cannot be used any more: it is killed, and replaced if somebody waits or it was the
    /// last. Only once: when the replacement does not start, the next who asks tries again.
    pub(crate) fn ended(self: &Arc<Self>, mut instance: Instance) {
        instance.pay();
        let kept = instance.keeps();
        let ran = instance.ran.take();
        if instance.shared().is_some() {
            let ends = {
                let mut state = lock(&self.state);
                state.ran(ran);
                state.leave(&instance);
                let ends = state.retire(&instance);
                // who waited for a slot of it
                self.start_wanted(&mut state);
                ends
            };
            drop(instance);
            return self.after(ends);
        }
        drop(instance);
        let mut state = lock(&self.state);
        state.leave_one();
        state.ran(ran);
        self.replace(state, kept);
    }

    /// When a process has ended that several invocations shared, another one may be started.
    pub(super) fn after(self: &Arc<Self>, ends: Option<Arc<Group>>) {
        let Some(group) = ends else { return };
        let pool = self.clone();
        tokio::spawn(async move {
            group.gone().await;
            let mut state = lock(&pool.state);
            state.ending -= 1;
            pool.replace(state, true);
        });
    }

    /// An instance has ended: another one is started if somebody waits for it, or if it was the last.
    fn replace(self: &Arc<Self>, mut state: MutexGuard<'_, Pooled>, kept: bool) {
        self.start_wanted(&mut state);
        state.rest(Instant::now(), &self.ground.budget);
        let lost = kept && !state.closed && state.slots().starts_first();
        let now = Instant::now();
        if lost
            && state.backoff.until(now).is_none()
            && state.lack.until(now).is_none()
            && let Some(version) = state.version.clone()
        {
            self.start_one(&mut state, version, false);
        }
    }
}
