//! After a kill, a bit in the write-ahead log is another one. What was confirmed behind it could not be read any more, so the
//! node must not start without a word; once the bit is right again it goes on.

use std::{fs, path::Path};

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 16,
    sentence: "a bit of the write-ahead log is flipped",
    short: 2,
    full: 60,
    seconds: 90,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    arena.produce(&Traffic::default());
    for _ in 0..trial.cycles {
        arena.accepted(20).await;
        arena.kill().await;
        let wal = arena.node.data().join("log.db-wal");
        let length = fs::metadata(&wal).map_or(0, |wal| wal.len());
        // in the last commit it could as well have been cut off
        let (at, bit) = (arena.dice.below(length / 2), arena.dice.below(8));
        flip(&wal, at as usize, bit);
        let started = arena.try_restart().await;
        arena
            .tally
            .must(started.is_err(), || format!("it started although bit {bit} of byte {at} of {length} was flipped"));
        if started.is_ok() {
            break;
        }
        let said = arena.node.said();
        arena.tally.must(said.contains("is damaged"), || "it did not say what is damaged".to_owned());
        flip(&wal, at as usize, bit);
        arena.restart().await;
        trial.passed();
    }
    arena.check().await
}

fn flip(path: &Path, at: usize, bit: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(path, bytes).unwrap();
}
