//! Backups of a log that is used, and nodes that go on from one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use fnbus_tests::{Node, Output, Project};
use futures_util::future::join_all;
use rusqlite::Connection;
use serde_json::Value;

/// Waits for a file before it goes on, so that a test decides when deliveries end.
const CODE: &str = "import os, time\n\ndef handler(event, context):\n    \
                    while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n";

const TRIGGER: &str = "[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'wait'\n";

fn waiting() -> Project {
    let project = Project::new();
    let go = project.path().join("go").display().to_string();
    project.function_with("wait", CODE, &format!("env = {{ GO = '{go}' }}")).config(TRIGGER)
}

/// Posts so many jobs at once; their ids.
async fn post(node: &Node, jobs: usize) -> BTreeSet<String> {
    join_all((0..jobs).map(|n| node.accepted("/jobs", n.to_string()))).await.into_iter().collect()
}

/// The ids of the events in a log.
fn events(log: &Path) -> BTreeSet<String> {
    let log = Connection::open(log).unwrap();
    let mut ids = log.prepare("SELECT id FROM event").unwrap();
    ids.query_map([], |row| row.get::<_, uuid::Uuid>(0)).unwrap().map(|id| id.unwrap().to_string()).collect()
}

/// Puts a backup in the place of the log of a project that does not run; what was said.
fn restore(project: &Project, backup: &Path) -> Output {
    let output: Output = project.command(&["restore", backup.to_str().unwrap(), "--json"]).output().unwrap().into();
    assert_eq!(output.code(), 0, "{}", output.all());
    output
}

#[tokio::test]
async fn a_backup_under_load_is_whole_and_a_node_goes_on_from_it() {
    let node = waiting().start().await;
    let before = post(&node, 30).await;
    let (load, backup) = tokio::join!(post(&node, 200), node.json(&["backup", "copy.db", "--json"]));
    let copy = node.path().join("copy.db");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    let copied = events(&copy);
    assert!(copied.is_superset(&before), "what was accepted before is in it");
    assert!(before.union(&load).cloned().collect::<BTreeSet<_>>().is_superset(&copied));
    assert_eq!(backup[0]["events"], copied.len());
    assert_eq!(backup[0]["unended"], copied.len());
    let left: Vec<_> = fs::read_dir(node.path()).unwrap().flatten().map(|file| file.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
    // a new place, the same config
    let restored = waiting();
    fs::write(restored.path().join("fnbus.toml"), restored.toml()).unwrap();
    let said = restore(&restored, &copy).lines().remove(0);
    assert_eq!((&said["events"], &said["kept"]), (&copied.len().into(), &Value::Null));
    let restored = restored.start().await;
    restored.write("go", "");
    restored.deliveries_are("done", copied.len() as u64).await;
    let after = restored.accepted("/jobs", "{}").await;
    restored.event_is(&after, "done").await;
}

#[tokio::test]
async fn a_node_that_is_down_is_backed_up_too_and_nothing_is_overwritten_unasked() {
    let node = waiting().start().await;
    let ids = post(&node, 3).await;
    node.kill();
    let backup = node.fnbus(&["backup", "copy.db"]).await;
    assert_eq!(backup.code(), 0, "{}", backup.all());
    assert!(backup.stdout.contains("3 events, 3 deliveries unended"), "{}", backup.stdout);
    assert_eq!(events(&node.path().join("copy.db")), ids);
    node.write("copy.db", "mine");
    let refused = node.fnbus(&["backup", "copy.db"]).await;
    assert_eq!(refused.code(), 1);
    assert!(
        refused.stderr.contains("copy.db exists already") && refused.stderr.contains("--force"),
        "{}",
        refused.all()
    );
    assert_eq!(node.read("copy.db"), "mine");
    assert_eq!(node.fnbus(&["backup", "copy.db", "--force"]).await.code(), 0);
    assert_eq!(events(&node.path().join("copy.db")), ids);
    let itself = node.fnbus(&["backup", ".fnbus/log.db", "--force"]).await;
    assert!(itself.stderr.contains("is the event log itself"), "{}", itself.all());
}

#[tokio::test]
async fn a_backup_of_nothing_or_to_nowhere_says_so() {
    let project = Project::new();
    let nothing = project.command(&["backup", "copy.db", "--data", "nowhere"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(1));
    let said = String::from_utf8(nothing.stderr).unwrap();
    assert!(said.contains("there is no event log at") && said.contains("--data DIR"), "{said}");
    let node = project.start().await;
    let nowhere = node.fnbus(&["backup", "no/such/folder/copy.db"]).await;
    assert_eq!(nowhere.code(), 1);
    assert!(nowhere.stderr.contains("there is no folder no/such/folder"), "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains("mkdir -p"), "{}", nowhere.stderr);
}

#[tokio::test]
async fn a_restore_of_what_is_no_good_backup_or_onto_a_node_that_runs_changes_nothing_and_says_what_to_do() {
    let mut node = waiting().start().await;
    let ids = post(&node, 2).await;
    assert_eq!(node.fnbus(&["backup", "copy.db"]).await.code(), 0);
    let runs = node.fnbus(&["restore", "copy.db"]).await;
    assert!(runs.code() == 1 && runs.stderr.contains("stop that node first"), "{}", runs.all());
    node.kill();
    node.write("torn.db", "no database at all");
    let newer = node.path().join("newer.db");
    fs::copy(node.path().join("copy.db"), &newer).unwrap();
    Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    for (file, says) in [
        ("nothing.db", "there is no event log at nothing.db"),
        ("torn.db", "torn.db is no event log"),
        ("newer.db", "written by a newer fnbus"),
        (".fnbus/log.db", "is the event log itself"),
    ] {
        let refused = node.fnbus(&["restore", file]).await;
        assert!(refused.code() == 1 && refused.stderr.contains(says), "{file}: {}", refused.all());
    }
    let left = fs::read_dir(node.data()).unwrap().flatten().map(|file| file.file_name().into_string().unwrap());
    let left: Vec<_> = left.filter(|name| name.starts_with("log")).collect();
    assert!(left.iter().all(|name| ["log.db", "log.db-wal", "log.db-shm"].contains(&name.as_str())), "{left:?}");
    node.restart().await;
    assert_eq!(events(&node.data().join("log.db")), ids);
    let later = post(&node, 3).await;
    node.kill();
    assert!(node.data().join("log.db-wal").exists());
    let said = node.fnbus(&["restore", "copy.db"]).await;
    assert!(said.stdout.contains("2 events, 2 deliveries unended, from copy.db"), "{}", said.all());
    assert!(!node.data().join("log.db-wal").exists());
    let kept = said.stderr.lines().find_map(|line| line.strip_prefix("the log that was there is kept as "));
    assert!(events(Path::new(kept.unwrap())).is_superset(&later), "with what was in its write-ahead log");
    node.restart().await;
    assert_eq!(events(&node.data().join("log.db")), ids);
}

#[tokio::test]
async fn a_look_through_a_log_names_the_events_whose_bodies_were_changed() {
    let node = waiting().start().await;
    let ids = post(&node, 3).await;
    let good = node.json(&["backup", "--check", "--json"]).await;
    assert_eq!((good[0]["events"].as_u64(), good[0]["damaged"].as_array().map(Vec::len)), (Some(3), Some(0)));
    assert_eq!(node.fnbus(&["backup", "copy.db"]).await.code(), 0);
    let copy = Connection::open(node.path().join("copy.db")).unwrap();
    copy.execute("UPDATE event SET data = X'00' WHERE seq = 2", []).unwrap();
    drop(copy);
    let bad = node.fnbus(&["backup", "--check", "copy.db", "--json"]).await;
    assert_eq!(bad.code(), 1);
    let damaged: Vec<Value> = bad.lines()[0]["damaged"].as_array().unwrap().clone();
    assert!(damaged.len() == 1 && ids.contains(damaged[0].as_str().unwrap()), "{damaged:?}");
    node.write("torn.db", "no database at all");
    let torn = node.fnbus(&["backup", "--check", "torn.db"]).await;
    assert_eq!(torn.code(), 1);
    assert!(torn.stderr.contains("torn.db is no event log"), "{}", torn.stderr);
    assert!(torn.stderr.contains("name a file that `fnbus backup` made"), "{}", torn.stderr);
    Connection::open(node.path().join("other.db")).unwrap().execute_batch("CREATE TABLE t (n)").unwrap();
    let other = node.fnbus(&["backup", "--check", "other.db"]).await;
    assert!(other.code() == 1 && other.stderr.contains("other.db is no event log"), "{}", other.stderr);
}

#[tokio::test]
async fn the_log_goes_on_being_written_while_a_reader_holds_it_for_long() {
    let node = waiting().start().await;
    post(&node, 1).await;
    let reader = Connection::open(node.data().join("log.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM event").unwrap();
    let body = "x".repeat(1 << 20);
    let mut slowest = Duration::ZERO;
    for _ in 0..80 {
        let begun = Instant::now();
        node.accepted("/jobs", body.clone()).await;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_secs(3), "somebody waited for the reader: {slowest:?}");
}
