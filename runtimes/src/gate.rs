//! The bound of a function's invocations over all its versions, each of which has a pool. As long as there is one, the
//! pool sees to it, and here is only counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::oneshot, time::timeout};

use crate::lock;

#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    inside: usize,
    most: usize,
    waiting: VecDeque<oneshot::Sender<Entered>>,
}

/// One that is inside, as long as this lives.
#[derive(Debug)]
pub(crate) struct Entered {
    gate: Arc<Gate>,
}

impl Gate {
    /// Lets in who asks, at most after this long when all places are taken; unless `bounded`, at once.
    pub(crate) async fn enter(self: &Arc<Self>, bounded: bool, wait: Duration) -> Option<Entered> {
        let told = {
            let mut state = lock(&self.state);
            // where nothing may run, the pool says so
            if !bounded || state.most == 0 || state.inside < state.most {
                state.inside += 1;
                return Some(Entered { gate: self.clone() });
            }
            let (tell, told) = oneshot::channel();
            state.waiting.push_back(tell);
            told
        };
        timeout(wait, told).await.ok()?.ok()
    }

    /// So many may be inside.
    pub(crate) fn limit(self: &Arc<Self>, most: u32) {
        lock(&self.state).most = most as usize;
        self.admit();
    }

    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state).waiting.iter().filter(|tell| !tell.is_closed()).count()
    }

    fn admit(self: &Arc<Self>) {
        loop {
            let tell = {
                let mut state = lock(&self.state);
                if state.most > 0 && state.inside >= state.most {
                    return;
                }
                let Some(tell) = state.waiting.pop_front() else { return };
                if tell.is_closed() {
                    continue;
                }
                state.inside += 1;
                tell
            };
            // whoever has just gone leaves again, never under the lock
            let _ = tell.send(Entered { gate: self.clone() });
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.gate.state).inside -= 1;
        self.gate.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_are_inside_than_may_be_and_who_waits_comes_in_turn() {
        let gate = Arc::new(Gate::default());
        gate.limit(2);
        let now = Duration::ZERO;
        let first = gate.enter(false, now).await;
        let second = gate.enter(true, now).await;
        assert!(gate.enter(true, now).await.is_none(), "one that came in unbounded counts too");
        let other = gate.clone();
        let third = tokio::spawn(async move { other.enter(true, Duration::from_mins(1)).await.is_some() });
        while gate.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(third.await.unwrap());
        drop(second);
        assert!(gate.enter(true, now).await.is_some());
    }

    #[tokio::test]
    async fn those_who_wait_are_let_in_when_nothing_may_run_to_be_told_so() {
        let gate = Arc::new(Gate::default());
        gate.limit(1);
        let _inside = gate.enter(true, Duration::ZERO).await;
        let other = gate.clone();
        let waits = tokio::spawn(async move { other.enter(true, Duration::from_mins(1)).await.is_some() });
        while gate.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        gate.limit(0);
        assert!(waits.await.unwrap());
    }
}
