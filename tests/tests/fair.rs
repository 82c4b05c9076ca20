//! A function that is being flooded takes nothing from one that is not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project};
use serde_json::json;

/// Functions that are flooded.
const FLOODED: usize = 10;
/// Deliveries to each of them: together more than a worker takes off the stream.
const EACH: usize = 300;

/// Works until the file `notes/go` is there.
const STUCK: &str = "import os, time\ndef handler(event, context):\n    \
                     while not os.path.exists('../notes/go'): time.sleep(0.02)\n";
const QUIET: &str = "def handler(event, context):\n    return 'here'\n";

/// A node with functions of which each has one instance, which is busy, and hundreds of deliveries that wait.
async fn flooded() -> Node {
    let names: Vec<String> = (0..FLOODED).map(|n| format!("f{n}")).collect();
    let mut project = Project::new().function("quiet", QUIET);
    let notes = project.path().join("notes/go").display().to_string();
    let stuck = STUCK.replace("../notes/go", &notes);
    for name in &names {
        project = project.function_with(name, &stuck, "concurrency = 1\ntimeout = '5m'");
    }
    let config = format!(
        "[triggers.flood]\nevent = {{ type = 'flood' }}\npayload = 'body'\nto = {names:?}\n\
         [triggers.call]\nhttp = 'POST /call'\nto = 'quiet'\n\
         [triggers.later]\nhttp = 'POST /later'\nmode = 'async'\nto = 'quiet'\n"
    );
    let node = project.config(&config).start().await;
    let events: Vec<_> = (0..EACH).map(|n| json!({ "type": "flood", "data": n })).collect();
    assert_eq!(node.post("/events", json!(events).to_string()).await.status, 202);
    node.deliveries_are("running", FLOODED as u64).await;
    node
}

#[tokio::test]
async fn what_waits_for_a_function_is_not_held_up_by_floods_of_others() {
    let node = flooded().await;
    let id = node.accepted("/later", "{}").await;
    node.event_is(&id, "done").await;
    assert_eq!(node.post("/call", "{}").await.text(), "here");
    assert_eq!(node.deliveries("running").await, FLOODED as u64, "none of the others has ended");
    node.write("notes/go", "");
}
