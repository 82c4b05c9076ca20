//! The power is cut: the node is gone, and of the event log everything that was not synced.

use std::time::Duration;

use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Disk;

pub(super) const FAULT: Fault = Fault {
    number: 15,
    sentence: "a power cut takes what was not synced",
    short: 4,
    full: 100,
    seconds: 80,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let disk = Disk::new();
    let mut arena = Arena::of(&trial, Arena::project().on_disk(&disk)).await;
    arena.produce(&Traffic::default());
    for _ in 0..trial.cycles {
        // The moment is what is tested here, so time is what it waits for.
        sleep(Duration::from_millis(5 + arena.dice.below(496))).await;
        disk.cut_power(&arena.node);
        arena.died().await;
        arena.restart().await;
        trial.passed();
    }
    arena.check().await
}
