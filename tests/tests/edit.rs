//! Edits of a function's code while it serves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use serde_json::Value;

const ROUTE: &str = "[triggers.f]\nhttp = 'GET /f'\nto = 'f'\n\
                     [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n";

fn answering(word: &str) -> String {
    format!("def handler(event, context):\n    return '{word}'\n")
}

async fn ready(code: &str) -> Node {
    let node = Project::new().function_with("f", code, "concurrency = 2").config(ROUTE).start().await;
    node.function_ready("f").await;
    node
}

#[tokio::test]
async fn an_edit_is_live_and_each_attempt_says_its_version() {
    let node = ready(&answering("one")).await;
    assert_eq!(node.get("/f").await.text(), "one");
    let first = node.function("f").await["version"].clone();
    node.write("f/app.py", &answering("two"));
    eventually("the edit is live", || async { (node.get("/f").await.text() == "two").then_some(()) }).await;
    let second = node.function("f").await["version"].clone();
    assert_ne!(first, second);
    let events = node.json(&["events", "--trigger", "f", "--json"]).await;
    let version = |event: &Value| {
        let (node, id) = (&node, event["id"].as_str().unwrap().to_owned());
        async move {
            let attempt = node.show(&id).await["deliveries"][0]["attempts"][0].take();
            (attempt["output"].as_str().unwrap().to_owned(), attempt["version"].clone())
        }
    };
    assert_eq!(version(&events[0]).await, ("\"one\"".to_owned(), first));
    assert_eq!(version(events.last().unwrap()).await, ("\"two\"".to_owned(), second));
}

#[tokio::test]
async fn a_broken_edit_keeps_the_old_version_and_is_said_and_mending_it_is_live() {
    let node = ready(&answering("one")).await;
    let first = node.function("f").await["version"].clone();
    node.write("f/app.py", "def handler(event, context)\n    return 'two'\n");
    let status = eventually("the edit is refused", || async {
        let status = node.function("f").await;
        status["refused"].is_string().then_some(status)
    })
    .await;
    let refused = status["refused"].as_str().unwrap();
    assert!(refused.contains("Syntax error") && refused.contains("app.py:1"), "{refused}");
    assert_eq!((&status["state"], &status["version"]), (&"ready".into(), &first));
    node.says("keeps serving").await;
    assert_eq!(node.get("/f").await.text(), "one");
    node.write("f/app.py", &answering("three"));
    eventually("the mended edit is live", || async { (node.get("/f").await.text() == "three").then_some(()) }).await;
    assert_eq!(node.function("f").await["refused"], Value::Null);
}

#[tokio::test]
async fn what_is_in_flight_during_an_edit_finishes_on_the_version_it_began_on() {
    let project = Project::new();
    let slow = "import os, time\ndef handler(event, context):\n    open(os.environ['GO'] + '.began', 'w').close()\n    \
                while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n    return 'old'\n";
    let keys = format!("env = {{ GO = '{}' }}", project.path().join("notes/go").display());
    let node = project.function_with("f", slow, &keys).config(ROUTE).start().await;
    let first = node.function_ready("f").await["version"].clone();
    let (called, id) = tokio::join!(node.get("/f"), async {
        let id = node.accepted("/jobs", "").await;
        eventually("both run", || async { (node.function("f").await["busy"] == 2).then_some(()) }).await;
        node.write("f/app.py", &answering("new"));
        eventually("the edit is live", || async { (node.function("f").await["version"] != first).then_some(()) }).await;
        assert_eq!(node.get("/f").await.text(), "new", "whoever comes now gets the new one");
        node.write("notes/go", "");
        id
    });
    assert_eq!((called.status.as_u16(), called.text()), (200, "old"));
    let event = node.event_is(&id, "done").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["n"], &attempt["output"], &attempt["version"]), (&1.into(), &"\"old\"".into(), &first));
}
