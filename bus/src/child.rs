//! Child processes that do not outlive us.
//!
//! The kernel's parent-death signal follows the *thread* that spawned a child, so all children of this process are
//! made by one thread that never ends ([`make`]), and each asks for the signal between fork and exec
//! ([`die_with_parent`]). Whom it does not reach, because its parent ended before, becomes a child of the next process
//! above that adopts: [`adopted`] are ours, and [`end_all`] ends them with the others.

use std::{
    collections::{BTreeSet, VecDeque},
    fs, io,
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitOptions, getpid, getppid, kill_process, set_parent_process_death_signal, wait},
};
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

/// Between two looks at who is still there.
const AGAIN: Duration = Duration::from_millis(1);

/// Kills all children of this process but these, and whoever becomes one by that, until there is none. What cannot even
/// be killed (a broken disk) is waited for no longer than this.
pub fn end_all(but: &[Pid], patience: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        let mut there = children();
        there.retain(|child| !but.contains(child));
        for child in &there {
            let _ = kill_process(*child, Signal::KILL);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                // the list alone may lack one, as others were ending while it was made
                Ok(None) if there.is_empty() && !but.is_empty() => return,
                Ok(None) => break,
                Err(_) => return,
            }
        }
        thread::sleep(AGAIN);
    }
}

/// Our children, of all threads.
pub fn children() -> Vec<Pid> {
    children_of(getpid())
}

/// Those of any process.
pub fn children_of(process: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| pids(&list)).collect()
}

/// A process, then its children, theirs, and so on. Each is asked for its own when the next one is wanted.
pub fn with_below(process: Pid) -> impl Iterator<Item = Pid> {
    let (mut seen, mut last) = (BTreeSet::from([process.as_raw_nonzero()]), None);
    let mut next = VecDeque::from([process]);
    std::iter::from_fn(move || {
        let children = last.take().map(children_of).unwrap_or_default();
        next.extend(children.into_iter().filter(|child| seen.insert(child.as_raw_nonzero())));
        last = next.pop_front();
        last
    })
}

/// The children of this process that others made: the kernel gives them to its first thread, which makes none.
/// Fails where the kernel does not list them.
pub fn adopted() -> io::Result<Vec<Pid>> {
    let me = getpid().as_raw_nonzero();
    fs::read_to_string(format!("/proc/self/task/{me}/children")).map(|list| pids(&list))
}

/// Fields of `/proc/<id>/stat` that are numbers, counted from one as its manual does.
pub fn stat<const N: usize>(process: Pid, fields: [usize; N]) -> io::Result<[u64; N]> {
    let text = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))?;
    // those behind the name, which may hold anything, begin with the third
    let found: Vec<_> = text.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().collect();
    let number = |field: usize| found.get(field.checked_sub(3)?)?.parse().ok();
    let mut numbers = [0; N];
    for (number_at, field) in numbers.iter_mut().zip(fields) {
        *number_at = number(field).ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(numbers)
}

fn pids(list: &str) -> Vec<Pid> {
    list.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
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
