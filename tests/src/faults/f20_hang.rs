//! Functions that do not end, and leave processes that hold their output open.

use std::time::Duration;

use super::{Arena, Fault, Tally, Trial, strange};
use crate::crowd::{left, noted};

pub(super) const FAULT: Fault = Fault {
    number: 20,
    sentence: "functions that hang, ignore SIGTERM, fork twice and hold stdout open",
    short: 1,
    full: 20,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

const GONE: Duration = Duration::from_secs(2);

const CASES: [(&str, &str); 2] = [
    (
        "ignore",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsession(); daemon(os.environ)\nnote()\ntime.sleep(1000)",
    ),
    ("leave", "session(); daemon(os.environ)\nnote()\nos._exit(1)"),
];

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::of(&trial, strange::project(&CASES, "timeout = '1s'")).await;
    strange::endure(&mut arena, &trial, &[("ignore", "timeout"), ("leave", "crash")]).await;
    // three of each attempt
    let all = noted(&arena.node, 6 * trial.cycles).await;
    let over = tokio::time::Instant::now() + GONE;
    while !left(&all).is_empty() && tokio::time::Instant::now() < over {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for process in all.iter().filter(|process| process.is_there()) {
        arena.tally.orphan(format!("process {} outlives its instance", process.pid));
    }
    arena.check().await
}
