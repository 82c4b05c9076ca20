//! The data folder of a node is copied, and the copy is started beside it on the same NATS.

use std::fs;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::{Nats, Project};

pub(super) const FAULT: Fault = Fault {
    number: 44,
    sentence: "a copy of the node's data folder started beside it",
    short: 1,
    full: 15,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let nats = Nats::start(&["-js"]).await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
    arena.produce(&Traffic::default());
    for _ in 0..trial.cycles {
        arena.accepted(20).await;
        let backup = arena.node.fnbus(&["backup", "copy.db", "--force"]).await;
        arena.tally.must(backup.code() == 0, || format!("no backup was made: {}", backup.all()));
        // the same functions, which would write into the same record
        let copy = Project::new().whole_config(arena.node.project().toml()).variable("FNBUS_SECRET", "none");
        let copy = copy.file("recorder/app.py", super::recorder::CODE).argument("--nats").argument(&nats.url);
        fs::create_dir(copy.path().join(".fnbus")).unwrap();
        fs::copy(arena.node.path().join("copy.db"), copy.path().join(".fnbus/log.db")).unwrap();
        let refused = copy.fails_to_start().await;
        let said = refused.stderr.contains("already serves the namespace `fnbus`");
        arena.tally.must(refused.code() == 1 && said, || format!("the copy said {}", refused.all()));
        arena.finished(20).await;
        // nobody takes the place of a node that starts again at once
        arena.kill().await;
        arena.restart().await;
        trial.passed();
    }
    arena.check().await
}
