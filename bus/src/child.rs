//! Child processes that do not outlive us.
//!
//! The kernel's parent-death signal follows the *thread* that spawned a child, so all spawning is done by one thread
//! that never ends.

use std::{
    io,
    sync::{OnceLock, mpsc},
    thread,
};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

struct Job {
    command: Command,
    runtime: Handle,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// Starts a process that is killed by the kernel when we die, however we die.
pub async fn spawn(mut command: Command) -> io::Result<Child> {
    die_with_parent(&mut command);
    let (answer, answered) = oneshot::channel();
    let job = Job { command, runtime: Handle::current(), answer };
    if spawner().send(job).is_err() {
        return Err(io::Error::other("the thread that starts processes is gone"));
    }
    answered.await.unwrap_or_else(|_| Err(io::Error::other("the thread that starts processes is gone")))
}

fn spawner() -> &'static mpsc::Sender<Job> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            for mut job in queue {
                let _entered = job.runtime.enter();
                let _ = job.answer.send(job.command.spawn());
            }
        };
        thread::Builder::new().name("spawner".into()).spawn(run).expect("a thread that starts processes");
        jobs
    })
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let before_exec = move || {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // The parent may have died before the line above took effect; then nobody would signal us.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec only prctl and getppid are called: no allocation, no lock.
    unsafe { command.pre_exec(before_exec) };
}
