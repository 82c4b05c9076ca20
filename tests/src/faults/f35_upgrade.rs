//! A log of the first fnbus becomes one of this, and the node is killed after each step of that, or at any moment.

use std::{fs, io::Write as _, path::Path};

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Arena, Fault, Tally, Traffic, Trial,
    history::open,
    producer::{Accepted, JOURNAL, hash},
};

pub(super) const FAULT: Fault = Fault {
    number: 35,
    sentence: "the log of the first fnbus upgraded, with a kill after each step",
    short: 1,
    full: 10,
    seconds: 50,
    run: |trial| Box::pin(run(trial)),
};

/// The tables of the first fnbus.
const FIRST: &str = include_str!("../../../bus/src/log/schema/001.sql");
/// Every step from there to now, a file each.
const STEPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bus/src/log/schema");
/// What waits in the older log.
const WAITING: i64 = 50;

async fn run(trial: Trial) -> Tally {
    let mut tally = Tally::default();
    let newest = fs::read_dir(STEPS).unwrap().count() as i64;
    for _ in 0..trial.cycles {
        let project = Arena::project();
        let data = project.path().join(".fnbus");
        let ids = older_log(&data, project.path());
        let project = project.variable("FNBUS_FAILPOINTS", "schema.migrated=kill@1");
        for step in 2..=newest {
            let died = project.fails_to_start().await;
            let now = schema(&data);
            tally.must(died.status.code().is_none(), || format!("it was not killed: {}", died.all()));
            tally.must(now == step, || format!("after the step to schema {step} the log has schema {now}"));
        }
        let project = project.variable("FNBUS_FAILPOINTS", "");
        let mut arena = Arena::of(&trial, project).await;
        // whose function is not in the config any more
        arena.tally.must(ended(&data) == Some(ENDED), || "what had ended is not as it was".to_owned());
        arena.produce(&Traffic::default());
        arena.accepted(20).await;
        for id in &ids {
            arena.node.event_is(id, "done").await;
        }
        tally.add(arena.check().await);
        trial.passed();
    }
    tally
}

/// When the delivery ended that is done in the older log.
const ENDED: i64 = 1_700_000_000_000_000;

/// Makes the log of the first fnbus in `data`, with events that wait for `work` and stand in the journal of `folder`, and one
/// that is done; the ids of those that wait.
fn older_log(data: &Path, folder: &Path) -> Vec<String> {
    fs::create_dir_all(data).unwrap();
    let log = Connection::open(data.join("log.db")).unwrap();
    log.execute_batch("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL").unwrap();
    log.execute_batch(&format!("BEGIN; {FIRST} PRAGMA user_version = 1; COMMIT")).unwrap();
    log.execute("INSERT INTO identity (one, id) VALUES (1, ?1)", [Uuid::now_v7()]).unwrap();
    let mut journal = fs::File::create(folder.join(JOURNAL)).unwrap();
    let mut ids = Vec::new();
    for seq in 1..=WAITING + 1 {
        let (id, data) = (Uuid::now_v7(), format!("{{\"n\": {seq}}}"));
        let now = chrono::Utc::now();
        log.execute(
            "INSERT INTO event (seq, id, source, type, time, trigger, meta, data, hash, hop, received) \
             VALUES (?1, ?2, '/fnbus/jobs', 'http.request', ?3, 'jobs', '{}', ?4, ?5, 0, ?3)",
            params![seq, id, now.timestamp_micros(), data.as_bytes(), &Sha256::digest(&data)[..16]],
        )
        .unwrap();
        let (target, status, ended) = if seq > WAITING { ("gone", 10, Some(ENDED)) } else { ("work", 1, None) };
        log.execute(
            "INSERT INTO delivery (seq, born, event, target, trigger, format, generation, publication, status, ended) \
             VALUES (?1, ?2, ?1, ?3, 'jobs', 0, 0, 1, ?4, ?5)",
            params![seq, now.timestamp_millis() << 12, target, status, ended],
        )
        .unwrap();
        let line = Accepted { id: id.to_string(), hash: hash(data.as_bytes()), path: "/jobs".to_owned() };
        writeln!(journal, "{}", serde_json::to_string(&line).unwrap()).unwrap();
        ids.extend((status < 10).then(|| id.to_string()));
    }
    ids
}

fn schema(data: &Path) -> i64 {
    open(data).unwrap().pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn ended(data: &Path) -> Option<i64> {
    open(data).unwrap().query_row("SELECT ended FROM delivery WHERE target = 'gone'", [], |row| row.get(0)).unwrap()
}
