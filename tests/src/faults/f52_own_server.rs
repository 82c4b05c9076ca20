//! The nats-server of our own ends again and again, and does not end when it is told to.

use rustix::process::Signal;

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 52,
    sentence: "our own nats-server crash-loops, or is slow to stop",
    short: 1,
    full: 10,
    seconds: 120,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    arena.produce(&Traffic { rate: Some(40), ..Traffic::default() });
    for _ in 0..trial.cycles {
        for _ in 0..3 {
            arena.accepted(5).await;
            arena.node.nats_server().await.kill();
        }
        arena.accepted(5).await;
        arena.quiet().await;
        arena.node.nats_server().await.signal(Signal::STOP);
        let begun = std::time::Instant::now();
        let status = arena.node.stop().await;
        let took = begun.elapsed().as_secs();
        arena.tally.must(status.success() && took < 15, || format!("it ended with {status} after {took} s"));
        arena.restart().await;
        arena.produce(&Traffic { rate: Some(40), ..Traffic::default() });
        trial.passed();
    }
    arena.check().await
}
