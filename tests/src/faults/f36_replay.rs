//! What was logged is replayed while more comes, and the node is killed in the middle of it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Arena, Fault, Tally, Traffic, Trial, history::open};

pub(super) const FAULT: Fault = Fault {
    number: 36,
    sentence: "a replay under load, killed in the middle",
    short: 1,
    full: 20,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    // one half of what there is: the events of one path
    arena.produce(&Traffic { paths: &["/jobs", "/runs"], largest: 2000, ..Traffic::default() });
    arena.accepted(80).await;
    let until = chrono::Utc::now().to_rfc3339();
    let mut selected: Option<BTreeSet<i64>> = None;
    for _ in 0..trial.cycles {
        let arguments = ["replay", "--trigger", "jobs", "--until", &until, "--yes", "--json"];
        let created: Value = arena.node.json(&arguments).await.remove(0);
        let more = 1 + arena.dice.below(20) as usize;
        arena.accepted(more).await;
        arena.kill().await;
        arena.restart().await;
        let name = created["name"].as_str().unwrap_or_default().to_owned();
        let planned = created["plan"]["deliveries"].as_u64().unwrap_or_default() as usize;
        let made = events_of(&arena, &name);
        let distinct: BTreeSet<i64> = made.iter().copied().collect();
        arena.tally.must(made.len() == planned, || format!("{name} made {} of {planned} deliveries", made.len()));
        arena.tally.must(distinct.len() == made.len(), || format!("{name} has an event twice"));
        if let Some(before) = &selected {
            arena.tally.must(*before == distinct, || format!("{name} selected other events than the one before"));
        }
        selected = Some(distinct);
        trial.passed();
    }
    arena.check().await
}

/// The events a replay made deliveries of, in their order.
fn events_of(arena: &Arena, replay: &str) -> Vec<i64> {
    let log = open(&arena.node.data()).unwrap();
    let sql = "SELECT d.event FROM delivery d JOIN replay r ON r.seq = d.replay WHERE r.name = ?1 ORDER BY d.seq";
    let mut rows = log.prepare(sql).unwrap();
    rows.query_map([replay], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}
