//! The delivery contract while everything stands: retries, dead letters, expiry, duplicates, and what is held back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use hyper::Request;
use serde_json::{Value, json};

/// Fails until the file `good` is in the project's folder.
const FRAGILE: &str = "import os\ndef handler(event, context):\n    print('try')\n    \
                       if not os.path.exists(os.environ['GOOD']): raise RuntimeError('not yet')\n    return 'good'\n";

const ROUTE: &str = "[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n";

/// A node whose function `f` fails until `good` is there.
async fn fragile(retry: &str) -> Node {
    let project = Project::new();
    let good = project.path().join("good");
    let keys = format!("env = {{ GOOD = '{}' }}\nretry = {{ {retry} }}", good.display());
    project.function_with("f", FRAGILE, &keys).config(ROUTE).start().await
}

/// The attempts of the last delivery of an event.
fn attempts(event: &Value) -> Vec<&Value> {
    event["deliveries"].as_array().unwrap().last().unwrap()["attempts"].as_array().unwrap().iter().collect()
}

#[tokio::test]
async fn a_failure_is_tried_again_after_its_wait_until_it_succeeds() {
    let node = fragile("attempts = 50, wait = '200ms', max_wait = '400ms'").await;
    let id = node.accepted("/jobs", "{}").await;
    eventually("three attempts were made", || async { (attempts(&node.show(&id).await).len() >= 3).then_some(()) })
        .await;
    node.write("good", "");
    let event = node.event_is(&id, "done").await;
    let attempts = attempts(&event);
    let (last, failed) = attempts.split_last().unwrap();
    assert_eq!((&last["outcome"], &last["output"]), (&json!("ok"), &json!("\"good\"")));
    for (index, attempt) in attempts.iter().enumerate() {
        assert_eq!(attempt["n"], index + 1, "attempts are counted without a gap");
    }
    for attempt in failed {
        assert_eq!(attempt["outcome"], "error");
        assert_eq!(attempt["error"], json!({ "kind": "RuntimeError", "message": "not yet" }));
    }
    let started =
        |attempt: &Value| attempt["started"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let wait = |n: usize| (started(attempts[n]) - started(attempts[n - 1])).num_milliseconds();
    assert!(wait(1) >= 100, "the first wait is at least half of 200 ms, and was {}", wait(1));
    assert!(wait(2) >= 200, "the second is doubled, and was {}", wait(2));
}

#[tokio::test]
async fn what_fails_to_the_last_attempt_is_a_dead_letter_that_can_be_seen_and_redriven() {
    let node = fragile("attempts = 2, wait = '50ms'").await;
    let id = node.accepted("/jobs", r#"{"n":1}"#).await;
    node.event_is(&id, "dead").await;
    let letters = node.json(&["dead", "list", "--json"]).await;
    let [letter] = letters.as_slice() else { panic!("one dead letter, not {letters:?}") };
    assert_eq!((&letter["event"], &letter["target"]), (&json!(id), &json!("f")));
    assert_eq!((&letter["attempts"], &letter["reason"]), (&json!(2), &json!("attempts_exhausted")));
    assert_eq!(letter["error"], json!({ "kind": "RuntimeError", "message": "not yet" }));
    let shown = node.fnbus(&["dead", "show", &id]).await;
    assert!(shown.stdout.contains("| try") && shown.stdout.contains("not yet"), "{}", shown.all());

    node.write("good", "");
    assert_eq!(node.fnbus(&["dead", "redrive", &id]).await.code(), 0);
    let event = node.event_is(&id, "done").await;
    let generations: Vec<_> =
        event["deliveries"].as_array().unwrap().iter().map(|d| (&d["generation"], &d["status"])).collect();
    assert_eq!(generations, [(&json!(0), &json!("dead")), (&json!(1), &json!("done"))]);
    assert_eq!(node.json(&["dead", "list", "--json"]).await, [json!(null); 0], "a redriven letter leaves the list");
    let again = node.fnbus(&["dead", "redrive", &id]).await;
    assert_eq!(again.code(), 1, "there is nothing left to redrive: {}", again.all());
}

#[tokio::test]
async fn all_dead_letters_are_redriven_at_once() {
    let node = fragile("attempts = 1").await;
    for n in 0..5 {
        node.accepted("/jobs", n.to_string()).await;
    }
    node.deliveries_are("dead", 5).await;
    let plan = node.json(&["dead", "redrive", "--all", "--dry-run", "--json"]).await;
    assert_eq!(plan[0]["deliveries"], 5);
    assert_eq!(node.json(&["dead", "list", "--json"]).await.len(), 5, "a dry run does nothing");
    node.write("good", "");
    node.json(&["dead", "redrive", "--all", "--json"]).await;
    node.deliveries_are("done", 5).await;
    assert_eq!(node.json(&["dead", "list", "--json"]).await.len(), 0);
}

#[tokio::test]
async fn a_retry_that_would_come_too_late_is_not_waited_for() {
    let node = fragile("attempts = 10, wait = '1m', max_wait = '1m', max_age = '10s'").await;
    let id = node.accepted("/jobs", "{}").await;
    let event = node.event_is(&id, "dead").await;
    assert_eq!((&event["deliveries"][0]["reason"], attempts(&event).len()), (&json!("too_old"), 1));
}

#[tokio::test]
async fn what_could_not_begin_in_its_time_expires() {
    let held = "concurrency = 0\nretry = { max_age = '200ms' }";
    let node =
        Project::new().function_with("f", "def handler(event, context): pass\n", held).config(ROUTE).start().await;
    let id = node.accepted("/jobs", "{}").await;
    let accepted = std::time::Instant::now();
    eventually("it is too old", || async { (accepted.elapsed().as_millis() > 250).then_some(()) }).await;
    node.configure(&node.project().toml().replace("concurrency = 0", "concurrency = 1"));
    let event = node.event_is(&id, "expired").await;
    assert_eq!(attempts(&event).len(), 0);
}

#[tokio::test]
async fn the_same_id_and_body_run_once_and_another_body_is_a_conflict() {
    let node = Project::new().function("f", "def handler(event, context): pass\n").config(ROUTE).start().await;
    let post = |body: &'static str| {
        let request =
            Request::post("/jobs").header("content-type", "application/json").header("idempotency-key", "order-7");
        node.send(request, body)
    };
    for _ in 0..2 {
        let answer = post(r#"{"n":1}"#).await;
        assert_eq!((answer.status.as_u16(), answer.json::<Value>()), (202, json!({ "id": "order-7" })));
    }
    let answer = post(r#"{"n":2}"#).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (409, Some("application/problem+json")));
    let event = node.event_is("order-7", "done").await;
    assert_eq!((&event["data"], attempts(&event).len()), (&json!(r#"{"n":1}"#), 1));
    // Still the same after a restart: the log remembers, not the process.
    let mut node = node;
    node.kill();
    node.restart().await;
    let request =
        Request::post("/jobs").header("content-type", "application/json").header("idempotency-key", "order-7");
    assert_eq!(node.send(request, r#"{"n":2}"#).await.status, 409);
    assert_eq!(node.deliveries("done").await, 1);
}

#[tokio::test]
async fn a_stopped_function_holds_its_deliveries_until_it_may_run_again() {
    let node = Project::new()
        .function_with("f", "def handler(event, context): pass\n", "concurrency = 0")
        .function("other", "def handler(event, context): pass\n")
        .config(ROUTE)
        .config("[triggers.others]\nhttp = 'POST /others'\nmode = 'async'\nto = 'other'\n")
        .start()
        .await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(node.accepted("/jobs", n.to_string()).await);
    }
    let other = node.accepted("/others", "").await;
    node.event_is(&other, "done").await;
    assert_eq!(node.deliveries("pending").await, 10, "nothing of the stopped one ran meanwhile");
    node.configure(&node.project().toml().replace("concurrency = 0", "concurrency = 2"));
    for id in &ids {
        let event = node.event_is(id, "done").await;
        assert_eq!(attempts(&event).len(), 1, "being held back costs no attempt");
    }
}

#[tokio::test]
async fn a_function_that_is_stopped_while_it_is_busy_keeps_the_rest_for_later() {
    let code = "import os, time\ndef handler(event, context):\n    while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n";
    let project = Project::new();
    let keys = format!("concurrency = 1\nenv = {{ GO = '{}' }}", project.path().join("go").display());
    let node = project.function_with("f", code, &keys).config(ROUTE).start().await;
    for n in 0..10 {
        node.accepted("/jobs", n.to_string()).await;
    }
    node.deliveries_are("running", 1).await;
    node.reconfigure(&node.project().toml().replace("concurrency = 1", "concurrency = 0")).await;
    node.write("go", "");
    node.deliveries_are("done", 1).await;
    assert_eq!(node.deliveries("pending").await, 9);
    node.configure(node.project().toml());
    node.deliveries_are("done", 10).await;
}

#[tokio::test]
async fn deliveries_for_a_function_that_is_removed_stay_until_it_returns() {
    let project = Project::new();
    let held = project.function_with("f", "def handler(event, context): pass\n", "concurrency = 0").config(ROUTE);
    let mut node = held.start().await;
    let id = node.accepted("/jobs", "{}").await;
    node.reconfigure("[http]\nlisten = '127.0.0.1:0'\n").await;
    assert_eq!(node.post("/jobs", "{}").await.status, 404);
    assert_eq!(node.show(&id).await["status"], "pending");
    // A restart without it changes nothing about that.
    node.stop().await;
    node.restart_with("[http]\nlisten = '127.0.0.1:0'\n").await;
    assert_eq!(node.show(&id).await["status"], "pending");
    node.configure(&node.project().toml().replace("concurrency = 0", "concurrency = 1"));
    node.event_is(&id, "done").await;
}

#[tokio::test]
async fn two_thousand_events_are_done_exactly_once_by_several_instances() {
    let code = "import os\ndef handler(event, context):\n    \
                os.write(LOG, b'%d %d\\n' % (event['n'], os.getpid()))\n\
                LOG = os.open(os.environ['LOG'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n";
    let project = Project::new();
    let keys = format!("concurrency = 4\nenv = {{ LOG = '{}' }}", project.path().join("notes/ran").display());
    let config = "[triggers.jobs]\nevent = { type = 'job' }\npayload = 'body'\nto = 'f'\n";
    let node = project.function_with("f", code, &keys).config(config).start().await;
    for batch in 0..4 {
        let events: Vec<Value> = (0..500).map(|n| json!({ "type": "job", "data": { "n": batch * 500 + n } })).collect();
        assert_eq!(node.post("/events", json!(events).to_string()).await.status, 202);
    }
    node.deliveries_are("done", 2000).await;
    let ran = node.read("notes/ran");
    let mut numbers: Vec<u32> = ran.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..2000), "each once, and none twice");
    let pids: std::collections::BTreeSet<&str> = ran.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert!((2..=4).contains(&pids.len()), "{} instances ran them", pids.len());
}

/// Gives up the attempt that runs and makes its delivery pending, in the log alone, as is done when a lease is lost.
fn lose(node: &Node) {
    let log = rusqlite::Connection::open(node.data().join("log.db")).unwrap();
    log.execute_batch(
        "BEGIN IMMEDIATE; UPDATE attempt SET outcome = 'lost' WHERE outcome IS NULL; \
         UPDATE delivery SET status = 1, publication = publication + 1 WHERE status = 2; COMMIT",
    )
    .unwrap();
}

#[tokio::test]
async fn an_outcome_that_comes_when_its_attempt_was_given_up_is_noted_and_nothing_follows_from_it() {
    let code = "import os, time\nGO = os.environ['GO']\ndef handler(event, context):\n    \
                if os.path.exists(GO): return 'in time'\n    \
                while not os.path.exists(GO): time.sleep(0.01)\n    return 'late'\n";
    let project = Project::new();
    let keys = format!("then = ['file:followed']\nenv = {{ GO = '{}' }}", project.path().join("go").display());
    let node = project.function_with("f", code, &keys).config(ROUTE).start().await;
    let id = node.accepted("/jobs", "{}").await;
    node.deliveries_are("running", 1).await;
    lose(&node);
    node.write("go", "");

    node.says("an outcome came too late").await;
    let event = node.event_is(&id, "done").await;
    let ended: Vec<_> = attempts(&event).iter().map(|attempt| (&attempt["outcome"], &attempt["output"])).collect();
    assert_eq!(ended, [(&json!("lost"), &json!(null)), (&json!("ok"), &json!("\"in time\""))]);
    assert_eq!(node.json(&["node", "--json"]).await[0]["late_outcomes"], 1);
    // what follows follows from the other one, once
    node.deliveries_are("done", 2).await;
    let followed: Vec<Value> = node.read("followed").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(followed.iter().map(|line| &line["data"]).collect::<Vec<_>>(), [&json!("in time")]);
}
