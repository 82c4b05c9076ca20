//! A log of an older fnbus becomes one of this, with everything in it, also when that is cut off in the middle.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{fs, path::Path};

use fnbus_tests::Project;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The tables of the first fnbus.
const FIRST: &str = include_str!("../../bus/src/log/schema/001.sql");

/// Makes the log of the first fnbus, with so many events that wait for `note` and one that is done; the ids of those that
/// wait.
fn old_log(data: &Path, waiting: i64) -> Vec<String> {
    fs::create_dir_all(data).unwrap();
    let log = Connection::open(data.join("log.db")).unwrap();
    log.execute_batch("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL").unwrap();
    log.execute_batch(&format!("BEGIN; {FIRST} PRAGMA user_version = 1; COMMIT")).unwrap();
    log.execute("INSERT INTO identity (one, id) VALUES (1, ?1)", [Uuid::now_v7()]).unwrap();
    let mut ids = Vec::new();
    for seq in 1..=waiting + 1 {
        let (id, data) = (Uuid::now_v7(), seq.to_string());
        let now = chrono::Utc::now();
        log.execute(
            "INSERT INTO event (seq, id, source, type, time, trigger, meta, data, hash, hop, received) \
             VALUES (?1, ?2, '/fnbus/jobs', 'http.request', ?3, 'jobs', '{}', ?4, ?5, 0, ?3)",
            params![seq, id, now.timestamp_micros(), data.as_bytes(), &Sha256::digest(&data)[..16]],
        )
        .unwrap();
        let status = if seq > waiting { 10 } else { 1 };
        log.execute(
            "INSERT INTO delivery (seq, born, event, target, trigger, format, generation, publication, status, ended) \
             VALUES (?1, ?2, ?1, 'note', 'jobs', 0, 0, 1, ?3, nullif(?4, 0))",
            params![seq, now.timestamp_millis() << 12, status, if status == 10 { now.timestamp_micros() } else { 0 }],
        )
        .unwrap();
        ids.extend((seq <= waiting).then(|| id.to_string()));
    }
    ids
}

fn schema(data: &Path) -> i64 {
    let log = Connection::open(data.join("log.db")).unwrap();
    log.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

fn project() -> Project {
    let code = "import os\n\ndef handler(event, context):\n    \
                fd = os.open(os.environ['RUNS'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n    \
                os.write(fd, f'{context.event_id} {event}\\n'.encode())\n";
    let project = Project::new();
    let runs = project.path().join("runs").display().to_string();
    project.function_with("note", code, &format!("env = {{ RUNS = '{runs}' }}"))
}

#[tokio::test]
async fn what_waits_in_an_older_log_ends_and_what_ended_stays_so() {
    let project = project();
    let ids = old_log(&project.path().join(".fnbus"), 20);
    let node = project.start().await;
    node.deliveries_are("done", 21).await;
    let runs = node.read("runs");
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(runs.matches(&format!("{id} {}\n", n + 1)).count(), 1, "{runs}");
    }
    assert_eq!(runs.lines().count(), 20);
    assert!(node.said().contains("the event log is brought from schema 1 to"), "{}", node.said());
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn an_upgrade_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let project = project().variable("FNBUS_FAILPOINTS", "schema.migrated=kill@1");
    let data = project.path().join(".fnbus");
    old_log(&data, 5);
    let killed = project.fails_to_start().await;
    assert_eq!(killed.status.code(), None, "{}", killed.all());
    assert_eq!(schema(&data), 2, "one step is done, whole");
    let project = project.variable("FNBUS_FAILPOINTS", "");
    let node = project.start().await;
    node.deliveries_are("done", 6).await;
    assert_eq!(node.read("runs").lines().count(), 5);
}
