//! The warden: the process above the node, which lives a moment longer and ends what the node leaves behind.
//!
//! `fnbus up` becomes two processes before it does anything else. The upper one adopts every process below whose parent
//! has ended, waits for the node, and then kills its children again and again until there are none. Until then it only
//! hands signals on. Both ends are thought of: when the warden is killed, a pipe between the two closes, and the node
//! ends everything below it and itself. See `docs/adr/0014-a-warden-above-the-node.md`.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, process::exit, ptr, thread, time::Duration};

use bus::child;
use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{
        Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, setrlimit,
        wait,
    },
};
use tokio::sync::watch;

use crate::terminal;

/// What does not die at once (a broken disk) is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the warden hears of. The last is the end of the node.
const SIGNALS: [i32; 7] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGCHLD];

/// The node's end of the pipe to its warden.
pub(crate) struct Line(OwnedFd);

/// Goes on as the node, below a process that has become its warden. To be called before any thread is started.
pub(crate) fn split() -> io::Result<Line> {
    let (line, end) = pipe_with(PipeFlags::CLOEXEC)?;
    let mask = Mask::block(&SIGNALS);
    // whoever became us by exec may have had children
    let foreign = child::children();
    set_child_subreaper(Some(getpid()))?;
    // SAFETY: no thread was started yet, so the child is whole: no lock is held by somebody who is not there.
    match unsafe { libc::fork() } {
        -1 => {
            let error = io::Error::last_os_error();
            mask.restore();
            Err(error)
        }
        0 => {
            drop(end);
            mask.restore();
            set_child_subreaper(Some(getpid()))?;
            Ok(Line(line))
        }
        node => {
            drop(line);
            match Pid::from_raw(node) {
                Some(node) => ward(node, &end, &mask, &foreign),
                None => exit(1),
            }
        }
    }
}

impl Line {
    /// How often the warden has handed on that the node is to end. When the warden itself ends, so does all of this.
    pub(crate) fn listen(self) -> io::Result<watch::Receiver<u32>> {
        let (tell, told) = watch::channel(0);
        let listen = move || {
            let mut bytes = [0; 16];
            loop {
                match rustix::io::read(&self.0, &mut bytes) {
                    Ok(0) => {
                        tracing::error!("the process above this one was killed; everything ends now");
                        child::end_all(&[], PATIENCE);
                        let _ = kill_process(getpid(), Signal::KILL);
                    }
                    Ok(read) => tell.send_modify(|times| *times += read as u32),
                    Err(Errno::INTR) => {}
                    Err(_) => return,
                }
            }
        };
        // a thread, not a task: whatever the others are at, this one hears it
        thread::Builder::new().name("warden-line".into()).spawn(listen)?;
        Ok(told)
    }
}

/// The life of the warden.
fn ward(node: Pid, line: &OwnedFd, mask: &Mask, foreign: &[Pid]) -> ! {
    let _ = rustix::thread::set_name(c"fnbus-warden");
    let status = loop {
        match mask.next() {
            libc::SIGCHLD => {
                if let Some(status) = ended(node) {
                    break status;
                }
            }
            // by the pipe, where the node can tell it from the same signal of a terminal, which goes to both
            libc::SIGINT | libc::SIGTERM => drop(rustix::io::write(line, &[0])),
            other => {
                if let Some(signal) = Signal::from_named_raw(other) {
                    let _ = kill_process(node, signal);
                }
            }
        }
    };
    if let Some(signal) = status.terminating_signal() {
        let name = match signal {
            libc::SIGKILL => "SIGKILL",
            libc::SIGABRT => "SIGABRT",
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGBUS => "SIGBUS",
            _ => "a signal",
        };
        terminal::talk(format_args!(
            "fnbus: the node (process {}) was ended by {name}; what it left running is ended now. Nothing that was accepted \
             is lost: `fnbus up` goes on with it",
            node.as_raw_nonzero()
        ));
    }
    child::end_all(foreign, PATIENCE);
    end_as(status, mask)
}

/// How the node ended, if it has. Whatever else has ended is reaped.
fn ended(node: Pid) -> Option<WaitStatus> {
    while let Ok(Some((process, status))) = wait(WaitOptions::NOHANG) {
        if process == node {
            return Some(status);
        }
    }
    None
}

/// Ends as the node did: by the same signal, or with the same code.
fn end_as(status: WaitStatus, mask: &Mask) -> ! {
    if let Some(signal) = status.terminating_signal() {
        // one dump of memory is enough
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        mask.restore();
        // SAFETY: no handler is installed, and the default one of a signal that just ended a process ends this one.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
        // the first process of a container is not ended by its own signals
        exit(128 + signal);
    }
    exit(status.exit_status().unwrap_or(1))
}

/// Signals that wait until they are taken, and the mask from before.
struct Mask {
    blocked: libc::sigset_t,
    before: libc::sigset_t,
}

impl Mask {
    fn block(signals: &[i32]) -> Self {
        let (mut blocked, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: `sigemptyset` and `sigprocmask` fill the sets they are given; none of these fails with valid signals.
        // An end of a child is only told where it is not ignored, which whoever started us may have left so.
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigemptyset(blocked.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(blocked.as_mut_ptr(), signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr());
            Self { blocked: blocked.assume_init(), before: before.assume_init() }
        }
    }

    /// Waits for the next of them.
    fn next(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: both point to live values; it fails for sets that are none, and then again is right too.
        unsafe { libc::sigwait(&raw const self.blocked, &raw mut signal) };
        signal
    }

    fn restore(&self) {
        // SAFETY: the set is one the kernel gave; the old one is not asked for.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}
