//! Child processes that end with us, however we end.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// How long a process may take to end in order.
const GRACE: Duration = Duration::from_secs(5);

/// A process that is ended, in order if it can, when it is dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts a process, which the kernel ends when we die. To be called from the main thread.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        die_with_parent(command);
        Ok(Self { child: command.spawn()? })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end and waits until it has.
    pub(crate) fn stop(&mut self) {
        if self.has_ended() {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while !self.has_ended() && asked.elapsed() < GRACE {
            sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let before_exec = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?);
    // SAFETY: between fork and exec only prctl is called: no allocation, no lock.
    unsafe { command.pre_exec(before_exec) };
}

/// Returns when somebody wants us to end.
pub(crate) async fn interrupted() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminated.recv() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
}
