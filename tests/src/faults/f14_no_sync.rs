//! The disk takes what is written and fails to sync it: the node has to end by itself, and what it said yes to has to be there.

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Disk;

pub(super) const FAULT: Fault = Fault {
    number: 14,
    sentence: "the disk of the event log cannot sync",
    short: 2,
    full: 40,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let disk = Disk::new();
    let mut arena = Arena::of(&trial, Arena::project().on_disk(&disk)).await;
    arena.produce(&Traffic::default());
    for _ in 0..trial.cycles {
        let more = 5 + arena.dice.below(30) as usize;
        arena.accepted(more).await;
        disk.cannot_sync();
        let status = arena.node.ended().await;
        arena.tally.must(status.code() == Some(1), || format!("the node ended with {status}"));
        arena.died().await;
        disk.is_fine();
        arena.restart().await;
        trial.passed();
    }
    arena.check().await
}
