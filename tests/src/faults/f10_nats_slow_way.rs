//! The way to NATS is long, uneven and narrow.

use std::time::Duration;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::{Nats, Proxy, Way};

pub(super) const FAULT: Fault = Fault {
    number: 10,
    sentence: "latency, jitter and 64 kbit/s on the way to NATS",
    short: 1,
    full: 5,
    seconds: 300,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let nats = Nats::start(&["-js"]).await;
    let proxy = Proxy::to(nats.address()).await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&proxy.url())).await;
    for _ in 0..trial.cycles {
        proxy.is(Way { delay: Duration::from_millis(100), rate: 8_000, ..Way::default() });
        arena.produce(&Traffic { rate: Some(5), largest: 1000, ..Traffic::default() });
        arena.accepted(if trial.is_short() { 10 } else { 60 }).await;
        arena.quiet().await;
        proxy.is(Way::default());
        trial.passed();
    }
    arena.check().await
}
