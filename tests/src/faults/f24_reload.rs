//! The config is edited under load: routes come and go, a function gets another name, the file is broken.

use std::time::{Duration, Instant};

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::eventually;

pub(super) const FAULT: Fault = Fault {
    number: 24,
    sentence: "edits of the config under as much load as there is",
    short: 1,
    full: 25,
    seconds: 150,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    let toml = project.toml().to_owned();
    let mut arena = Arena::of(&trial, project).await;
    arena.shape.recorded.push("renamed");
    arena.shape.ordered.push("renamed");
    // What still waits for the new name gets it once more.
    let both = toml.replace(
        "[functions.keyed]",
        "[functions.renamed]\nruntime = 'python'\ncode = 'recorder'\nKEYS\n[functions.keyed]",
    );
    let keys = format!(
        "folders = {{ write = 'notes' }}\nenv = {{ RECORD = '{}' }}",
        arena.node.path().join(super::recorder::RECORD).display()
    );
    let both = both.replace("KEYS", &keys);
    let load = Traffic { connections: 64, rate: None, keys: 100, largest: 500, ..Traffic::default() };
    let load = if trial.is_short() { Traffic::default() } else { load };
    let (mut accepted, mut took) = (0, Duration::ZERO);
    for cycle in 0..trial.cycles {
        arena.produce(&load);
        let began = Instant::now();
        arena.accepted(10).await;
        added(&mut arena, &toml, cycle).await;
        arena.accepted(10).await;
        // What waits for the old name is parked, what comes goes to the new one.
        let renamed =
            toml.replace("[functions.keyed]", "[functions.renamed]").replace("to = 'keyed'", "to = 'renamed'");
        arena.node.reconfigure(&renamed).await;
        arena.accepted(20).await;
        arena.node.reconfigure(&toml).await;
        broken(&mut arena, &toml, cycle).await;
        took += began.elapsed();
        accepted += arena.quiet().await.accepted;
        arena.node.reconfigure(&format!("{both}# {cycle}\n")).await;
        arena.drained().await;
        arena.node.reconfigure(&format!("{toml}# {cycle}\n")).await;
        trial.passed();
    }
    arena.tally.note(format!("{:.0} events/s were accepted meanwhile", accepted as f64 / took.as_secs_f64()));
    arena.check().await
}

/// A route comes and goes again.
async fn added(arena: &mut Arena, toml: &str, cycle: usize) {
    let path = format!("/extra{cycle}");
    let route = format!("[triggers.extra]\nhttp = 'POST {path}'\nmode = 'async'\npayload = 'body'\nto = 'work'\n");
    arena.node.reconfigure(&format!("{toml}{route}")).await;
    let there = arena.node.post(&path, "{}").await.status;
    arena.tally.must(there == 202, || format!("a route that was added answers {there}"));
    arena.node.reconfigure(toml).await;
    let gone = arena.node.post(&path, "{}").await.status;
    arena.tally.must(gone == 404, || format!("a route that was taken away answers {gone}"));
}

/// A file that does not read changes nothing.
async fn broken(arena: &mut Arena, toml: &str, cycle: usize) {
    const SAID: &str = "the one from before stays in force";
    let said = arena.node.said().matches(SAID).count();
    let wrong = ["[functions.work\n", "[nonsense]\nx = 1\n", "[triggers.bad]\nhttp = 'POST /bad'\nto = 'nobody'\n"];
    arena.node.configure(&format!("{toml}{}", wrong[cycle % wrong.len()]));
    eventually("the broken file is refused", || async {
        (arena.node.said().matches(SAID).count() > said).then_some(())
    })
    .await;
    arena.accepted(10).await;
    arena.node.reconfigure(&format!("{toml}# {cycle} \n")).await;
}
