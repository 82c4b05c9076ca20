//! NATS is killed, and what it stored is gone when it comes back.

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Nats;

pub(super) const FAULT: Fault = Fault {
    number: 6,
    sentence: "the store of NATS deleted while it is down",
    short: 2,
    full: 20,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut nats = Nats::start(&["-js"]).await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
    arena.produce(&Traffic { rate: Some(60), slow: 200, ..Traffic::default() });
    for _ in 0..trial.cycles {
        arena.accepted(20).await;
        nats.kill();
        nats.wipe();
        arena.accepted(5).await;
        nats.restart();
        trial.passed();
    }
    arena.check().await
}
