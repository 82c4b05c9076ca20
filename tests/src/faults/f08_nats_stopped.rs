//! NATS is stopped by SIGSTOP past what it waits for acknowledgements: it says nothing, and is there again.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Nats;

pub(super) const FAULT: Fault = Fault {
    number: 8,
    sentence: "SIGSTOP of NATS for 30 s",
    short: 1,
    full: 6,
    seconds: 330,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let nats = Nats::start(&["-js"]).await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
    arena.produce(&Traffic { rate: Some(40), slow: 100, ..Traffic::default() });
    for _ in 0..trial.cycles {
        arena.accepted(20).await;
        nats.signal(Signal::STOP);
        sleep(Duration::from_secs(if trial.is_short() { 2 } else { 30 })).await;
        arena.accepted(10).await;
        nats.signal(Signal::CONT);
        trial.passed();
    }
    arena.check().await
}
