//! Processes of Node.js that wait for a function: starting one takes longer than loading most handlers. Each serves one
//! instance and is never given back.
//!
//! One in a sandbox may read a folder that is empty until it is known which code it is to load; then links to the files of
//! that code, and to what was compiled of it, are made there, as no rule can be added to a sandbox.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
};

use tracing::warn;

use super::NodeJs;
use crate::{
    cgroups::Limits,
    config::Isolation,
    ground::Ground,
    lifecycle::Lifecycle,
    lock,
    process::{self, Started},
    version::Version,
};

/// Spares of all kinds together; beyond it the oldest goes.
const MOST: usize = 8;
/// Code of more files is not linked: a process of its own is as quick.
const MOST_FILES: usize = 1000;
/// Bytes that one holds, about.
const SIZE: u64 = 40 << 20;
/// The folder in which that for the code is made, beside the private one.
const CODE: &str = "code";

#[derive(Default)]
pub(crate) struct Spares {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Oldest first.
    waiting: Vec<Spare>,
    /// The kinds of those that are being started.
    starting: Vec<Kind>,
    /// Raised when all must end: what is being started for an earlier one is not kept.
    era: u64,
}

/// What cannot be changed when a process has started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// Which Node.js.
    pin: Option<Lifecycle>,
    /// MiB.
    memory: u32,
    limits: Limits,
    isolation: Isolation,
}

impl Kind {
    fn of(version: &Version) -> Self {
        let (pin, memory, isolation) = (version.pin, version.memory, version.isolation);
        Self { pin, memory, limits: version.limits(), isolation }
    }
}

pub(crate) struct Spare {
    kind: Kind,
    started: Started,
}

impl Spare {
    /// The process, with the version as it is to load it; none when that cannot be. `compiled` was of its code.
    pub(crate) async fn of(self, version: &Version, compiled: Option<&Path>) -> Option<(Started, Version)> {
        if self.kind.isolation == Isolation::Process {
            return Some((self.started, version.clone()));
        }
        let folder = self.started.process.home().with_file_name(CODE);
        let beside = move |from: &Path| folder.join(from.file_name().unwrap_or_default());
        let (from, code) = (version.code.clone(), beside(&version.code));
        let (to, compiled) = (code.clone(), compiled.map(|from| (from.to_owned(), beside(from))));
        let linked = tokio::task::spawn_blocking(move || {
            link(&from, &to)?;
            // what there is of it is used
            let _ = compiled.map(|(from, to)| link(&from, &to));
            Ok(())
        });
        let linked = linked.await;
        match linked.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => Some((self.started, Version { code, ..version.clone() })),
            Err(error) => {
                warn!(%error, "a Node.js process that was kept ready could not be used");
                None
            }
        }
    }
}

/// Makes a folder with links to the files of another.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link(&entry.path(), &place)?;
        } else {
            fs::hard_link(entry.path(), place)?;
        }
    }
    Ok(())
}

impl std::fmt::Debug for Spares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spares").field("waiting", &lock(&self.state).waiting.len()).finish()
    }
}

impl Spares {
    /// A process for a version, if one waits that can run it.
    pub(crate) fn take(&self, version: &Version) -> Option<Spare> {
        // what is read when Node.js starts cannot be given to one that has started
        if version.env.keys().any(|name| is_read_at_start(name)) {
            return None;
        }
        // nor can what a sandbox has beside what each has
        let plain = version.network && version.folders.is_empty() && version.files <= MOST_FILES;
        if !Self::waits_for(version) || version.isolation == Isolation::Sandbox && !plain {
            return None;
        }
        let kind = Kind::of(version);
        let mut state = lock(&self.state);
        while let Some(at) = state.waiting.iter().position(|spare| spare.kind == kind) {
            let spare = state.waiting.remove(at);
            if !spare.started.process.group().is_gone() {
                return Some(spare);
            }
        }
        None
    }

    /// Whether a process can be started before its function is known.
    fn waits_for(version: &Version) -> bool {
        version.isolation != Isolation::Namespaces
    }

    /// Starts as many as are missing for functions like this one, in the background.
    pub(crate) fn refill(ground: &Arc<Ground>, version: &Version) {
        if !Self::waits_for(version) {
            return;
        }
        let kind = Kind::of(version);
        let mut state = lock(&ground.spares.state);
        let there = state.waiting.iter().filter(|spare| spare.kind == kind).count()
            + state.starting.iter().filter(|&&starting| starting == kind).count();
        // where memory is short it is for instances
        if ground.budget.take(SIZE).is_err() {
            return;
        }
        for _ in there..ground.settings.spares {
            state.starting.push(kind);
            tokio::spawn(start(ground.clone(), kind, state.era));
        }
    }

    /// Ends all of them. Whether there was any.
    pub(crate) fn end(&self) -> bool {
        let mut state = lock(&self.state);
        state.era += 1;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        !waiting.is_empty()
    }
}

async fn start(ground: Arc<Ground>, kind: Kind, era: u64) {
    let started = match ground.node(kind.pin).await {
        Ok(node) => launch(&ground, &node, kind).await,
        // who needs it is told
        Err(_) => None,
    };
    let mut state = lock(&ground.spares.state);
    if let Some(at) = state.starting.iter().position(|&starting| starting == kind) {
        state.starting.swap_remove(at);
    }
    let Some(started) = started.filter(|_| state.era == era) else { return };
    started.process.group().counts(&ground.budget, SIZE);
    state.waiting.push(Spare { kind, started });
    let surplus = state.waiting.len().saturating_sub(MOST);
    let surplus: Vec<Spare> = state.waiting.drain(..surplus).collect();
    drop(state);
    drop(surplus);
}

async fn launch(ground: &Ground, node: &NodeJs, kind: Kind) -> Option<Started> {
    let home = ground.inner_home().ok()?;
    let env = Ground::bare_env(&home);
    let reach = match kind.isolation {
        Isolation::Process => None,
        Isolation::Sandbox | Isolation::Namespaces => {
            let code = home.with_file_name(CODE);
            fs::create_dir(&code).ok()?;
            Some(ground.bare_reach(&home, node.folders().into_iter().chain([code])))
        }
    };
    match process::start(node.launch(kind.memory, env, home, true, reach, ground.bounds(kind.limits))).await {
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
