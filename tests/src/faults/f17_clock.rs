//! The wall clock of the node is set while it works: an hour ahead, an hour back, past 2038.

use std::collections::BTreeSet;

use super::{
    Arena, Fault, Tally, Traffic, Trial,
    history::open,
    recorder::{RECORD, executions},
};
use crate::{Disk, eventually};

pub(super) const FAULT: Fault = Fault {
    number: 17,
    sentence: "the clock set an hour ahead, an hour back and past 2038",
    short: 1,
    full: 10,
    seconds: 110,
    run: |trial| Box::pin(run(trial)),
};

const HOUR: i64 = 3600;
const AFTER_2038: i64 = 13 * 365 * 24 * HOUR;

async fn run(trial: Trial) -> Tally {
    let disk = Disk::new();
    let project = Arena::project();
    let recorder = |name: &str, wait: &str| {
        let record = project.path().join(RECORD).display().to_string();
        format!(
            "[functions.{name}]\nruntime = 'python'\ncode = 'recorder'\nfolders = {{ write = 'notes' }}\nenv = {{ RECORD = '{record}' }}\n\
             retry = {{ attempts = 3, wait = '{wait}' }}\n"
        )
    };
    let config = [
        recorder("tick", "1s"),
        recorder("patient", "2s"),
        "[triggers.tick]\ncron = '* * * * *'\npayload = 'body'\nto = 'tick'\n".to_owned(),
        "[triggers.patient]\nhttp = 'POST /patient'\nmode = 'async'\npayload = 'body'\nto = 'patient'\n".to_owned(),
        // nothing is old enough to go, whatever year it is
        "[log]\nkeep = '36500d'\nkeep_dead = '36500d'\n".to_owned(),
    ];
    let mut arena = Arena::of(&trial, project.config(&config.concat()).on_disk(&disk)).await;
    arena.shape.recorded.extend(["tick", "patient"]);
    arena.shape.one_clock = false;
    for name in ["tick", "patient"] {
        arena.node.function_ready(name).await;
    }
    arena.produce(&Traffic { slow: 50, largest: 2000, ..Traffic::default() });
    for cycle in 0..trial.cycles as i64 {
        let ticks = ticks(&arena).len();
        // a little further each time: what was taken once is not taken again
        disk.clock_is_ahead(HOUR + 120 * cycle);
        eventually("the last of the times that were leapt over is taken", || async {
            (self::ticks(&arena).len() > ticks).then_some(())
        })
        .await;
        arena.finished(20).await;
        for &ahead in if trial.is_short() { &[-HOUR][..] } else { &[0, -HOUR] } {
            // a retry must not wait for that hour to pass again
            let id = arena.node.accepted("/patient", r#"{"fail": 1}"#).await;
            arena.node.event_is(&id, "retrying").await;
            disk.clock_is_ahead(ahead);
            arena.finished(20).await;
            arena.node.event_is(&id, "done").await;
        }
        disk.clock_is_ahead(0);
        arena.finished(20).await;
        trial.passed();
    }
    let given_up = count(&arena, "delivery WHERE status > 10");
    // what waits for another attempt is too old after such a leap: see `retry.max_age`
    disk.clock_is_ahead(AFTER_2038);
    arena.finished(20).await;
    let late = arena.node.accepted("/patient", r#"{"fail": 1}"#).await;
    arena.node.event_is(&late, "retrying").await;
    disk.clock_is_ahead(0);
    arena.node.event_is(&late, "done").await;
    arena.finished(20).await;
    arena.heal().await;
    let ticks = ticks(&arena);
    let slots: BTreeSet<&String> = ticks.iter().collect();
    arena.tally.must(slots.len() == ticks.len(), || format!("of {ticks:?} some ran twice"));
    let cut = count(&arena, "attempt WHERE outcome IN ('timeout', 'lost')");
    let again = count(&arena, "(SELECT 1 FROM attempt WHERE outcome = 'ok' GROUP BY id >> 12 HAVING count(*) > 1)");
    arena.tally.must(given_up == 0, || format!("{given_up} deliveries were given up for an hour"));
    arena.tally.must(cut == 0, || format!("{cut} attempts ran out of time or their lease when the clock was set"));
    if again > 0 {
        arena.tally.doubled(format!("{again} deliveries were done more than once"));
    }
    arena.check().await
}

/// The times that ran, by their events.
fn ticks(arena: &Arena) -> Vec<String> {
    let ran = executions(&arena.node.read(RECORD)).into_iter();
    ran.filter(|ran| ran.function == "tick").map(|ran| ran.event).collect()
}

fn count(arena: &Arena, what: &str) -> usize {
    let log = open(&arena.node.data()).unwrap();
    log.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get(0)).unwrap()
}
