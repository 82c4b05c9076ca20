//! The fault suite: a node that is killed, starved, cut off and lied to, with a load on it, and a checker that holds
//! what everybody wrote down against the promises of docs/reliability.md.
//!
//! * [`producer`]: a client that journals each event that was accepted; [`recorder`]: functions that write down each of
//!   their executions; [`history`]: both, and the log, read by other code than the node's;
//! * [`checker`]: is a history a good one? Pure, and tested with bad ones; [`tally`]: the figures;
//! * [`arena`]: a started node with all of that;
//! * `f01_…`: the faults, a file each.
//!
//! # A fault more
//!
//! 1. `f07_full_stream.rs` beside this file:
//!
//!    ```ignore
//!    pub(super) const FAULT: Fault = Fault {
//!        number: 7,
//!        sentence: "JetStream is full",
//!        short: 1,  // cycles in `make test`, all of them in a few seconds
//!        full: 20,  // cycles in `make faults`
//!        seconds: 60, // what these take, about
//!        run: |trial| Box::pin(run(trial)),
//!    };
//!
//!    async fn run(trial: Trial) -> Tally {
//!        let project = Arena::project().config("[bus]\nnats = '…'"); // variable, argument, under, file, …
//!        let mut arena = Arena::of(&trial, project).await;
//!        arena.produce(&Traffic::default());
//!        for _ in 0..trial.cycles {
//!            arena.accepted(20).await;
//!            // the fault; arena.kill(), arena.restart(), arena.dice, arena.tally.must(holds, || note)
//!            trial.passed();
//!        }
//!        arena.check().await // heals, waits, stops, judges
//!    }
//!    ```
//! 2. here: `mod f07_full_stream;` and its `FAULT` in [`ALL`];
//! 3. in `tests/tests/faults.rs`: a line with its number and a sentence as the test's name.
//!
//! A run has a time limit, and what it started ends with it. A panic, such as a wait in vain, is the fault's own
//! trouble or the machine's: the run is repeated once. A promise that is broken is not: it counts.

pub mod arena;
pub mod checker;
mod dice;
pub mod history;
pub mod producer;
pub mod recorder;
pub mod soak;
mod tally;

mod f01_kill_bus;
mod f02_failpoints;
mod f03_orphans;
mod f04_kill_function;
mod f05_nats_killed;
mod f06_nats_wiped;
mod f07_nats_full;
mod f08_nats_stopped;
mod f09_nats_half_open;
mod f10_nats_slow_way;
mod f11_slow_consumer;
mod f12_disk_full;
mod f13_no_room;
mod f14_no_sync;
mod f15_power_cut;
mod f16_flipped_bit;
mod f17_clock;
mod f18_descriptors;
mod f19_out_of_memory;
mod f20_hang;
mod f21_flood;
mod f22_answers;
mod f23_poison;
mod f24_reload;
mod f25_deploy;
mod f27_file_storm;
mod f28_queue;
mod f30_client_gone;
mod f31_one_id;
mod f32_avalanche;
mod f33_stop;
mod f34_one_folder;
mod f35_upgrade;
mod f36_replay;
mod f37_retention;
mod f38_nats_upgraded;
mod f41_nats_tail;
mod f42_stream_edited;
mod f43_older_backup;
mod f44_copy;
mod f47_stopped_past_its_lease;
mod f48_node_poison;
mod f49_parked;
mod f50_two_revisions;
mod f51_thousand_functions;
mod f52_own_server;
// Functions that do not do what functions should.
mod strange;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use arena::Arena;
pub use dice::Dice;
pub use producer::Traffic;
pub use tally::Tally;

/// Every fault, by number.
#[rustfmt::skip] // a line each
pub const ALL: &[Fault] = &[
    f01_kill_bus::FAULT,
    f02_failpoints::FAULT,
    f03_orphans::FAULT,
    f04_kill_function::FAULT,
    f05_nats_killed::FAULT,
    f06_nats_wiped::FAULT,
    f07_nats_full::FAULT,
    f08_nats_stopped::FAULT,
    f09_nats_half_open::FAULT,
    f10_nats_slow_way::FAULT,
    f11_slow_consumer::FAULT,
    f12_disk_full::FAULT,
    f13_no_room::FAULT,
    f14_no_sync::FAULT,
    f15_power_cut::FAULT,
    f16_flipped_bit::FAULT,
    f17_clock::FAULT,
    f18_descriptors::FAULT,
    f19_out_of_memory::FAULT,
    f20_hang::FAULT,
    f21_flood::FAULT,
    f22_answers::FAULT,
    f23_poison::FAULT,
    f24_reload::FAULT,
    f25_deploy::FAULT,
    f27_file_storm::FAULT,
    f28_queue::FAULT,
    f30_client_gone::FAULT,
    f31_one_id::FAULT,
    f32_avalanche::FAULT,
    f33_stop::FAULT,
    f34_one_folder::FAULT,
    f35_upgrade::FAULT,
    f36_replay::FAULT,
    f37_retention::FAULT,
    f38_nats_upgraded::FAULT,
    f41_nats_tail::FAULT,
    f42_stream_edited::FAULT,
    f43_older_backup::FAULT,
    f44_copy::FAULT,
    f47_stopped_past_its_lease::FAULT,
    f48_node_poison::FAULT,
    f49_parked::FAULT,
    f50_two_revisions::FAULT,
    f51_thousand_functions::FAULT,
    f52_own_server::FAULT,
];

/// What can happen to a node.
#[derive(Clone, Copy)]
pub struct Fault {
    /// Its row in docs/reliability.md.
    pub number: u32,
    pub sentence: &'static str,
    /// Cycles in `make test`; 0: it is not part of it.
    pub short: usize,
    /// Cycles in `make faults`.
    pub full: usize,
    /// What these take, about, on two cores.
    pub seconds: u64,
    pub run: fn(Trial) -> Pin<Box<dyn Future<Output = Tally> + Send>>,
}

/// One run of a fault.
#[derive(Clone)]
pub struct Trial {
    pub seed: u64,
    pub cycles: usize,
    short: bool,
    progress: Arc<dyn Fn() + Send + Sync>,
}

impl Trial {
    pub fn new(seed: u64, cycles: usize) -> Self {
        Self { seed, cycles, short: false, progress: Arc::new(|| ()) }
    }

    /// In the short suite: whatever is large is made small.
    pub fn short(self) -> Self {
        Self { short: true, ..self }
    }

    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Tells of each cycle that is over.
    pub fn telling(self, progress: impl Fn() + Send + Sync + 'static) -> Self {
        Self { progress: Arc::new(progress), ..self }
    }

    /// The chance of this run: the same seed gives the same.
    pub fn dice(&self) -> Dice {
        Dice::new(self.seed)
    }

    /// A cycle is over.
    pub fn passed(&self) {
        (self.progress)();
    }
}

impl Fault {
    /// Runs it. Never longer than its cycles may take, and never with a panic.
    pub async fn attempt(&self, trial: Trial) -> Tally {
        let once = Duration::from_mins(if trial.short { 3 } else { 15 });
        let limit = once + Duration::from_secs(20) * trial.cycles as u32;
        let mut trouble = String::new();
        for _ in 0..2 {
            let mut run = tokio::spawn((self.run)(trial.clone()));
            match tokio::time::timeout(limit, &mut run).await {
                Ok(Ok(tally)) => return Tally { cycles: trial.cycles, ..tally },
                Ok(Err(error)) => trouble = panic_text(error),
                Err(_) => {
                    run.abort();
                    trouble = format!("it was not over after {} s", limit.as_secs());
                    break;
                }
            }
        }
        let mut tally = Tally { cycles: trial.cycles, ..Tally::default() };
        tally.broken(trouble);
        tally
    }
}

fn panic_text(error: tokio::task::JoinError) -> String {
    let text = error.to_string();
    let Ok(panic) = error.try_into_panic() else { return text };
    let own = panic.downcast_ref::<String>().map(String::as_str);
    own.or_else(|| panic.downcast_ref::<&str>().copied()).map_or(text, str::to_owned)
}

/// `FNBUS_SEED`, or one that nobody had before.
pub fn seed() -> u64 {
    let given = std::env::var("FNBUS_SEED").ok().and_then(|seed| seed.parse().ok());
    // short enough to be typed
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64 % 1_000_000_007;
    given.unwrap_or_else(now)
}
