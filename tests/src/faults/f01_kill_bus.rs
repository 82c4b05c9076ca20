//! The node is killed with -9 at any moment, while it serves and while it starts.

use std::time::Duration;

use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 1,
    sentence: "kill -9 of the node at any moment",
    short: 6,
    full: 200,
    seconds: 260,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    arena.produce(&Traffic { rate: Some(400), connections: 4, ..Traffic::default() });
    for _ in 0..trial.cycles {
        // The moment is what is tested here, so time is what it waits for.
        sleep(Duration::from_millis(5 + arena.dice.below(496))).await;
        arena.kill().await;
        if arena.dice.percent(25) {
            arena.node.launch();
            sleep(Duration::from_millis(arena.dice.below(400))).await;
            arena.kill().await;
        }
        arena.restart().await;
        trial.passed();
    }
    arena.check().await
}
