//! The node is stopped by SIGSTOP past its leases and past what JetStream waits, while functions go on.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 47,
    sentence: "SIGSTOP of the node past its leases",
    short: 1,
    full: 5,
    seconds: 200,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    for _ in 0..trial.cycles {
        arena.produce(&Traffic { rate: Some(40), slow: 500, ..Traffic::default() });
        arena.accepted(20).await;
        let node = arena.node.serving().await;
        node.signal(Signal::STOP);
        sleep(Duration::from_secs(if trial.is_short() { 2 } else { 40 })).await;
        node.signal(Signal::CONT);
        arena.accepted(20).await;
        arena.quiet().await;
        trial.passed();
    }
    arena.check().await
}
