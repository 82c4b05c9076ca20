//! The log is lost, and an older one is put in its place: NATS and the functions know more than it.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Arena, Fault, Tally, Traffic, Trial, history::FOLLOWED, producer::JOURNAL, recorder::RECORD};

pub(super) const FAULT: Fault = Fault {
    number: 43,
    sentence: "the log restored from an older backup",
    short: 1,
    full: 20,
    seconds: 90,
    run: |trial| Box::pin(run(trial)),
};

/// What client and functions wrote, and the file that a target is.
const WITNESSES: [&str; 3] = [JOURNAL, RECORD, FOLLOWED];

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    let load = Traffic { slow: 50, largest: 10_000, ..Traffic::default() };
    for _ in 0..trial.cycles {
        arena.produce(&load);
        arena.accepted(40).await;
        arena.quiet().await;
        // some of it has ended, some runs, some waits
        arena.kill().await;
        let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as i64;
        let backup = arena.node.fnbus(&["backup", "copy.db", "--force"]).await;
        arena.tally.must(backup.code() == 0, || format!("no backup was made: {}", backup.all()));
        let lengths = WITNESSES.map(|name| length(&arena.node.path().join(name)));
        arena.restart().await;
        arena.produce(&load);
        arena.accepted(40).await;
        arena.finished(20).await;
        arena.quiet().await;
        arena.kill().await;
        restore(&arena.node.path().join("copy.db"), &arena.node.data());
        // what was accepted and done since is forgotten, by us as well: from now on it must neither run nor be in the log
        for (name, length) in WITNESSES.iter().zip(lengths) {
            cut(&arena.node.path().join(name), length);
        }
        arena.restored(killed);
        arena.restart().await;
        arena.produce(&load);
        // these get the numbers that others had before
        arena.accepted(40).await;
        arena.quiet().await;
        trial.passed();
    }
    arena.check().await
}

/// Puts a backup in the place of a log, as docs/operating.md says.
fn restore(backup: &Path, data: &Path) {
    for name in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = fs::remove_file(data.join(name));
    }
    fs::copy(backup, data.join("log.db")).unwrap();
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}

fn cut(path: &Path, length: u64) {
    if let Ok(file) = fs::File::options().write(true).open(path) {
        file.set_len(length).unwrap();
    }
}
