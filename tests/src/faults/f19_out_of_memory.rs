//! Functions that want more memory than they may have.

use super::{Arena, Fault, Tally, Trial, strange};

pub(super) const FAULT: Fault = Fault {
    number: 19,
    sentence: "functions that allocate 4 GB, at once and bit by bit",
    short: 1,
    full: 20,
    seconds: 40,
    run: |trial| Box::pin(run(trial)),
};

const CASES: [(&str, &str); 2] = [
    ("at once", "return len(bytearray(4 << 30))"),
    ("bit by bit", "all = []\nwhile True: all.append(bytearray(1 << 20))"),
];

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::of(&trial, strange::project(&CASES, "memory = 64")).await;
    let before = arena.node.process();
    strange::endure(&mut arena, &trial, &[("at once", "oom"), ("bit by bit", "oom")]).await;
    let same = arena.node.process() == before;
    arena.tally.must(same, || "the node is another one".to_owned());
    arena.check().await
}
