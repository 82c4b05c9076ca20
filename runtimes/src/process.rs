//! Processes of functions: each the leader of its own group, with limits, and never outliving this process. What leaves
//! the group is `orphans.rs`' to end.
//!
//! The id of a group can be used again as soon as its leader is reaped; so a group is always killed first, then reaped
//! ([`Group::reap`]), and signals go out under the same lock.

// What a group has.
mod figures;

use std::{
    ffi::OsString,
    io,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Poll, ready},
    thread,
};

use bus::child;
use command_fds::{CommandFdExt, FdMapping};
use rustix::{
    fs::{Mode, OFlags, open},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, setrlimit,
        waitid,
    },
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{UnixStream, unix::pipe},
};
use tracing::warn;

use crate::{
    budget::{Budget, Share},
    cgroups::{Cgroup, Cgroups, Limits},
    lock,
    orphans::{self, Home},
    sandbox::{self, Reach, Walls},
};

/// What to start.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) wires: Wires,
    /// All of it: nothing is inherited.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) folder: PathBuf,
    /// Private folder of the process, removed after its end.
    pub(crate) home: PathBuf,
    /// Bytes of data it may have.
    pub(crate) memory: u64,
    /// What it may reach; none: whatever the user may.
    pub(crate) reach: Option<Reach>,
    /// What it may have with all that it starts.
    pub(crate) bounds: Option<Bounds>,
}

/// Limits, and where groups for them are made.
pub(crate) struct Bounds {
    pub(crate) cgroups: Arc<Cgroups>,
    pub(crate) limits: Limits,
}

/// Which descriptors a process gets beside stdout and stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wires {
    /// None; nothing is on stdin.
    Outputs,
    /// Stdin.
    Stdin,
    /// 3, to be asked, and 4, to answer; nothing is on stdin.
    Frames,
    /// These, and 5, a socket on which it is told to fork.
    Zygote,
}

impl Wires {
    /// The first descriptor that is not the process's own.
    fn foreign(self) -> u32 {
        match self {
            Self::Outputs | Self::Stdin => 3,
            Self::Frames => 5,
            Self::Zygote => 6,
        }
    }
}

/// A started process and our ends of its pipes.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) stdin: Option<pipe::Sender>,
    /// Its fds 3 and 4.
    pub(crate) frames: Option<(pipe::Sender, pipe::Receiver)>,
    /// Its fd 5.
    pub(crate) control: Option<UnixStream>,
    pub(crate) stdout: pipe::Receiver,
    pub(crate) stderr: pipe::Receiver,
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    /// Most memory it had at once, in bytes.
    pub(crate) peak: u64,
    /// It, or what it started, was killed because all of them together had too much memory.
    pub(crate) starved: bool,
    /// It was killed because it had too much in files.
    pub(crate) overfull: bool,
}

/// A process and its group. Dropping it kills the group.
pub(crate) struct Process {
    group: Arc<Group>,
    home: Home,
}

/// What others than the owner may do with a group: hear of its end, and signal it.
pub(crate) struct Group {
    leader: Pid,
    /// Readable when the leader has ended.
    pidfd: AsyncFd<OwnedFd>,
    /// Set where the program is not the leader, but two below it, and its private folder is a file system of its own: see
    /// `sandbox/namespaces.rs`.
    inner: Option<PathBuf>,
    /// Set when the leader was reaped: from then on its id may be somebody else's.
    exit: Mutex<Option<Exit>>,
    /// What it may have with all that it starts.
    cgroup: Mutex<Option<Cgroup>>,
    /// It had too much in files.
    overfull: AtomicBool,
    /// Stopped, until it is thawed.
    frozen: AtomicBool,
    /// What it holds of the memory of all functions, once that is counted.
    share: OnceLock<Share>,
}

/// Starts a process.
pub(crate) async fn start(launch: Launch) -> io::Result<Started> {
    let (fd1, stdout) = pipe::pipe()?;
    let (fd2, stderr) = pipe::pipe()?;
    let inner = launch.reach.as_ref().filter(|reach| reach.namespaces.is_some()).map(sandbox::ahead).transpose()?;
    let mut command = Command::new(inner.as_ref().map_or(&launch.program, |(program, _)| program));
    if let Some((_, before)) = &inner {
        command.args(before).arg(&launch.program);
    }
    command
        .args(&launch.arguments)
        .env_clear()
        .envs(launch.env)
        .current_dir(&launch.folder)
        .stdin(Stdio::null())
        .stdout(fd1.into_blocking_fd()?)
        .stderr(fd2.into_blocking_fd()?)
        .process_group(0);
    let (mut stdin, mut frames, mut control) = (None, None, None);
    match launch.wires {
        Wires::Outputs => {}
        Wires::Stdin => {
            let (ours, fd0) = pipe::pipe()?;
            command.stdin(fd0.into_blocking_fd()?);
            stdin = Some(ours);
        }
        Wires::Frames | Wires::Zygote => {
            let ((asks, fd3), (fd4, replies)) = (pipe::pipe()?, pipe::pipe()?);
            let mut mappings = vec![
                FdMapping { parent_fd: fd3.into_blocking_fd()?, child_fd: 3 },
                FdMapping { parent_fd: fd4.into_blocking_fd()?, child_fd: 4 },
            ];
            if launch.wires == Wires::Zygote {
                let (ours, theirs) = UnixStream::pair()?;
                let theirs = theirs.into_std()?;
                theirs.set_nonblocking(false)?;
                mappings.push(FdMapping { parent_fd: theirs.into(), child_fd: 5 });
                control = Some(ours);
            }
            command.fd_mappings(mappings).map_err(io::Error::other)?;
            frames = Some((asks, replies));
        }
    }
    // in namespaces they can only be made there
    let walls = launch.reach.filter(|_| inner.is_none()).map(|reach| reach.walls()).transpose()?;
    confine(&mut command, launch.memory, launch.wires.foreign(), walls);

    let (home, bounds) = (Home::new(launch.home), launch.bounds);
    let process = child::make(move || make(&mut command, home, inner.is_some(), bounds.as_ref())).await?;
    Ok(Started { process, stdin, frames, control, stdout, stderr })
}

/// Takes charge of a process that `maker` forked and has left to us, and that waits for our word. It gets a mark of its
/// own, which is how it is known to be that process, whatever its id was meanwhile.
pub(crate) fn adopt(leader: Pid, maker: &Process, home: Home) -> io::Result<Process> {
    let pidfd = pidfd_open(leader, PidfdFlags::empty())?;
    orphans::remark(leader, maker.home(), home.path())?;
    orphans::keep(leader);
    Ok(Process { group: Arc::new(Group::new(leader, pidfd, None)?), home })
}

/// Where the whole machine is out of memory, the kernel is to take functions before their node.
const OOM_SCORE: &[u8] = b"500";

/// What a child does to itself between fork and exec. `foreign` is the first descriptor that is not its own.
fn confine(command: &mut Command, memory: u64, foreign: u32, walls: Option<Walls>) {
    let mut die_with_parent = child::die_with_parent();
    let files = bus::descriptors::found();
    let confine = move || {
        die_with_parent()?;
        if let Some(files) = files {
            setrlimit(Resource::Nofile, files)?;
        }
        rustix::thread::set_no_new_privs(true)?;
        setrlimit(Resource::Data, Rlimit { current: Some(memory), maximum: Some(memory) })?;
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
        // who has a higher score already, and may not lower it, keeps it
        if let Ok(score) = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            let _ = rustix::io::write(score, OOM_SCORE);
        }
        // SAFETY: marks descriptors close-on-exec, touches no memory. A failure (old kernels) leaves ours as they
        // were opened, which is close-on-exec too.
        let _ = unsafe { libc::close_range(foreign, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
        walls.as_ref().map_or(Ok(()), Walls::enter)
    };
    // SAFETY: runs in the forked child, where only async-signal-safe calls are allowed: it makes plain system calls
    // on values it owns, takes no lock and allocates nothing.
    unsafe { command.pre_exec(confine) };
}

fn make(command: &mut Command, home: Home, inner: bool, bounds: Option<&Bounds>) -> io::Result<Process> {
    let cgroup = bounds.and_then(|bounds| {
        let made = bounds.cgroups.group(bounds.limits).and_then(|cgroup| Ok((cgroup.doors()?, cgroup)));
        made.inspect_err(|error| warn!(%error, "a process is not held to its limits with all that it starts")).ok()
    });
    let mut held = None;
    if let Some((Some(doors), cgroup)) = cgroup {
        held = Some(cgroup);
        // SAFETY: as for `confine`: it writes to descriptors that are open.
        unsafe { command.pre_exec(move || doors.enter()) };
    }
    let child = command.spawn()?;
    let leader = Pid::from_child(&child);
    let pidfd = pidfd_open(leader, PidfdFlags::empty()).map_err(io::Error::from);
    let inner = inner.then(|| home.path().to_owned());
    match pidfd.and_then(|pidfd| Group::new(leader, pidfd, inner)) {
        Ok(group) => {
            *lock(&group.cgroup) = held;
            Ok(Process { group: Arc::new(group), home })
        }
        Err(e) => {
            let _ = kill_process_group(leader, Signal::KILL);
            Err(e)
        }
    }
}

/// The thread that waits for killed processes to be gone, and cleans up behind them.
fn reaper() -> &'static mpsc::Sender<(Arc<Group>, Home)> {
    static REAPER: OnceLock<mpsc::Sender<(Arc<Group>, Home)>> = OnceLock::new();
    REAPER.get_or_init(|| {
        let (dead, queue) = mpsc::channel::<(Arc<Group>, Home)>();
        thread::spawn(move || {
            for (group, home) in queue {
                while group.reap().is_none() {
                    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                    let _ = waitid(WaitId::Pid(group.leader), ended);
                }
                drop(lock(&group.cgroup).take());
                drop(home);
            }
        });
        dead
    })
}

impl Process {
    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Its private folder.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.group.signal(Signal::KILL);
        // others need not wait until it is gone
        self.group.holds(0);
        let _ = reaper().send((self.group.clone(), std::mem::take(&mut self.home)));
    }
}

impl Group {
    fn new(leader: Pid, pidfd: OwnedFd, inner: Option<PathBuf>) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on, so it stays open and the same.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        let (exit, cgroup, share) = (Mutex::new(None), Mutex::new(None), OnceLock::new());
        let (overfull, frozen) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { leader, pidfd, inner, exit, cgroup, overfull, frozen, share })
    }

    /// The leader's process id.
    pub(crate) fn id(&self) -> u32 {
        self.leader.as_raw_nonzero().get() as u32
    }

    /// Sends a signal to every process of the group, unless its leader is reaped. What is frozen hears it too.
    pub(crate) fn signal(&self, signal: Signal) {
        let exit = lock(&self.exit);
        if exit.is_none() {
            let _ = kill_process_group(self.leader, signal);
            if self.frozen.swap(false, Ordering::Relaxed) {
                let _ = kill_process_group(self.leader, Signal::CONT);
            }
        }
    }

    /// Stops every process of the group: none of them takes any CPU until it is thawed.
    pub(crate) fn freeze(&self) {
        let exit = lock(&self.exit);
        if exit.is_none() && !self.frozen.swap(true, Ordering::Relaxed) {
            let _ = kill_process_group(self.leader, Signal::STOP);
        }
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    /// Ends it, as it has too much in files. False when that was known.
    pub(crate) fn end_overfull(&self) -> bool {
        let is_news = !self.overfull.swap(true, Ordering::Relaxed);
        self.signal(Signal::KILL);
        is_news
    }

    /// Holds it to limits, with all that it starts, where it has not gone into a group with these by itself. Nobody waits
    /// for it.
    pub(crate) fn hold(self: &Arc<Self>, Bounds { cgroups, limits }: Bounds) {
        if lock(&self.cgroup).is_some() {
            return;
        }
        let group = self.clone();
        tokio::task::spawn_blocking(move || {
            let held = cgroups.group(limits).and_then(|cgroup| {
                // its id is its own as long as this is locked
                let exit = lock(&group.exit);
                if exit.is_some() {
                    return Ok(());
                }
                let put = cgroup.put(group.leader);
                *lock(&group.cgroup) = Some(cgroup);
                put
            });
            if let Err(error) = held
                && !group.is_gone()
            {
                warn!(%error, "a process is not held to its limits with all that it starts");
            }
        });
    }

    /// Lets it go on, if it is frozen.
    pub(crate) fn thaw(&self) {
        if self.frozen.load(Ordering::Relaxed) {
            self.signal(Signal::CONT);
        }
    }

    /// Counts it among what all functions hold, or counts it anew.
    pub(crate) fn counts(&self, budget: &Arc<Budget>, bytes: u64) {
        self.share.get_or_init(|| Share::new(budget)).set(bytes);
    }

    /// Where it is counted, it holds so much now.
    pub(crate) fn holds(&self, bytes: u64) {
        if let Some(share) = self.share.get() {
            share.set(bytes);
        }
    }

    /// Bytes it was last counted with.
    pub(crate) fn held(&self) -> u64 {
        self.share.get().map_or(0, Share::bytes)
    }

    /// Whether the leader has ended; asks the kernel.
    pub(crate) fn is_gone(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        !matches!(waitid(WaitId::Pid(self.leader), look), Ok(None))
    }

    /// Ready when the leader has ended.
    pub(crate) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        // the reactor's word is kept as ready: a process ends once
        let _ = ready!(self.pidfd.poll_read_ready(context));
        Poll::Ready(())
    }

    /// Waits for the end of the leader.
    pub(crate) async fn gone(&self) {
        let _ = self.pidfd.readable().await;
    }

    /// The leader's end, if it has ended: kills what is left of the group and reaps the leader.
    pub(crate) fn reap(&self) -> Option<Exit> {
        let mut exit = lock(&self.exit);
        if exit.is_none() && self.is_gone() {
            let _ = kill_process_group(self.leader, Signal::KILL);
            let starved = lock(&self.cgroup).as_ref().is_some_and(Cgroup::ran_out_of_memory);
            let overfull = self.overfull.load(Ordering::Relaxed);
            *exit = Some(Exit { starved, overfull, ..orphans::reap(self.leader, wait) });
        }
        *exit
    }
}

/// Reaps a child that has ended, and its figures.
fn wait(leader: Pid) -> Exit {
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = leader.as_raw_nonzero().get();
    // SAFETY: both pointers are to live values of the right types. `waitid` has no way to give the figures.
    unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    let peak = usage.ru_maxrss.max(0) as u64 * 1024;
    Exit { status: ExitStatus::from_raw(status), peak, starved: false, overfull: false }
}

/// Waits until all of them are gone. Not by polling: of those who poll a group the last one alone hears of its end, and that
/// may be its pool.
pub(crate) async fn all_gone(groups: &[Arc<Group>]) {
    for group in groups {
        group.gone().await;
    }
}
