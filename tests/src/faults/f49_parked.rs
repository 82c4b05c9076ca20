//! Functions are stopped and come back while JetStream still remembers their messages.

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 49,
    sentence: "a function parked and restored within the duplicate window",
    short: 2,
    full: 30,
    seconds: 40,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    let toml = project.toml().to_owned();
    let mut arena = Arena::of(&trial, project).await;
    arena.produce(&Traffic { rate: Some(60), slow: 50, ..Traffic::default() });
    for _ in 0..trial.cycles {
        arena.accepted(10).await;
        arena.node.reconfigure(&toml.replace("concurrency = 2", "concurrency = 0")).await;
        arena.accepted(10).await;
        arena.node.reconfigure(&toml).await;
        trial.passed();
    }
    arena.check().await
}
