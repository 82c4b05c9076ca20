//! The owner, the relay and the log's writer in a simulation: a seed decides what happens, and in which order.
//!
//! # Theory of operation
//!
//! Everything that decides is the product's own: [`crate::owner`], [`crate::relay`], [`crate::window`], the changes of
//! the log and the writer's groups, on SQLite with the real tables, in memory. What is around them is put in place
//! ([`surroundings`]): the clock stands still until it is wound, ids come from the seed, and tasks go on one at a time,
//! in an order that the seed decides. The broker and the workers are models ([`broker`], [`worker`]).
//!
//! A **schedule** is what one seed makes: a small project ([`project`]), a few events, and steps ([`world`]): a task goes
//! on until it waits again, the log commits some of what waits for it, a publication arrives, a worker gets a message or a
//! batch of them, time passes; and faults: the node is killed between any two of these and begins anew on what was
//! committed, the disk is full or did not keep a commit, the log may not grow, the broker is away, full, wiped, or loses
//! its tail or a message, messages come twice, workers are slow, silent or gone, the config changes, events are delivered
//! again, dead letters are redriven, edited and dropped. Then the faults end, and everything that was accepted must come to its end.
//! What must hold then is in [`check`].
//!
//! The same seed makes the same bytes: of the steps and of the log. `FNBUS_SEED=7` repeats one, step by step, in words.
//!
//! What is not simulated: pages and files, several nodes, the processes of functions, and the moment within a commit.

mod broker;
mod check;
mod project;
pub(crate) mod surroundings;
mod worker;
mod world;

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Arc, Mutex,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        time::{Duration, Instant},
    };

    use rusqlite::Connection;

    use super::world::World;
    use crate::log::Log;

    /// How long `make test` looks for schedules that break something.
    const LOOK: Duration = Duration::from_secs(5);

    fn connection() -> Arc<Mutex<Connection>> {
        Arc::new(Mutex::new(Log::in_memory()))
    }

    /// Runs one schedule; gives the sum of all that happened.
    fn run(seed: u64, connection: &Arc<Mutex<Connection>>, aloud: bool) -> Result<u64, String> {
        let broken = match catch_unwind(AssertUnwindSafe(|| World::new(seed, connection, aloud).run())) {
            Ok(Ok(sum)) => return Ok(sum),
            Ok(Err(broken)) => broken,
            Err(_) => "it panicked".to_owned(),
        };
        Err(format!("seed {seed}: {broken}; FNBUS_SEED={seed} repeats it step by step"))
    }

    /// Runs one seed after the other, each on one of so many threads, until there are no more or one broke something.
    /// Gives how many.
    fn run_all(first: u64, threads: usize, more: impl Fn(u64) -> bool + Sync) -> Result<u64, String> {
        let (next, broken) = (AtomicU64::new(0), AtomicBool::new(false));
        let one_by_one = || {
            let (connection, mut ran) = (connection(), 0);
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if broken.load(Ordering::Relaxed) || !more(nth) {
                    return Ok(ran);
                }
                run(first.wrapping_add(nth), &connection, false)
                    .inspect_err(|_| broken.store(true, Ordering::Relaxed))?;
                ran += 1;
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one_by_one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        })
    }

    fn number(variable: &str) -> Option<u64> {
        std::env::var(variable).ok()?.parse().ok()
    }

    #[test]
    fn whatever_happens_in_whichever_order_everything_accepted_ends_once() {
        if let Some(seed) = number("FNBUS_SEED") {
            run(seed, &connection(), true).unwrap();
            return;
        }
        // another beginning each time: every run of the tests looks where none has looked before
        let first = u64::from(std::process::id()) << 32 | u64::from(fastrand::u32(..));
        let (seeds, begun) = (number("FNBUS_SEEDS"), Instant::now());
        // beside other tests one thread is enough
        let threads = seeds.map_or(1, |_| std::thread::available_parallelism().map_or(1, usize::from));
        let ran = run_all(first, threads, |nth| seeds.map_or(begun.elapsed() < LOOK, |seeds| nth < seeds)).unwrap();
        let took = begun.elapsed().as_secs_f64();
        let rate = ran as f64 / took;
        println!("{ran} schedules in {took:.1} s: {rate:.0} a second, on {threads} threads, from seed {first}");
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        for seed in 0..20 {
            let twice = [(); 2].map(|()| run(seed, &connection(), false).unwrap());
            assert_eq!(twice[0], twice[1], "seed {seed}");
        }
    }
}
