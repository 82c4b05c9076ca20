//! A pool where memory is short: what its idle instances are worth, and giving them up.

use std::sync::Arc;

use tokio::time;

use super::{Pool, Pooled};
use crate::{fault::Lack, lock};

impl Pooled {
    /// What the idle one is worth that has been idle for longest; none when it may not end.
    fn worth(&self) -> Option<f64> {
        let slots = self.slots();
        let first = self.idle.first().filter(|_| slots.expendable() > 0)?;
        Some(first.clock + self.calls as f64 * self.stay.worth() / slots.total() as f64)
    }
}

impl Pool {
    /// Waits until there may be room, or until it is time to try again, and tries.
    pub(super) async fn wait_for_room(self: Arc<Self>, lack: &Lack) {
        let again = self.lacks(lack);
        let starves = self.slots().total() == 0;
        let _ = time::timeout_at(again.into(), self.ground.budget.freed(starves)).await;
        let mut state = lock(&self.state);
        state.lack.skip();
        self.start_wanted(&mut state);
    }

    /// What its idle instance is worth that is worth least, for each MB it holds; none when none may end.
    pub(crate) fn worth(&self) -> Option<f64> {
        lock(&self.state).worth()
    }

    /// Ends that one for the room it takes, and says what it was worth.
    pub(crate) fn give_up(&self) -> Option<f64> {
        let mut state = lock(&self.state);
        let worth = state.worth()?;
        let idle = state.idle.remove(0);
        if state.slots().total() == 0 {
            state.calls = 0;
        }
        drop(state);
        drop(idle);
        Some(worth)
    }

    /// Ends what instances are forked from, when there are none. Whether there was anything.
    pub(crate) fn gives_zygote_up(&self) -> bool {
        let unused = lock(&self.state).slots().total() == 0;
        unused && self.ground.zygotes.retire(&self.name)
    }

    /// Bytes that its instances hold, and how many of them are stopped.
    pub(crate) fn held(&self) -> (u64, usize) {
        let state = lock(&self.state);
        let frozen = state.idle.iter().filter(|idle| idle.has_settled && state.limits.freeze).count();
        (state.groups.iter().map(|group| group.held()).sum(), frozen)
    }
}
