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
//! on until it waits again, the log commits some of what waits for it, a publication arrives, a worker gets a message,
//! time passes; and faults: the node is killed between any two of these and begins anew on what was committed, the broker
//! is away, full, wiped, or loses its tail or a message, messages come twice, workers are slow, silent or gone, the config
//! changes, events are delivered again. Then the faults end, and everything that was accepted must come to its end.
//! What must hold then is in [`check`].
//!
//! The same seed makes the same bytes: of the steps and of the log. `FNBUS_SEED=7` repeats one, step by step, in words.
//!
//! What is not simulated: the disk, several nodes, the processes of functions, and the moment within a commit.

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
        sync::{Arc, Mutex},
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
    fn run(seed: u64, connection: &Arc<Mutex<Connection>>, aloud: bool) -> u64 {
        let ran = catch_unwind(AssertUnwindSafe(|| World::new(seed, connection, aloud).run()));
        match ran {
            Ok(Ok(sum)) => sum,
            Ok(Err(broken)) => panic!("seed {seed}: {broken}; FNBUS_SEED={seed} repeats it step by step"),
            Err(panic) => {
                eprintln!("seed {seed} broke something; FNBUS_SEED={seed} repeats it step by step");
                std::panic::resume_unwind(panic)
            }
        }
    }

    fn number(variable: &str) -> Option<u64> {
        std::env::var(variable).ok()?.parse().ok()
    }

    #[test]
    fn whatever_happens_in_whichever_order_everything_accepted_ends_once() {
        let connection = connection();
        if let Some(seed) = number("FNBUS_SEED") {
            run(seed, &connection, true);
            return;
        }
        // another beginning each time: every run of the tests looks where none has looked before
        let first = u64::from(std::process::id()) << 32 | u64::from(fastrand::u32(..));
        let (seeds, begun) = (number("FNBUS_SEEDS"), Instant::now());
        let more = |ran: u64| seeds.map_or(begun.elapsed() < LOOK, |seeds| ran < seeds);
        let mut ran = 0;
        while more(ran) {
            run(first.wrapping_add(ran), &connection, false);
            ran += 1;
        }
        let rate = ran as f64 / begun.elapsed().as_secs_f64();
        println!("{ran} schedules from seed {first}, {rate:.0} a second");
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes() {
        for seed in 0..20 {
            assert_eq!(run(seed, &connection(), false), run(seed, &connection(), false), "seed {seed}");
        }
    }
}
