//! NATS is killed with -9 and comes back at once, after a while, after a minute.

use std::time::Duration;

use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Nats;

pub(super) const FAULT: Fault = Fault {
    number: 5,
    sentence: "kill -9 of NATS, back after 0, 5 and 60 s",
    short: 2,
    full: 12,
    seconds: 330,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut nats = Nats::start(&["-js"]).await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
    arena.produce(&Traffic { rate: Some(40), ..Traffic::default() });
    let away = if trial.is_short() { [0, 1, 0] } else { [0, 5, 60] };
    for cycle in 0..trial.cycles {
        arena.accepted(10).await;
        nats.kill();
        // accepting goes on meanwhile
        arena.accepted(5).await;
        sleep(Duration::from_secs(away[cycle % 3])).await;
        nats.restart();
        trial.passed();
    }
    arena.check().await
}
