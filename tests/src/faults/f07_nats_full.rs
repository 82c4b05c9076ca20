//! JetStream has no room: deliveries wait in the log, and what needs no NATS goes on.

use super::{Arena, Fault, Tally, Traffic, Trial, recorder::RELEASED};
use crate::Nats;

pub(super) const FAULT: Fault = Fault {
    number: 7,
    sentence: "JetStream full (max_file_store: 8MB)",
    short: 1,
    full: 5,
    seconds: 90,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let nats = Nats::with("jetstream { max_file_store: 8MB }").await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
    for cycle in 0..trial.cycles {
        // each waits until it is released
        let body = format!(r#"{{"slow": 20000, "pad": "{}"}}"#, "x".repeat(300_000));
        let mut waiting = Vec::new();
        for _ in 0..50 {
            waiting.push(arena.node.accepted("/jobs", body.clone()).await);
        }
        arena.node.says_again("JetStream did not take deliveries", cycle + 1).await;
        arena.produce(&Traffic { rate: Some(40), largest: 1000, ..Traffic::default() });
        arena.accepted(20).await;
        arena.node.write(RELEASED, "");
        arena.quiet().await;
        for id in &waiting {
            arena.node.event_is(id, "done").await;
        }
        std::fs::remove_file(arena.node.path().join(RELEASED)).unwrap();
        arena.tally.events += waiting.len();
        trial.passed();
    }
    arena.check().await
}
