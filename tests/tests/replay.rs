//! Logged events, delivered again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

async fn node() -> Node {
    let node = Project::new()
        .function_with(
            "f",
            "def handler(event, context):\n    if event.get('fail'): raise ValueError\n    return [context.event_id, event]\n",
            "retry = { attempts = 1 }",
        )
        .function("other", "def handler(event, context): return 'other'\n")
        .config("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n")
        .config("[triggers.sync]\nhttp = 'POST /sync'\npayload = 'body'\nto = 'f'\n")
        .start()
        .await;
    node.function_ready("f").await;
    node.function_ready("other").await;
    node
}

/// An event that was delivered once and is done.
async fn done(node: &Node) -> String {
    let id = node.accepted("/jobs", r#"{"n": 1}"#).await;
    node.event_is(&id, "done").await;
    id
}

/// Generation, target and status of each delivery.
fn deliveries(event: &Value) -> Vec<(u64, &str, &str)> {
    let list = event["deliveries"].as_array().unwrap().iter();
    list.map(|d| (d["generation"].as_u64().unwrap(), d["target"].as_str().unwrap(), d["status"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_does_nothing() {
    let node = node().await;
    let id = done(&node).await;
    let failed = node.accepted("/jobs", r#"{"fail": true}"#).await;
    node.event_is(&failed, "dead").await;
    let plan = node.json(&["replay", "--trigger", "jobs", "--dry-run", "--json"]).await.remove(0);
    assert_eq!(
        (&plan["deliveries"], &plan["events"], &plan["done_already"], &plan["targets"]),
        (&json!(2), &json!(2), &json!(1), &json!({ "f": 2 }))
    );
    let said = node.fnbus(&["replay", &id, "--dry-run"]).await;
    assert!(said.code() == 0 && said.stderr.contains("ended well already"), "{}", said.all());
    assert_eq!(deliveries(&node.show(&id).await), [(0, "f", "done")]);
}

#[tokio::test]
async fn off_a_terminal_a_replay_wants_to_be_confirmed() {
    let node = node().await;
    let id = done(&node).await;
    let refused = node.fnbus(&["replay", &id]).await;
    assert_eq!((refused.code(), refused.stdout.as_str()), (1, ""));
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    assert_eq!(deliveries(&node.show(&id).await), [(0, "f", "done")]);
    let nothing = node.fnbus(&["replay", "--yes"]).await;
    assert!(nothing.code() == 1 && nothing.stderr.contains("--trigger"), "nothing chosen is not everything");
}

#[tokio::test]
async fn a_replay_delivers_the_same_event_again() {
    let node = node().await;
    let id = done(&node).await;
    let before = node.show(&id).await;
    let replayed = node.json(&["replay", &id, "--yes", "--json"]).await.remove(0);
    node.deliveries_are("done", 2).await;
    let after = node.show(&id).await;
    for same in ["id", "time", "source", "type", "data", "meta"] {
        assert_eq!(before[same], after[same], "the event's {same}");
    }
    assert_eq!(deliveries(&after), [(0, "f", "done"), (1, "f", "done")]);
    assert_eq!(after["deliveries"][1]["replay"], replayed["name"]);
    let output = |n: usize| after["deliveries"][n]["attempts"][0]["output"].clone();
    assert_eq!(output(0), output(1), "the function got the same event under the same id");
    // Again is the next generation, and only of the latest one.
    node.json(&["replay", &id, "--yes", "--json"]).await;
    node.deliveries_are("done", 3).await;
    assert_eq!(deliveries(&node.show(&id).await).last(), Some(&(2, "f", "done")));
}

#[tokio::test]
async fn a_synchronous_call_can_be_replayed_behind_its_callers_back() {
    let node = node().await;
    assert_eq!(node.post("/sync", r#"{"n": 7}"#).await.status, 200);
    let event = node.json(&["events", "--trigger", "sync", "--json"]).await.remove(0);
    let id = event["id"].as_str().unwrap();
    node.json(&["replay", id, "--yes", "--json"]).await;
    node.deliveries_are("done", 2).await;
    assert_eq!(deliveries(&node.show(id).await), [(0, "f", "done"), (1, "f", "done")]);
}

#[tokio::test]
async fn a_replay_to_another_function_leaves_the_first_alone() {
    let node = node().await;
    let id = done(&node).await;
    node.json(&["replay", &id, "--to", "other", "--yes", "--json"]).await;
    node.deliveries_are("done", 2).await;
    let event = node.show(&id).await;
    assert_eq!(deliveries(&event), [(0, "f", "done"), (1, "other", "done")]);
    assert_eq!(event["deliveries"][1]["attempts"][0]["output"], "\"other\"");
    let unknown = node.fnbus(&["replay", &id, "--to", "nobody", "--yes"]).await;
    assert!(unknown.code() == 1 && unknown.stderr.contains("nobody"), "{}", unknown.all());
}

#[tokio::test]
async fn a_held_replay_is_recorded_as_such() {
    let node = node().await;
    let id = done(&node).await;
    let held = node.fnbus(&["replay", &id, "--hold", "--reason", "to look", "--yes"]).await;
    assert_eq!(held.code(), 0, "{}", held.all());
    node.deliveries_are("done", 2).await;
    let mut node = node;
    node.kill();
    let log = rusqlite::Connection::open(node.data().join("log.db")).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let recorded: (bool, String, i64) = log.query_row("SELECT hold, reason, total FROM replay", [], row).unwrap();
    assert_eq!(recorded, (true, "to look".to_owned(), 1));
    drop(log);
    node.restart().await;
    assert_eq!(node.deliveries("done").await, 2, "a restart repeats nothing of it");
}

#[tokio::test]
async fn what_is_replayed_is_chosen_by_status_and_time() {
    let node = node().await;
    let good = done(&node).await;
    let bad = node.accepted("/jobs", r#"{"fail": true}"#).await;
    node.event_is(&bad, "dead").await;
    let plan = node.json(&["replay", "--status", "dead", "--dry-run", "--json"]).await.remove(0);
    assert_eq!((&plan["deliveries"], &plan["done_already"]), (&json!(1), &json!(0)));
    let none = node.fnbus(&["replay", "--status", "expired", "--yes"]).await;
    assert!(none.code() == 1 && none.stderr.contains("nothing was done"), "{}", none.all());
    let since = node.show(&bad).await["time"].as_str().unwrap().to_owned();
    node.json(&["replay", "--since", &since, "--yes", "--json"]).await;
    node.deliveries_are("settled", 1).await;
    node.deliveries_are("dead", 1).await;
    assert_eq!(deliveries(&node.show(&good).await).len(), 1, "what came before is left alone");
}

#[tokio::test]
async fn unknown_ids_replay_nothing_at_all() {
    let node = node().await;
    let id = done(&node).await;
    let output = node.fnbus(&["replay", &id, "no-such-id", "--yes"]).await;
    assert!(output.code() == 1 && output.stderr.contains("no-such-id"), "{}", output.all());
    assert_eq!(deliveries(&node.show(&id).await).len(), 1);
}

#[tokio::test]
async fn what_was_tried_on_another_function_is_not_delivered_to_it_again() {
    let node = node().await;
    let id = done(&node).await;
    assert_eq!(node.fnbus(&["replay", &id, "--to", "other", "--yes"]).await.code(), 0);
    eventually("the trial is over", || async {
        deliveries(&node.show(&id).await).contains(&(1, "other", "done")).then_some(())
    })
    .await;
    let plan = |arguments: &'static [&'static str]| {
        let node = &node;
        async move { node.json(&[&["replay", "--dry-run", "--json"], arguments].concat()).await[0]["targets"].clone() }
    };
    assert_eq!(plan(&["--trigger", "jobs"]).await, json!({ "f": 1 }));
    assert_eq!(plan(&["--function", "other"]).await, json!({ "other": 1 }));
}

#[tokio::test]
async fn the_name_of_an_event_trigger_finds_what_its_rule_matched() {
    let project = Project::new().function("f", "def handler(event, context): return event\n");
    let node = project.config("[triggers.paid]\nevent = { type = 'order.paid' }\nto = 'f'\n").start().await;
    let id = node.json(&["emit", "order.paid", "-d", "1", "--json"]).await[0]["id"].as_str().unwrap().to_owned();
    node.event_is(&id, "done").await;
    assert_eq!(node.json(&["events", "--trigger", "paid", "--json"]).await[0]["id"], json!(id));
    let plan = node.json(&["replay", "--trigger", "paid", "--dry-run", "--json"]).await.remove(0);
    assert_eq!(plan["deliveries"], 1);
    let nothing = node.fnbus(&["events", "--trigger", "payd"]).await;
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("no event matches"), "{}", nothing.all());
}
