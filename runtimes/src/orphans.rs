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
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    time,
};
use tracing::warn;

use crate::lock;

/// The variable that carries the mark: the private folder of an instance.
pub(crate) const MARK: &str = "FNBUS_INSTANCE";

/// Looks for leftovers before they are given up: each look kills all that it finds.
const LOOKS: usize = 100;
const AGAIN: Duration = Duration::from_millis(5);
/// The fields of `/proc/<id>/stat` with the bytes of memory, and with the address of the environment and of its end.
const MEMORY: usize = 23;
const CODE: usize = 26;
const ENVIRONMENT: [usize; 2] = [50, 51];

/// Told when a look has met a process that could not be known yet.
static LOOK_AGAIN: Notify = Notify::const_new();

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
            if !tend() {
                LOOK_AGAIN.notify_one();
            }
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

/// Reaps a process of a pool. Not while others are looked through: the kernel's list of them may lack one when another is
/// reaped meanwhile.
pub(crate) fn reap<T>(process: Pid, wait: impl FnOnce(Pid) -> T) -> T {
    let mut marks = lock(&MARKS);
    let ended = wait(process);
    marks.kept.remove(&process.as_raw_nonzero().get());
    ended
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
        let known = tend();
        tokio::select! {
            told = ended.recv() => if told.is_none() { return },
            () = LOOK_AGAIN.notified() => {}
            () = time::sleep(AGAIN), if !known => {}
        }
    }
}

/// Reaps what was adopted and has ended, and kills what carries the mark of an instance that has. False when one of them
/// could not be known yet.
fn tend() -> bool {
    if !adopts() {
        return true;
    }
    let mut known = true;
    // one at a time: until we reap them, ids in the list are nobody else's
    let marks = lock(&MARKS);
    for process in child::adopted().unwrap_or_default() {
        if marks.kept.contains(&process.as_raw_nonzero().get()) {
            continue;
        }
        if !matches!(waitpid(Some(process), WaitOptions::NOHANG), Ok(None)) {
            continue;
        }
        match mark(process) {
            Marked::With(mark) => {
                if !marks.live.contains(&mark) && marks.runs.iter().any(|run| mark.starts_with(run)) {
                    let _ = kill_process(process, Signal::KILL);
                }
            }
            Marked::Not => {}
            Marked::Unknown => known = false,
        }
    }
    known
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
        let (left, unknown) = leftovers(runs, run);
        if left.is_empty() && !unknown {
            break;
        }
        killed.extend(left);
        thread::sleep(AGAIN);
    }
    if !killed.is_empty() {
        warn!(processes = killed.len(), "an earlier run had left processes of functions; they were killed");
    }
}

/// Kills each process with the mark of an earlier run: their ids, and whether one could not be known yet.
fn leftovers(runs: &Path, run: &Path) -> (Vec<i32>, bool) {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let mut unknown = false;
    let kill = |process: Pid| {
        // the descriptor is of the process whose mark is read, whatever its id is meanwhile
        let descriptor = pidfd_open(process, PidfdFlags::empty()).ok()?;
        let mark = match mark(process) {
            Marked::With(mark) => mark,
            Marked::Not => return None,
            Marked::Unknown => {
                unknown = true;
                return None;
            }
        };
        let earlier = mark.starts_with(runs) && !mark.starts_with(run);
        (earlier && pidfd_send_signal(&descriptor, Signal::KILL).is_ok()).then(|| process.as_raw_nonzero().get())
    };
    let killed = ids.filter_map(kill).collect();
    (killed, unknown)
}

enum Marked {
    With(PathBuf),
    Not,
    /// It is in the middle of an `exec`: its old environment is gone, and the new one is not there.
    Unknown,
}

/// The mark of a process, as it was when the process was started.
fn mark(process: Pid) -> Marked {
    let Ok(environment) = fs::read(format!("/proc/{}/environ", process.as_raw_nonzero())) else { return Marked::Not };
    if environment.is_empty() {
        // who has no memory has ended, or is of the kernel
        return match layout(process) {
            Ok(Layout { memory, code, environment: [start, end] }) if memory > 0 && (code == 0 || start < end) => {
                Marked::Unknown
            }
            _ => Marked::Not,
        };
    }
    let value = environment
        .split(|&byte| byte == 0)
        .find_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="));
    value.map_or(Marked::Not, |value| Marked::With(PathBuf::from(OsStr::from_bytes(value))))
}

/// Where a process has what.
struct Layout {
    /// Bytes.
    memory: u64,
    /// Where its program begins. An `exec` sets it when the environment is there: until then that may look as if it were empty.
    code: u64,
    /// Addresses; zeroes while it has none.
    environment: [u64; 2],
}

fn layout(process: Pid) -> io::Result<Layout> {
    let [memory, code, start, end] = child::stat(process, [MEMORY, CODE, ENVIRONMENT[0], ENVIRONMENT[1]])?;
    Ok(Layout { memory, code, environment: [start, end] })
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
    let start = layout(process)?.environment[0];
    if start == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let memory = fs::OpenOptions::new().write(true).open(format!("/proc/{id}/mem"))?;
    memory.write_all_at(to, start + (at + MARK.len() + 1) as u64)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    const TIMES: usize = 50;

    #[test]
    fn a_process_that_is_in_the_middle_of_an_exec_is_not_taken_for_one_without_a_mark() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("again");
        fs::write(&script, "#!/bin/sh\nexec \"$0\"\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&script).env_clear().env(MARK, folder.path()).spawn().unwrap();
        let process = Pid::from_child(&child);
        let mut in_between = 0;
        while in_between < TIMES {
            match mark(process) {
                Marked::With(mark) => assert_eq!(mark, folder.path()),
                Marked::Unknown => in_between += 1,
                Marked::Not => panic!("it has a mark"),
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(mark(process), Marked::Not), "it has ended");
    }
}
