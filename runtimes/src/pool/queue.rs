//! Those who wait for an instance of a pool.

use std::time::{Duration, Instant};

use tokio::{sync::oneshot, time};

use super::Pool;
use crate::{
    lease::{Lease, LeaseError},
    lock,
};

pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) since: Instant,
    pub(super) tell: oneshot::Sender<Result<Lease, LeaseError>>,
}

/// A place in the queue; given up when it is dropped.
pub(super) struct Place<'a> {
    pub(super) pool: &'a Pool,
    pub(super) id: u64,
}

impl Place<'_> {
    pub(super) async fn wait(
        &self,
        mut told: oneshot::Receiver<Result<Lease, LeaseError>>,
        wait: Duration,
    ) -> Result<Lease, LeaseError> {
        loop {
            match time::timeout(wait, &mut told).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => return Err(LeaseError::Busy),
                // slow to load is not busy: a start ends by its own limit, and tells
                Err(_) if self.is_being_started_for() => {}
                Err(_) => {
                    // from here on nothing can be sent; what was sent before is taken
                    told.close();
                    return told.try_recv().unwrap_or(Err(LeaseError::Busy));
                }
            }
        }
    }

    /// Whether an instance for this place is under way: a start for everybody before it and for itself, or the first
    /// deploy, which serves or tells all who wait.
    fn is_being_started_for(&self) -> bool {
        let state = lock(&self.pool.state);
        let before = state.waiters.iter().position(|w| w.id == self.id);
        let lacks = state.lack.until(Instant::now()).is_some();
        let deploys = state.version.is_none() && !lacks;
        let slots = state.slots();
        !state.closed && before.is_some_and(|before| deploys || before < slots.starting * slots.each)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.pool.state);
        if let Some(at) = state.waiters.iter().position(|w| w.id == self.id) {
            state.waiters.remove(at);
        }
    }
}
