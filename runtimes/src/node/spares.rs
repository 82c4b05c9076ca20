//! Processes of Node.js that wait for a function: starting one takes longer than loading most handlers. Each serves one
//! instance and is never given back.

use std::sync::{Arc, Mutex};

use tracing::warn;

use super::NodeJs;
use crate::{
    ground::Ground,
    lock,
    process::{self, Started},
    version::Version,
};

/// Spares of all memory sizes together; beyond it the oldest goes.
const MOST: usize = 8;

#[derive(Default)]
pub(crate) struct Spares {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    waiting: Vec<Spare>,
    /// The sizes of those that are being started.
    starting: Vec<u32>,
    /// Raised when all must end: what is being started for an earlier one is not kept.
    era: u64,
}

struct Spare {
    /// MiB: a process is given its limit when it starts.
    memory: u32,
    started: Started,
}

impl std::fmt::Debug for Spares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spares").field("waiting", &lock(&self.state).waiting.len()).finish()
    }
}

impl Spares {
    /// A process for a version, if one waits that can run it.
    pub(crate) fn take(&self, version: &Version) -> Option<Started> {
        // what is read when Node.js starts cannot be given to one that has started
        if version.env.keys().any(|name| is_read_at_start(name)) {
            return None;
        }
        let mut state = lock(&self.state);
        while let Some(at) = state.waiting.iter().position(|spare| spare.memory == version.memory) {
            let Spare { started, .. } = state.waiting.remove(at);
            if !started.process.group().is_gone() {
                return Some(started);
            }
        }
        None
    }

    /// Starts as many as are missing for functions of this size, in the background.
    pub(crate) fn refill(ground: &Arc<Ground>, memory: u32) {
        let mut state = lock(&ground.spares.state);
        let there = state.waiting.iter().filter(|spare| spare.memory == memory).count()
            + state.starting.iter().filter(|&&size| size == memory).count();
        for _ in there..ground.settings.spares {
            state.starting.push(memory);
            tokio::spawn(start(ground.clone(), memory, state.era));
        }
    }

    /// Ends all of them.
    pub(crate) fn end(&self) {
        let mut state = lock(&self.state);
        state.era += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }
}

async fn start(ground: Arc<Ground>, memory: u32, era: u64) {
    let started = match ground.node().await {
        Ok(node) => launch(&ground, node, memory).await,
        // who needs it is told
        Err(_) => None,
    };
    let mut state = lock(&ground.spares.state);
    if let Some(at) = state.starting.iter().position(|&size| size == memory) {
        state.starting.swap_remove(at);
    }
    let Some(started) = started.filter(|_| state.era == era) else { return };
    state.waiting.push(Spare { memory, started });
    let surplus = state.waiting.len().saturating_sub(MOST);
    let surplus: Vec<Spare> = state.waiting.drain(..surplus).collect();
    drop(state);
    drop(surplus);
}

async fn launch(ground: &Ground, node: &NodeJs, memory: u32) -> Option<Started> {
    let home = ground.home().ok()?;
    let env = Ground::bare_env(&home);
    match process::start(node.launch(memory, env, home, true)).await {
        Ok(started) => Some(started),
        Err(error) => {
            warn!(%error, "no Node.js process can be kept ready");
            None
        }
    }
}

fn is_read_at_start(name: &str) -> bool {
    let prefixes = ["NODE_", "LD_", "UV_", "SSL_", "OPENSSL_", "MALLOC_"];
    name != "NODE_ENV" && prefixes.iter().any(|prefix| name.starts_with(prefix))
}
