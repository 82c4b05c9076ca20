//! The disk of the data folder is full for a while, again and again. Nobody restarts the node.

use std::time::Duration;

use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::{Disk, eventually};

pub(super) const FAULT: Fault = Fault {
    number: 12,
    sentence: "the disk of the event log is full",
    short: 3,
    full: 60,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let disk = Disk::new();
    let mut arena = Arena::of(&trial, Arena::project().on_disk(&disk)).await;
    arena.produce(&Traffic::default());
    for _ in 0..trial.cycles {
        arena.accepted(15).await;
        let refused = arena.answers().refused;
        disk.is_full();
        eventually("an event is refused", || async { (arena.answers().refused > refused).then_some(()) }).await;
        // what runs meanwhile ends without a place for its outcome
        sleep(Duration::from_millis(arena.dice.below(800))).await;
        disk.is_fine();
        trial.passed();
    }
    arena.accepted(15).await;
    arena.check().await
}
