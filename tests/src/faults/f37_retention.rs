//! A replay reads slowly what retention wants to remove, in a log that is over its size all the time.

use std::collections::HashMap;

use super::{
    Arena, Fault, Tally, Traffic, Trial,
    history::{History, delivery_of, open},
    recorder::{RECORD, executions},
};
use crate::eventually;

pub(super) const FAULT: Fault = Fault {
    number: 37,
    sentence: "retention removes all that has ended while replays read it",
    short: 1,
    full: 10,
    seconds: 90,
    run: |trial| Box::pin(run(trial)),
};

/// Events each replay selects at least.
const SELECTED: usize = 60;

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    let mut arena = Arena::of(&trial, project.config("[log]\nmax_size = '1MB'\n")).await;
    arena.shape.kept = false;
    let load = Traffic { paths: &["/jobs", "/keyed"], slow: 60, largest: 400_000, failing: 0, ..Traffic::default() };
    arena.produce(&load);
    let (mut made, mut removed) = (HashMap::new(), 0);
    for _ in 0..trial.cycles {
        let until = chrono::Utc::now().to_rfc3339();
        arena.accepted(SELECTED).await;
        let since = &until;
        let arguments = ["replay", "--trigger", "jobs", "--since", since, "--yes", "--json"];
        let created = arena.node.json(&arguments).await.remove(0);
        let name = created["name"].as_str().unwrap_or_default();
        let deliveries = deliveries_of(&arena, name);
        let planned = created["plan"]["deliveries"].as_u64().unwrap_or_default() as usize;
        arena.tally.must(deliveries.len() == planned, || format!("{name} made {} of {planned}", deliveries.len()));
        made.extend(deliveries);
        // what ended before it goes in the middle of it; retention takes a lot at once, and not in each of them
        let before = gone(&arena);
        eventually("retention removes events, or the replay has ended", || async {
            (gone(&arena) > before || has_ended(&arena, name)).then_some(())
        })
        .await;
        removed += gone(&arena) - before;
        trial.passed();
    }
    arena.tally.must(removed > 0 || trial.is_short(), || "retention removed nothing while replays read".to_owned());
    arena.heal().await;
    let ran = executions(&arena.node.read(RECORD));
    // the row of a delivery that was removed may be another one's now
    let mut replayed: HashMap<(i64, &str), usize> = HashMap::new();
    for ran in ran.iter().filter(|ran| ran.ended.is_some() && !ran.failed) {
        if let Some(delivery) = delivery_of(&ran.attempt) {
            *replayed.entry((delivery, ran.event.as_str())).or_default() += 1;
        }
    }
    for (delivery, event) in &made {
        match replayed.get(&(*delivery, event.as_str())) {
            Some(1) => {}
            Some(times) => arena.tally.doubled(format!("a replay of {event} ran {times} times")),
            None => arena.tally.lost(format!("a replay of {event} never ran")),
        }
    }
    // the log has forgotten them; those who did the work have not
    let done: std::collections::HashSet<&str> =
        ran.iter().filter(|ran| ran.ended.is_some() && !ran.failed).map(|ran| &*ran.event).collect();
    match History::read(arena.node.path(), &arena.node.data()) {
        Ok(history) => {
            for accepted in history.accepted.iter().filter(|accepted| !done.contains(&*accepted.id)) {
                arena.tally.lost(format!("{} ({}) was accepted and never ran", accepted.id, accepted.path));
            }
        }
        Err(error) => arena.tally.broken(format!("the log cannot be read: {error}")),
    }
    arena.tally.note(format!("{} deliveries replayed, {removed} events removed meanwhile", made.len()));
    arena.check().await
}

/// What a replay made: each delivery, and the id of its event.
fn deliveries_of(arena: &Arena, replay: &str) -> Vec<(i64, String)> {
    let log = open(&arena.node.data()).unwrap();
    let sql = "SELECT d.seq, e.id FROM delivery d JOIN replay r ON r.seq = d.replay JOIN event e ON e.seq = d.event \
               WHERE r.name = ?1";
    let mut rows = log.prepare(sql).unwrap();
    let made = rows.query_map([replay], |row| Ok((row.get(0)?, super::history::id(row, 1)?.unwrap_or_default())));
    made.unwrap().collect::<Result<_, _>>().unwrap()
}

/// Whether all that a replay made has ended.
fn has_ended(arena: &Arena, replay: &str) -> bool {
    let open_ones = "SELECT count(*) FROM delivery d JOIN replay r ON r.seq = d.replay \
                     WHERE r.name = ?1 AND d.ended IS NULL";
    open(&arena.node.data()).unwrap().query_row(open_ones, [replay], |row| row.get::<_, i64>(0)).unwrap() == 0
}

/// How many events the log had and has no more.
fn gone(arena: &Arena) -> i64 {
    let gone = "SELECT coalesce(max(seq), 0) - count(*) FROM event";
    open(&arena.node.data()).unwrap().query_row(gone, [], |row| row.get(0)).unwrap()
}
