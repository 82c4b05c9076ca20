//! NATS is killed and loses the end of its last block, as after a power cut: the same stream, and less in it.

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Nats;

pub(super) const FAULT: Fault = Fault {
    number: 41,
    sentence: "the stream's tail cut off while NATS is down",
    short: 2,
    full: 20,
    seconds: 50,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut nats = Nats::start(&["-js"]).await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
    arena.produce(&Traffic { rate: Some(60), slow: 200, largest: 10_000, ..Traffic::default() });
    for _ in 0..trial.cycles {
        arena.accepted(30).await;
        nats.kill();
        nats.cut("FNBUS_DELIVER");
        // some of it is published behind the end that was lost
        arena.accepted(30).await;
        nats.restart();
        trial.passed();
    }
    arena.check().await
}
