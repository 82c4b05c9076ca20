//! What functions leave running. Who was forked twice is no child of the function any more, and who called `setsid` is
//! not in its group: neither a signal to the group nor the parent's death reaches it. But it has the mark of its instance
//! in its environment, and the node, which adopts it, ends it with the instance.
//!
//! Whoever clears its environment as well is ended with the node. See `docs/adr/0014-a-warden-above-the-node.md`.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use bus::child;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, child_subreaper, kill_process, pidfd_open, pidfd_send_signal, waitpid,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use crate::lock;

/// The variable that carries the mark: the private folder of an instance.
pub(crate) const MARK: &str = "FNBUS_INSTANCE";

/// Looks for leftovers before they are given up: each look kills all that it finds.
const LOOKS: usize = 100;
const AGAIN: Duration = Duration::from_millis(5);
/// The field of `/proc/<id>/stat` with the address of the environment.
const ENVIRONMENT: usize = 50;

static MARKS: Mutex<Marks> = Mutex::new(Marks { live: BTreeSet::new(), runs: BTreeSet::new(), kept: BTreeSet::new() });

struct Marks {
    /// Instances that have not ended.
    live: BTreeSet<PathBuf>,
    /// The folders of this process' nodes, which they are in: a mark elsewhere is another node's.
    runs: BTreeSet<PathBuf>,
    /// Adopted processes that a pool has: it reaps them.
    kept: BTreeSet<i32>,
}

/// The private folder of an instance, which is the mark of its processes. When it is dropped nothing may carry the mark
/// any more, and the folder goes; so does the one above it, when that is not the folder of all and holds no other.
#[derive(Debug, Default)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// To be made before the first process that carries the mark.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let mut marks = lock(&MARKS);
        marks.live.insert(folder.clone());
        drop(marks);
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            lock(&MARKS).live.remove(&self.0);
            tend();
            let _ = fs::remove_dir_all(&self.0);
            let marks = lock(&MARKS);
            let above = self.0.parent().filter(|above| !marks.runs.contains(*above));
            let above = above.filter(|above| !marks.live.iter().any(|home| home.starts_with(above)));
            if let Some(above) = above.filter(|above| marks.runs.iter().any(|run| above.starts_with(run))) {
                let _ = fs::remove_dir_all(above);
            }
        }
    }
}

/// Takes charge of the instances whose private folders are in this one.
pub(crate) fn take(run: &Path) {
    lock(&MARKS).runs.insert(run.to_owned());
}

/// Leaves an adopted process to who has it.
pub(crate) fn keep(process: Pid) {
    lock(&MARKS).kept.insert(process.as_raw_nonzero().get());
}

/// It was reaped.
pub(crate) fn release(process: Pid) {
    lock(&MARKS).kept.remove(&process.as_raw_nonzero().get());
}

/// Tends to what was adopted whenever a child ends, for ever. Whoever is left by one that was just killed is adopted
/// before that is told.
pub(crate) async fn watch() {
    if !adopts() {
        return;
    }
    let mut ended = match (signal(SignalKind::child()), child::adopted()) {
        (Ok(ended), Ok(_)) => ended,
        (Err(error), _) | (_, Err(error)) => {
            warn!(%error, "what functions leave running is only ended with this node; is CONFIG_PROC_CHILDREN in this kernel?");
            return;
        }
    };
    loop {
        tend();
        if ended.recv().await.is_none() {
            return;
        }
    }
}

/// Reaps what was adopted and has ended, and kills what carries the mark of an instance that has.
fn tend() {
    if !adopts() {
        return;
    }
    // one at a time: until we reap them, ids in the list are nobody else's
    let marks = lock(&MARKS);
    for process in child::adopted().unwrap_or_default() {
        if marks.kept.contains(&process.as_raw_nonzero().get()) {
            continue;
        }
        if !matches!(waitpid(Some(process), WaitOptions::NOHANG), Ok(None)) {
            continue;
        }
        let Some(mark) = mark(process) else { continue };
        if !marks.live.contains(&mark) && marks.runs.iter().any(|run| mark.starts_with(run)) {
            let _ = kill_process(process, Signal::KILL);
        }
    }
}

/// Whether orphans below us become our children. In a test they do not.
pub(crate) fn adopts() -> bool {
    child_subreaper().is_ok_and(|adopts| adopts.is_some())
}

/// Kills what earlier nodes left that were killed together with their wardens. `run` is the folder of this node's
/// instances; those of earlier ones are beside it. Blocks.
pub(crate) fn sweep(run: &Path) {
    let Some(runs) = run.parent() else { return };
    if !fs::read_dir(runs).into_iter().flatten().flatten().any(|entry| entry.path() != run) {
        return;
    }
    let mut killed = BTreeSet::new();
    for _ in 0..LOOKS {
        let left = leftovers(runs, run);
        if left.is_empty() {
            break;
        }
        killed.extend(left);
        thread::sleep(AGAIN);
    }
    if !killed.is_empty() {
        warn!(processes = killed.len(), "an earlier run had left processes of functions; they were killed");
    }
}

/// Kills each process with the mark of an earlier run; their ids.
fn leftovers(runs: &Path, run: &Path) -> Vec<i32> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let kill = |process: Pid| {
        // the descriptor is of the process whose mark is read, whatever its id is meanwhile
        let descriptor = pidfd_open(process, PidfdFlags::empty()).ok()?;
        let mark = mark(process)?;
        let earlier = mark.starts_with(runs) && !mark.starts_with(run);
        (earlier && pidfd_send_signal(&descriptor, Signal::KILL).is_ok()).then(|| process.as_raw_nonzero().get())
    };
    ids.filter_map(kill).collect()
}

/// The mark of a process, as it was when the process was started; none for one that has ended.
fn mark(process: Pid) -> Option<PathBuf> {
    let environment = fs::read(format!("/proc/{}/environ", process.as_raw_nonzero())).ok()?;
    let value = environment
        .split(|&byte| byte == 0)
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="))?;
    Some(PathBuf::from(OsStr::from_bytes(value)))
}

/// Writes another mark over the one that a forked process has from its maker: what it forks in turn is known by it. Fails
/// when the process has another mark, as it is another process then.
pub(crate) fn remark(process: Pid, from: &Path, to: &Path) -> io::Result<()> {
    let id = process.as_raw_nonzero();
    let environment = fs::read(format!("/proc/{id}/environ"))?;
    let (from, to) = (from.as_os_str().as_bytes(), to.as_os_str().as_bytes());
    let old = [MARK.as_bytes(), b"=", from, b"\0"].concat();
    let at = environment.windows(old.len()).position(|variable| variable == old);
    let (Some(at), true) = (at, from.len() == to.len()) else {
        return Err(io::Error::other("the forked process is not the one that was asked for"));
    };
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // the fields behind the name, which may hold anything, begin with the third
    let field = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(ENVIRONMENT - 3));
    let start: u64 =
        field.and_then(|field| field.parse().ok()).filter(|&start| start > 0).ok_or(io::ErrorKind::InvalidData)?;
    let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{id}/mem"))?;
    memory.write_all_at(to, start + (at + MARK.len() + 1) as u64)
}
