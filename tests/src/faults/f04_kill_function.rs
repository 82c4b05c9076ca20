//! Instances are killed in the middle of what they do.

use rustix::process::{Pid, Signal, kill_process};

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 4,
    sentence: "kill -9 of functions in the middle of an execution",
    short: 1,
    full: 30,
    seconds: 30,
    run: |trial| Box::pin(run(trial)),
};

const KILLS: usize = 10;

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    arena.produce(&Traffic { rate: Some(60), slow: 50, failing: 0, ..Traffic::default() });
    for _ in 0..trial.cycles {
        for _ in 0..KILLS {
            arena.accepted(3).await;
            let instances =
                arena.node.processes().into_iter().filter(|process| process.command.contains("fnbus_runtime"));
            let instances: Vec<_> = instances.filter_map(|process| Pid::from_raw(process.pid)).collect();
            if !instances.is_empty() {
                let victim = instances[arena.dice.below(instances.len() as u64) as usize];
                // one that has just ended is no victim
                let _ = kill_process(victim, Signal::KILL);
            }
        }
        trial.passed();
    }
    let functions = arena.node.json(&["functions", "--json"]).await;
    let crashes: u64 = functions.iter().filter_map(|function| function["errors"].as_u64()).sum();
    arena.tally.must(crashes > 0, || "no kill met a function at work".to_owned());
    arena.check().await
}
