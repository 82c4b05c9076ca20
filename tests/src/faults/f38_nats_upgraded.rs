//! NATS is replaced by a newer version with what the older one stored.

use std::{path::PathBuf, process::Command};

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Nats;

pub(super) const FAULT: Fault = Fault {
    number: 38,
    sentence: "NATS upgraded from 2.10 with its data",
    // the older version is fetched for it
    short: 0,
    full: 2,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let newer = Nats::program_of_tests();
    let Some(older) = older() else {
        let mut tally = Tally::default();
        tally.broken("no older nats-server could be fetched: sh tools/nats-server.sh target/tools old");
        return tally;
    };
    let mut tally = Tally::default();
    for _ in 0..trial.cycles {
        let mut nats = Nats::of(&older, &["-js"]).await;
        let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
        arena.produce(&Traffic { rate: Some(60), slow: 100, ..Traffic::default() });
        arena.accepted(100).await;
        nats.kill();
        nats.program(&newer);
        nats.restart();
        arena.accepted(100).await;
        tally.add(arena.check().await);
        trial.passed();
    }
    tally
}

/// An older server, beside the one that is fetched for the tests.
fn older() -> Option<PathBuf> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let tools = crate::project::binary().parent()?.parent()?.join("tools");
    let script = Command::new("sh").arg(root.join("tools/nats-server.sh")).arg(tools).arg("old").output().ok()?;
    let path = String::from_utf8(script.stdout).ok()?;
    script.status.success().then(|| path.trim().into())
}
