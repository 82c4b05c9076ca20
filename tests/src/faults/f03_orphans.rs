//! The node, or the process above it, is killed while functions have processes in every corner.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::{
    Process,
    crowd::{CODE, NOTES, TEN, left, noted},
};

pub(super) const FAULT: Fault = Fault {
    number: 3,
    sentence: "kill -9 of the node, then of its warden, with 50 processes that functions forked",
    short: 1,
    full: 10,
    seconds: 70,
    run: |trial| Box::pin(run(trial)),
};

const GONE: Duration = Duration::from_secs(2);
/// When this file is there the crowd ends.
const ENOUGH: &str = "enough";

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    let path = |name: &str| project.path().join(name).display().to_string();
    let keys =
        format!("concurrency = 5\ntimeout = '10m'\nenv = {{ NOTES = '{}', ENOUGH = '{}' }}", path(NOTES), path(ENOUGH));
    let code = format!(
        "{CODE}def handler(event, context):\n    if os.path.exists(os.environ['ENOUGH']): return 'enough'\n{TEN}"
    );
    let project = project
        .function_with("crowd", &code, &keys)
        .config("[triggers.crowd]\nhttp = 'POST /crowd'\nmode = 'async'\nto = 'crowd'\n");
    let mut arena = Arena::of(&trial, project).await;
    arena.produce(&Traffic::default());
    for cycle in 1..=trial.cycles {
        for above in [false, true] {
            // what was killed comes back, but later each time
            for _ in 0..5 {
                arena.node.accepted("/crowd", "").await;
            }
            let mut all = noted(&arena.node, 50).await;
            all.push(arena.node.nats_server().await);
            all.push(Process::of_id(arena.node.process().as_raw_nonzero().get()));
            if above {
                arena.node.kill_warden();
            } else {
                arena.node.kill();
            }
            are_gone(&mut arena, &all).await;
            arena.died().await;
            arena.node.write(NOTES, "");
            if above && cycle == trial.cycles {
                arena.node.write(ENOUGH, "");
            }
            arena.restart().await;
        }
        trial.passed();
    }
    arena.check().await
}

/// Counts whoever is there after two seconds, with and without a mark of its node.
async fn are_gone(arena: &mut Arena, all: &[Process]) {
    let deadline = Instant::now() + GONE;
    while !left(all).is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(10)).await;
    }
    for process in all.iter().filter(|process| process.is_there()) {
        arena.tally.orphan(format!("process {} is left", process.pid));
        process.kill();
    }
}
