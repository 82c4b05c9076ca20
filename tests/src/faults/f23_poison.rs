//! An event among good ones that ends its process at each attempt, and one that hangs until its time is over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Arena, Fault, Tally, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 23,
    sentence: "an event that ends its process, or hangs, among good ones",
    short: 1,
    full: 3,
    seconds: 40,
    run: |trial| Box::pin(run(trial)),
};

/// Milliseconds of events that are good and hold instances for as long as the three attempts of what hangs do.
const SLOW: [u64; 3] = [950; 3];
/// Events of one request.
const BATCH: usize = 500;

async fn run(trial: Trial) -> Tally {
    let table = "[functions.poisoned]\nruntime = 'python'\ncode = 'recorder'\nfolders = { write = 'notes' }\nconcurrency = 4\ntimeout = '1s'\n\
                 retry = { attempts = 3, wait = '50ms' }\n";
    let trigger = "[triggers.poisoned]\nevent = { type = 'poisoned' }\npayload = 'body'\nto = 'poisoned'\n";
    let project = Arena::project();
    let record = project.path().join(super::recorder::RECORD).display().to_string();
    let config = format!("{table}env = {{ RECORD = '{record}' }}\n{trigger}");
    let mut arena = Arena::of(&trial, project.config(&config)).await;
    arena.shape.recorded.push("poisoned");
    arena.node.function_ready("poisoned").await;
    let good = if trial.is_short() { 500 } else { 10_000 };
    let mut ratios = Vec::new();
    for _ in 0..trial.cycles {
        let beside_slow = rate(&mut arena, good, &SLOW.map(|ms| json!({ "slow": ms }))).await;
        let beside_poison = rate(&mut arena, good, &["exit", "hang"].map(|what| json!({ "do": what }))).await;
        arena.tally.note(format!("{beside_slow:.0}/s beside slow events, {beside_poison:.0}/s beside poison"));
        ratios.push(beside_poison / beside_slow);
        trial.passed();
    }
    // The few of the short suite are over before the poison is, and say nothing of a rate. A busy neighbour may spoil one
    // pair of measures; poison that is in the way spoils all of them.
    if !trial.is_short() {
        let best = ratios.iter().copied().fold(0.0, f64::max);
        arena.tally.must(best >= 0.9, || format!("beside poison others run at {best:.2} of their rate at best"));
    }
    let letters = arena.node.json(&["dead", "list", "--json"]).await;
    arena.tally.must(letters.len() == 2 * trial.cycles, || format!("{} of the poison are dead letters", letters.len()));
    for letter in &letters {
        let whole = letter["reason"] == "attempts_exhausted" && letter["attempts"] == 3;
        arena.tally.must(whole, || format!("poison ended as {letter}"));
    }
    arena.check().await
}

/// Good events that are done a second while these others are among them.
async fn rate(arena: &mut Arena, good: usize, others: &[Value]) -> f64 {
    let done = arena.node.deliveries("done").await;
    let began = Instant::now();
    let data: Vec<Value> = others.iter().cloned().chain((0..good).map(|n| json!({ "n": n }))).collect();
    for batch in data.chunks(BATCH) {
        let events: Vec<Value> = batch.iter().map(|data| json!({ "type": "poisoned", "data": data })).collect();
        let answer = arena.node.post("/events", json!(events).to_string()).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    while arena.node.deliveries("done").await < done + good as u64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = began.elapsed();
    while arena.unended() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    arena.tally.events += data.len();
    good as f64 / took.as_secs_f64()
}
