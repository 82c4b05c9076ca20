//! The wall clock is set while a node runs: nothing waits for a time that will not come, nothing happens twice.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use chrono::{DateTime, TimeDelta, Utc};
use fnbus_tests::{Disk, Node, Project};

/// Fails once for each event.
const FAILS_ONCE: &str = "import os\n\ndef handler(event, context):\n    \
                          path = os.path.join(os.environ['TRIED'], context.event_id)\n    \
                          if not os.path.exists(path):\n        open(path, 'w').close()\n        raise ValueError('once')\n";

const HOUR: i64 = 3600;

fn project(disk: &Disk) -> Project {
    let project = Project::new().file("tried/.keep", "");
    let tried = project.path().join("tried").display().to_string();
    let keys = format!("env = {{ TRIED = '{tried}' }}\nretry = {{ attempts = 3, wait = '4s' }}");
    project.function_with("once", FAILS_ONCE, &keys).config(JOBS).on_disk(disk)
}

const JOBS: &str = "[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'once'\n";

/// The node's time, by an event that comes now.
async fn time_of(node: &Node, id: &str) -> DateTime<Utc> {
    node.show(id).await["time"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_retry_comes_although_the_clock_was_set_back_by_an_hour() {
    let disk = Disk::new();
    let node = project(&disk).start().await;
    let id = node.accepted("/jobs", "{}").await;
    node.event_is(&id, "retrying").await;
    disk.clock_is_ahead(-HOUR);
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["deliveries"][0]["attempts"].as_array().unwrap().len(), 2);
    let after = node.accepted("/jobs", "{}").await;
    assert!(time_of(&node, &after).await < Utc::now() - TimeDelta::minutes(59));
    node.event_is(&after, "done").await;
}

#[tokio::test]
async fn what_is_accepted_after_2038_runs_and_is_retried() {
    let disk = Disk::new();
    let node = project(&disk).start().await;
    let before = node.accepted("/jobs", "{}").await;
    node.event_is(&before, "done").await;
    disk.clock_is_ahead(13 * 365 * 24 * HOUR);
    let id = node.accepted("/jobs", "{}").await;
    assert!(time_of(&node, &id).await > Utc::now() + TimeDelta::days(12 * 365));
    node.event_is(&id, "done").await;
    disk.clock_is_ahead(0);
    let after = node.accepted("/jobs", "{}").await;
    node.event_is(&after, "done").await;
}
