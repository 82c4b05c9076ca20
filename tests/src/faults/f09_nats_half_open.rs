//! The connection to NATS is there and carries nothing, in one direction or in both.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::{Nats, Proxy, Way};

pub(super) const FAULT: Fault = Fault {
    number: 9,
    sentence: "a half-open connection to NATS, one way or both",
    short: 2,
    full: 9,
    seconds: 200,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let nats = Nats::start(&["-js"]).await;
    let proxy = Proxy::to(nats.address()).await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&proxy.url())).await;
    arena.produce(&Traffic { rate: Some(40), ..Traffic::default() });
    for cycle in 0..trial.cycles {
        arena.accepted(20).await;
        proxy.is(Way { up_blocked: cycle % 3 != 0, down_blocked: cycle % 3 != 1, ..Way::default() });
        let blocked = Instant::now();
        if trial.is_short() {
            // too short to be noticed: what was held up comes late
            sleep(Duration::from_secs(1)).await;
        } else {
            arena.node.says_again("the connection to NATS is lost", cycle + 1).await;
            let after = blocked.elapsed();
            arena.tally.must(after < Duration::from_secs(20), || format!("it was noticed after {after:?}"));
        }
        arena.accepted(10).await;
        proxy.is(Way::default());
        trial.passed();
    }
    arena.check().await
}
