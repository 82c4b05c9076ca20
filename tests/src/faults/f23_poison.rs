//! An event among good ones that ends its process at each attempt, and one that hangs until its time is over.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Arena, Fault, Tally, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 23,
    sentence: "an event that ends its process, or hangs, among good ones",
    short: 1,
    full: 3,
    run: |trial| Box::pin(run(trial)),
};

/// Events of one request.
const BATCH: usize = 500;

async fn run(trial: Trial) -> Tally {
    let table = "[functions.poisoned]\nruntime = 'python'\ncode = 'recorder'\nconcurrency = 4\ntimeout = '1s'\n\
                 retry = { attempts = 3, wait = '50ms' }\n";
    let trigger = "[triggers.poisoned]\nevent = { type = 'poisoned' }\npayload = 'body'\nto = 'poisoned'\n";
    let project = Arena::project();
    let record = project.path().join(super::recorder::RECORD).display().to_string();
    let config = format!("{table}env = {{ RECORD = '{record}' }}\n{trigger}");
    let mut arena = Arena::of(&trial, project.config(&config)).await;
    arena.shape.recorded.push("poisoned");
    arena.node.function_ready("poisoned").await;
    let good = if trial.is_short() { 500 } else { 10_000 };
    let (mut alone, mut beside) = (0.0, 0.0);
    for _ in 0..trial.cycles {
        alone += rate(&arena, good, &[]).await / trial.cycles as f64;
        beside += rate(&arena, good, &["exit", "hang"]).await / trial.cycles as f64;
        trial.passed();
    }
    arena.tally.note(format!("{alone:.0}/s without poison, {beside:.0}/s with it"));
    // the few of the short suite are over before the poison is, and say nothing of a rate
    if !trial.is_short() {
        arena.tally.must(beside >= 0.9 * alone, || format!("{beside:.0}/s with poison and {alone:.0}/s without"));
    }
    let letters = arena.node.json(&["dead", "list", "--json"]).await;
    arena.tally.must(letters.len() == 2 * trial.cycles, || format!("{} of the poison are dead letters", letters.len()));
    for letter in &letters {
        let whole = letter["reason"] == "attempts_exhausted" && letter["attempts"] == 3;
        arena.tally.must(whole, || format!("poison ended as {letter}"));
    }
    arena.check().await
}

/// Good events that are done a second while there is poison among them.
async fn rate(arena: &Arena, good: usize, poison: &[&str]) -> f64 {
    let done = arena.node.deliveries("done").await;
    let began = Instant::now();
    let bad = poison.iter().map(|what| json!({ "do": what }));
    let data: Vec<Value> = bad.chain((0..good).map(|n| json!({ "n": n }))).collect();
    for batch in data.chunks(BATCH) {
        let events: Vec<Value> = batch.iter().map(|data| json!({ "type": "poisoned", "data": data })).collect();
        let answer = arena.node.post("/events", json!(events).to_string()).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    arena.node.deliveries_are("done", done + good as u64).await;
    let took = began.elapsed();
    while arena.unended() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    good as f64 / took.as_secs_f64()
}
