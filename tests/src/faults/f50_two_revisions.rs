//! Two revisions of the config take turns under load, so that both are always at work somewhere: each delivery goes
//! one way, that of the revision which decided on it.

use std::collections::HashMap;

use super::{Arena, Fault, Tally, Traffic, Trial, history::History};

pub(super) const FAULT: Fault = Fault {
    number: 50,
    sentence: "two revisions of the config at work at once",
    short: 3,
    full: 100,
    seconds: 30,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    let one = project.toml().to_owned();
    // another way, another environment: both a chain and a version
    let other = one.replace("then = 'follow'", "then = 'other'").replace("SECRET =", "REVISION = 'other', SECRET =");
    let second = "[functions.other]\nruntime = 'python'\ncode = 'recorder'\nconcurrency = 2\n";
    let keys = format!(
        "folders = {{ write = 'notes' }}\nenv = {{ RECORD = '{}' }}\n",
        project.path().join(super::recorder::RECORD).display()
    );
    let revisions = [one, other].map(|toml| format!("{toml}{second}{keys}"));
    let mut arena = Arena::of(&trial, project).await;
    arena.shape.recorded.push("other");
    arena.node.reconfigure(&revisions[0]).await;
    arena.produce(&Traffic { slow: 30, paths: &["/jobs", "/keyed"], ..Traffic::default() });
    for cycle in 0..trial.cycles {
        arena.finished(15).await;
        arena.node.reconfigure(&revisions[(cycle + 1) % 2]).await;
        trial.passed();
    }
    arena.finished(15).await;
    arena.heal().await;
    match History::read(arena.node.path(), &arena.node.data()) {
        Ok(history) => one_way(&mut arena.tally, &history),
        Err(error) => arena.tally.broken(format!("the log cannot be read: {error}")),
    }
    arena.check().await
}

/// Each output went to `follow` or to `other`, and never to both.
fn one_way(tally: &mut Tally, history: &History) {
    let mut ways: HashMap<i64, Vec<&str>> = HashMap::new();
    for delivery in &history.deliveries {
        if ["follow", "other"].contains(&&*delivery.target) {
            ways.entry(delivery.event).or_default().push(&delivery.target);
        }
    }
    for (event, ways) in &ways {
        if ways.len() != 1 {
            tally.doubled(format!("output {event} went both ways: {ways:?}"));
        }
    }
    let of = |target: &str| ways.values().filter(|ways| ways.contains(&target)).count();
    tally.must(of("follow") > 0 && of("other") > 0, || "only one revision was ever at work".to_owned());
}
