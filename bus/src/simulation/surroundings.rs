//! What the simulation puts in the place of the machine: a clock that is wound, ids from the seed, tasks that are
//! stepped one at a time, in an order that the seed decides.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// The simulated day begins at this time; Unix seconds.
const BEGIN: i64 = 1_800_000_000;

thread_local! {
    static AROUND: RefCell<Option<Around>> = const { RefCell::new(None) };
    /// Tasks that may go on. Apart from the rest, because tasks are woken from anywhere.
    static READY: RefCell<Vec<Arc<Awake>>> = const { RefCell::new(Vec::new()) };
}

struct Around {
    /// The time since the beginning.
    time: Duration,
    start: Instant,
    chance: fastrand::Rng,
    /// How much is taken at once.
    bound: usize,
    sleepers: Vec<(Duration, Waker)>,
    tasks: Vec<Option<Task>>,
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Puts a task on the list of those that may go on, once.
struct Awake {
    task: usize,
    listed: AtomicBool,
}

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        if !self.listed.swap(true, Ordering::Relaxed) {
            READY.with_borrow_mut(|ready| ready.push(self));
        }
    }
}

fn with<T>(f: impl FnOnce(&mut Around) -> T) -> Option<T> {
    AROUND.with_borrow_mut(|around| around.as_mut().map(f))
}

/// Everything on this thread is simulated from now on.
pub(super) fn enter(seed: u64, bound: usize) {
    leave();
    let around = Around {
        time: Duration::ZERO,
        start: Instant::now(),
        chance: fastrand::Rng::with_seed(seed),
        bound,
        sleepers: Vec::new(),
        tasks: Vec::new(),
    };
    AROUND.set(Some(around));
}

/// Nothing is, any more.
pub(super) fn leave() {
    kill();
    AROUND.set(None);
}

pub(crate) fn now() -> Option<DateTime<Utc>> {
    with(|around| DateTime::from_timestamp(BEGIN, 0).unwrap_or_default() + around.time)
}

pub(crate) fn instant() -> Option<Instant> {
    with(|around| around.start + around.time)
}

pub(crate) fn uuid() -> Option<Uuid> {
    let millis = now()?.timestamp_millis() as u64;
    let mut random = [0; 10];
    with(|around| around.chance.fill(&mut random))?;
    Some(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

pub(crate) fn salt() -> Option<u64> {
    with(|around| around.chance.u64(0..1 << 12))
}

pub(crate) fn bound() -> Option<usize> {
    with(|around| around.bound)
}

/// Waits until the clock was wound that far.
pub(crate) fn sleep(time: Duration) -> Option<impl Future<Output = ()> + Send> {
    let until = with(|around| around.time + time)?;
    Some(std::future::poll_fn(move |context| {
        let over = with(|around| {
            if around.time < until {
                around.sleepers.push((until, context.waker().clone()));
            }
            around.time >= until
        });
        if over == Some(true) { Poll::Ready(()) } else { Poll::Pending }
    }))
}

/// Lets others go on first.
pub(crate) async fn step_aside() {
    let mut aside = false;
    std::future::poll_fn(move |context| {
        if std::mem::replace(&mut aside, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Takes a task; gives it back when nothing is simulated.
pub(crate) fn spawn<T: Future<Output = ()> + Send + 'static>(task: T) -> Option<T> {
    let mut given = Some(task);
    let listed = with(|around| {
        around.tasks.push(given.take().map(|task| Box::pin(task) as Task));
        around.tasks.len() - 1
    });
    if let Some(task) = listed {
        Arc::new(Awake { task, listed: AtomicBool::new(false) }).wake();
    }
    given
}

/// How many tasks may go on.
pub(super) fn ready() -> usize {
    READY.with_borrow(Vec::len)
}

/// Lets one of those that may go on do so, until it waits again.
pub(super) fn step(nth: usize) {
    let awake = READY.with_borrow_mut(|ready| ready.remove(nth));
    awake.listed.store(false, Ordering::Relaxed);
    let Some(mut task) = with(|around| around.tasks.get_mut(awake.task).and_then(Option::take)).flatten() else {
        return;
    };
    let waker = Waker::from(awake.clone());
    if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        with(|around| around.tasks[awake.task] = Some(task));
    }
}

/// Winds the clock.
pub(super) fn wind(by: Duration) {
    let mut woken = Vec::new();
    with(|around| {
        around.time += by;
        let now = around.time;
        around.sleepers.sort_by_key(|(until, _)| *until);
        let due = around.sleepers.partition_point(|(until, _)| *until <= now);
        woken.extend(around.sleepers.drain(..due));
    });
    for (_, waker) in woken {
        waker.wake();
    }
}

/// How long until somebody wakes up by himself.
pub(super) fn until_next() -> Option<Duration> {
    with(|around| around.sleepers.iter().map(|(until, _)| until.saturating_sub(around.time)).min()).flatten()
}

/// Ends every task where it stands.
pub(super) fn kill() {
    let gone = with(|around| {
        around.sleepers.clear();
        // their numbers are not given again: what still wakes them wakes nobody
        around.tasks.iter_mut().map(Option::take).collect::<Vec<_>>()
    });
    drop(gone);
    READY.take();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    #[test]
    fn a_task_sleeps_until_the_clock_is_wound_and_a_killed_one_for_good() {
        enter(1, 1);
        let woken = Arc::new(AtomicBool::new(false));
        let tell = woken.clone();
        for kill_it in [true, false] {
            let tell = tell.clone();
            ambient::spawn(async move {
                ambient::sleep(Duration::from_secs(5)).await;
                tell.store(!kill_it, Ordering::Relaxed);
            });
            step(0);
            if kill_it {
                kill();
            }
        }
        assert_eq!((ready(), until_next()), (0, Some(Duration::from_secs(5))));
        wind(Duration::from_secs(4));
        assert_eq!(ready(), 0);
        wind(Duration::from_secs(1));
        step(0);
        assert!(woken.load(Ordering::Relaxed));
        leave();
    }
}
