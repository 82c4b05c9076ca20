//! Functions that print without end.

use std::fs;

use super::{Arena, Fault, Tally, Trial, strange};

pub(super) const FAULT: Fault = Fault {
    number: 21,
    sentence: "functions that flood stdout: an endless line, invalid UTF-8, fifty thousand lines",
    short: 1,
    full: 10,
    seconds: 80,
    run: |trial| Box::pin(run(trial)),
};

const CASES: [(&str, &str); 3] = [
    ("line", "for _ in range(2000): os.write(1, b'x' * 65536)\nraise ValueError('said')"),
    ("bytes", "for _ in range(20): os.write(2, b'\\xff\\xfe\\n' * 20000)\nraise ValueError('said')"),
    ("lines", "for n in range(50000): print(n)\nraise ValueError('said')"),
];

/// More than the node may grow by, in KiB: the line alone is twice as long.
const MORE: u64 = 64 << 10;

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::of(&trial, strange::project(&CASES, "")).await;
    let before = most_memory(&arena);
    strange::endure(&mut arena, &trial, &CASES.map(|(name, _)| (name, "error"))).await;
    let grown = most_memory(&arena).saturating_sub(before);
    arena.tally.must(grown < MORE, || format!("the node grew by {grown} KiB"));
    arena.check().await
}

/// The most memory the node ever had, in KiB.
fn most_memory(arena: &Arena) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", arena.node.process().as_raw_nonzero())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
