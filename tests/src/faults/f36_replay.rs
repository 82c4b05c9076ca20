//! What was logged is replayed while more comes: first live events are timed with a replay beside them and without, then the
//! node is killed in the middle of replays.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;
use tokio::time::sleep;

use super::{Arena, Fault, Tally, Traffic, Trial, history::open};

pub(super) const FAULT: Fault = Fault {
    number: 36,
    sentence: "a replay beside live events, killed in the middle",
    short: 1,
    full: 20,
    seconds: 80,
    run: |trial| Box::pin(run(trial)),
};

/// Live events wait at most so many times longer beside a replay, by their slowest hundredth.
const SLOWER: f64 = 2.0;
/// Milliseconds that a busy machine adds to anything.
const NOISE: f64 = 100.0;
/// How often it is timed before it counts: a machine that stalls for a moment does so in one of both.
const TIMES: usize = 3;

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    for name in ["work", "follow", "keyed", "step"] {
        arena.node.function_ready(name).await;
    }
    let events = if trial.is_short() { 40 } else { 500 };
    for time in 1..=TIMES {
        let (alone, beside) = timed(&mut arena, events).await;
        if beside <= SLOWER * alone + NOISE {
            break;
        }
        arena.tally.must(time < TIMES, || {
            format!("a replay makes live events wait: p99 {beside:.0} ms, and {alone:.0} ms without one, {TIMES} times")
        });
    }
    // one half of what comes now: the events of one path
    let since = chrono::Utc::now().to_rfc3339();
    arena.produce(&Traffic { paths: &["/jobs", "/runs"], largest: 2000, ..Traffic::default() });
    arena.accepted(80).await;
    let until = chrono::Utc::now().to_rfc3339();
    let mut selected: Option<BTreeSet<i64>> = None;
    for _ in 0..trial.cycles {
        let created = replay(&arena, &since, &until).await;
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

async fn replay(arena: &Arena, since: &str, until: &str) -> Value {
    let arguments = ["replay", "--trigger", "jobs", "--since", since, "--until", until, "--yes", "--json"];
    arena.node.json(&arguments).await.remove(0)
}

/// Times live events of a function without a replay and beside one after the other: milliseconds of both.
async fn timed(arena: &mut Arena, events: usize) -> (f64, f64) {
    let past = Traffic { paths: &["/jobs"], slow: 20, failing: 0, largest: 2000, ..Traffic::default() };
    let since = chrono::Utc::now().to_rfc3339();
    arena.produce(&past);
    arena.accepted(events).await;
    arena.heal().await;
    let until = chrono::Utc::now().to_rfc3339();
    let live = Traffic { paths: &["/keyed", "/jobs"], keys: 1000, rate: Some(60), ..past };
    arena.produce(&live);
    // all instances are there when it is timed
    arena.accepted(events / 4).await;
    let from = now();
    arena.accepted(events).await;
    let [alone, same_alone] = ["keyed", "work"].map(|target| slowest(arena, target, from, now()));
    let from = now();
    let wanted = arena.answers().accepted + events;
    let mut replays = 0;
    while arena.answers().accepted < wanted {
        if replayed(arena) == 0 {
            replay(arena, &since, &until).await;
            replays += 1;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let [beside, same_beside] = ["keyed", "work"].map(|target| slowest(arena, target, from, now()));
    arena.heal().await;
    arena.tally.note(format!(
        "p99 of live events {alone:.0} ms, beside {replays} replays of {events} events each {beside:.0} ms; of the function that \
         is replayed to, whose turns come in order, {same_alone:.0} and {same_beside:.0} ms"
    ));
    (alone, beside)
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_micros()
}

/// Milliseconds that 99 of 100 live events took at most, of those that came in this time.
fn slowest(arena: &Arena, target: &str, from: i64, to: i64) -> f64 {
    let log = open(&arena.node.data()).unwrap();
    let sql = "SELECT coalesce(d.ended, ?3) - e.received FROM delivery d JOIN event e ON e.seq = d.event \
               WHERE d.target = ?1 AND d.replay IS NULL AND e.received BETWEEN ?2 AND ?3 ORDER BY 1";
    let mut rows = log.prepare(sql).unwrap();
    let took: Vec<i64> = rows
        .query_map(rusqlite::params![target, from, to], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    took.get(took.len() * 99 / 100).map_or(0.0, |micros| *micros as f64 / 1000.0)
}

/// Deliveries of replays that have not ended.
fn replayed(arena: &Arena) -> usize {
    let sql = "SELECT count(*) FROM delivery WHERE replay IS NOT NULL AND status < 10";
    open(&arena.node.data()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The events a replay made deliveries of, in their order.
fn events_of(arena: &Arena, replay: &str) -> Vec<i64> {
    let log = open(&arena.node.data()).unwrap();
    let sql = "SELECT d.event FROM delivery d JOIN replay r ON r.seq = d.replay WHERE r.name = ?1 ORDER BY d.seq";
    let mut rows = log.prepare(sql).unwrap();
    rows.query_map([replay], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}
