//! Code changes under load: a new version, one that does not load, the old one again; a function goes with its backlog
//! and comes back.

use super::{Arena, Fault, Tally, Traffic, Trial, history::open, recorder::CODE};
use crate::eventually;

pub(super) const FAULT: Fault = Fault {
    number: 25,
    sentence: "new code, broken code, old code; a function that goes with its backlog",
    short: 1,
    full: 25,
    seconds: 110,
    run: |trial| Box::pin(run(trial)),
};

const APP: &str = "recorder/app.py";

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    let toml = project.toml().to_owned();
    let mut arena = Arena::of(&trial, project).await;
    let first = arena.node.function_ready("work").await["version"].clone();
    arena.produce(&Traffic { slow: 20, paths: &["/jobs", "/runs"], ..Traffic::default() });
    // When the first version served nobody.
    let mut away: Vec<(i64, i64)> = Vec::new();
    for cycle in 0..trial.cycles {
        arena.accepted(10).await;
        arena.node.write(APP, &format!("{CODE}# {cycle}\n"));
        eventually("the new code serves", || async {
            (arena.node.function("work").await["version"] != first).then_some(())
        })
        .await;
        let gone = now();
        arena.finished(30).await;
        let said = arena.node.said().matches("was not changed").count();
        arena.node.write(APP, "def handler(event, context:\n");
        eventually("broken code is refused", || async {
            (arena.node.said().matches("was not changed").count() > said).then_some(())
        })
        .await;
        arena.finished(30).await;
        away.push((gone + HANDED_OVER, now()));
        arena.node.write(APP, CODE);
        eventually("the old code serves again", || async {
            (arena.node.function("work").await["version"] == first).then_some(())
        })
        .await;
        removed(&mut arena, &toml).await;
        trial.passed();
    }
    arena.heal().await;
    for (from, to) in away {
        let late = of_version(&arena, &first, from, to);
        arena.tally.must(late == 0, || format!("{late} attempts began on a version that was replaced before"));
    }
    arena.check().await
}

/// An instance that was leased before the new version came may begin so much later, in microseconds.
const HANDED_OVER: i64 = 500_000;

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// Attempts of `work` on a version that began in this time.
fn of_version(arena: &Arena, version: &serde_json::Value, from: i64, to: i64) -> usize {
    let sql = "SELECT count(*) FROM attempt a JOIN delivery d ON d.seq = a.id >> 12 \
               WHERE d.target = 'work' AND a.version = ?1 AND a.started BETWEEN ?2 AND ?3";
    let version = version.as_str().unwrap_or_default();
    open(&arena.node.data()).unwrap().query_row(sql, rusqlite::params![version, from, to], |row| row.get(0)).unwrap()
}

/// What waits for a function that is gone is parked and says why, what runs finishes; when it is back, all goes on.
async fn removed(arena: &mut Arena, toml: &str) {
    const BACKLOG: usize = 20;
    let mut waiting = Vec::new();
    for n in 0..BACKLOG {
        waiting.push(arena.node.accepted("/keyed", format!("{{\"key\": {n}, \"slow\": 100}}")).await);
    }
    let (before, rest) = toml.split_once("[functions.keyed]").unwrap();
    let (_, after) = rest.split_once("[pipelines.flow]").unwrap();
    let gone = format!("{before}[pipelines.flow]{}", after.split("[triggers.keyed]").next().unwrap());
    arena.node.reconfigure(&gone).await;
    let last = &waiting[BACKLOG - 1];
    let delivery = arena.node.show(last).await["deliveries"][0].clone();
    let reason = delivery["waits"].as_str().unwrap_or_default();
    let done = delivery["status"] == "done";
    arena.tally.must(done || !reason.is_empty(), || format!("what waits for what is gone does not say so: {delivery}"));
    arena.node.reconfigure(toml).await;
    for id in &waiting {
        arena.node.event_is(id, "done").await;
    }
}
