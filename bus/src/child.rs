//! Child processes that do not outlive us.
//!
//! The kernel's parent-death signal follows the *thread* that spawned a child, so all children of this process are
//! made by one thread that never ends ([`make`]), and each asks for the signal between fork and exec
//! ([`die_with_parent`]).

use std::{
    io,
    sync::{OnceLock, mpsc},
    thread,
};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

type Job = Box<dyn FnOnce() + Send>;

/// Runs `make` on the thread that makes all children, inside the caller's tokio runtime.
pub async fn make<T: Send + 'static>(make: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let gone = || io::Error::other("the thread that starts processes is gone; restart fnbus");
    let (answer, made) = oneshot::channel();
    let runtime = Handle::current();
    let job: Job = Box::new(move || {
        let _context = runtime.enter();
        // Nobody may be waiting any more; then what was made is dropped.
        let _ = answer.send(make());
    });
    maker().send(job).map_err(|_| gone())?;
    made.await.unwrap_or_else(|_| Err(gone()))
}

/// Starts a process that is killed by the kernel when we die, however we die.
#[allow(unsafe_code)]
pub async fn spawn(mut command: Command) -> io::Result<Child> {
    // SAFETY: between fork and exec only prctl and getppid are called: no allocation, no lock.
    unsafe { command.pre_exec(die_with_parent()) };
    make(move || command.spawn()).await
}

/// What a child of this process does between fork and exec: two system calls, nothing else.
pub fn die_with_parent() -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
    let parent = getpid();
    move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            // The parent ended before the line above: nobody would kill this child.
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    }
}

fn maker() -> &'static mpsc::Sender<Job> {
    static MAKER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    MAKER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            for job in queue {
                job();
            }
        };
        thread::Builder::new().name("children".into()).spawn(run).expect("a thread that makes children");
        jobs
    })
}
