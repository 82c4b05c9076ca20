//! Triggers that are fired, paused and resumed; and the NATS of the bus, for people.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

const ECHO: &str = "def handler(event, context): return event\n";

async fn trigger(node: &Node, name: &str) -> Value {
    let all = node.json(&["triggers", "--json"]).await;
    all.into_iter().find(|trigger| trigger["name"] == name).unwrap()
}

async fn steer(node: &Node, what: &str, name: &str) -> Value {
    node.json(&["triggers", what, name, "--json"]).await.remove(0)
}

async fn events_of(node: &Node, trigger: &str) -> usize {
    node.json(&["events", "--trigger", trigger, "-n", "1000", "--json"]).await.len()
}

#[tokio::test]
async fn a_cron_trigger_is_fired_now_and_the_function_gets_a_scheduled_event() {
    let node = Project::new()
        .function("f", ECHO)
        .config("[triggers.nightly]\ncron = '0 2 * * *'\ntimezone = 'Asia/Seoul'\nto = 'f'\n")
        .start()
        .await;
    let id = node.fnbus(&["triggers", "fire", "nightly"]).await.stdout.trim().to_owned();
    let event = node.event_is(&id, "done").await;
    assert_eq!((&event["type"], &event["trigger"]), (&json!("cron.tick"), &json!("nightly")));
    let output: Value =
        serde_json::from_str(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap()).unwrap();
    assert_eq!((&output["detail-type"], &output["id"]), (&json!("Scheduled Event"), &json!(id)));
    // Twice is two times, and the schedule goes on as it was.
    assert_eq!(steer(&node, "fire", "nightly").await["deliveries"], 1);
    assert_eq!(events_of(&node, "nightly").await, 2);
    assert!(trigger(&node, "nightly").await["next"].as_str().unwrap().contains("T02:00:00+09:00"));
}

#[tokio::test]
async fn what_cannot_be_fired_says_what_to_do_instead() {
    let node = Project::new()
        .function("f", ECHO)
        .config("[triggers.q]\nqueue = 'nats:jobs.*'\nto = 'f'\n[triggers.h]\nhttp = 'GET /h'\nto = 'f'\n")
        .start()
        .await;
    for (name, instead) in [("q", "fnbus nats publish jobs.x"), ("h", "send a request")] {
        let output = node.fnbus(&["triggers", "fire", name]).await;
        assert!(output.code() == 1 && output.stderr.contains(instead), "{}", output.all());
    }
    for what in ["fire", "pause", "resume"] {
        let output = node.fnbus(&["triggers", what, "nobody"]).await;
        assert_eq!(output.code(), 1);
        assert!(output.stderr.contains("there is no trigger `nobody`; known: h, q"), "{}", output.stderr);
    }
}

#[tokio::test]
async fn a_paused_queue_keeps_its_messages_through_a_restart_and_gives_them_when_it_is_resumed() {
    let mut node =
        Project::new().function("f", ECHO).config("[triggers.q]\nqueue = 'nats:jobs.*'\nto = 'f'\n").start().await;
    node.reads("q", "fnbus_in_q").await;
    assert_eq!(steer(&node, "pause", "q").await, json!({ "trigger": "q", "changed": true }));
    assert_eq!(steer(&node, "pause", "q").await["changed"], false);
    let sent = node.json(&["nats", "publish", "jobs.a", "-d", "1", "-H", "kind: paid", "--json"]).await.remove(0);
    assert_eq!(sent, json!({ "stream": "fnbus_in_q", "sequence": 1 }));
    assert!(node.stop().await.success());
    node.restart().await;
    assert_eq!(trigger(&node, "q").await["paused"], true);
    assert!(node.fnbus(&["triggers"]).await.stdout.contains("paused"));
    assert_eq!(events_of(&node, "q").await, 0);
    steer(&node, "resume", "q").await;
    eventually("it came", || async { (events_of(&node, "q").await == 1).then_some(()) }).await;
    assert_eq!(trigger(&node, "q").await["paused"], false);
}

#[tokio::test]
async fn a_paused_route_is_refused_and_a_paused_rule_matches_nothing_until_they_are_resumed() {
    let node = Project::new()
        .function("f", ECHO)
        .config("[triggers.h]\nhttp = 'POST /h'\nmode = 'async'\nto = 'f'\n[triggers.e]\nevent = { type = 'x' }\nto = 'f'\n")
        .start()
        .await;
    steer(&node, "pause", "h").await;
    steer(&node, "pause", "e").await;
    let refused = node.post("/h", "{}").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("30")));
    assert_eq!(refused.json::<Value>()["detail"], "this route is paused");
    // An edit of the config does not wake what was paused by hand.
    node.reconfigure(&format!("{}# edited\n", node.project().toml())).await;
    assert_eq!(node.post("/h", "{}").await.status, 503);
    let passed = node.json(&["emit", "x", "-d", "1", "--json"]).await.remove(0);
    assert_eq!(passed["deliveries"], 0);
    steer(&node, "resume", "h").await;
    steer(&node, "resume", "e").await;
    let id = node.accepted("/h", "{}").await;
    node.event_is(&id, "done").await;
    assert_eq!(node.json(&["emit", "x", "-d", "1", "--json"]).await[0]["deliveries"], 1);
}

#[tokio::test]
async fn a_paused_schedule_lets_its_times_pass_and_files_that_came_meanwhile_are_told_after() {
    let node = Project::new()
        .function("f", ECHO)
        .config("[triggers.every]\ncron = 'rate(1 minute)'\nto = 'f'\n")
        .config("[triggers.files]\nfile = 'inbox/*.csv'\nto = 'f'\n")
        .file("inbox/README", "")
        .start()
        .await;
    eventually("it watches", || async { (trigger(&node, "files").await["state"] == "watching inbox").then_some(()) })
        .await;
    steer(&node, "pause", "every").await;
    steer(&node, "pause", "files").await;
    let paused = trigger(&node, "every").await;
    assert_eq!((&paused["paused"], &paused["next"]), (&json!(true), &Value::Null));
    node.write("inbox/a.csv", "1,2\n");
    steer(&node, "resume", "files").await;
    eventually("the file is told", || async { (events_of(&node, "files").await == 1).then_some(()) }).await;
    steer(&node, "resume", "every").await;
    eventually("it has a next time", || async { trigger(&node, "every").await["next"].as_str().map(|_| ()) }).await;
    assert_eq!(events_of(&node, "every").await, 0);
}

#[tokio::test]
async fn people_publish_and_listen_with_the_login_of_the_bus() {
    let node = Project::new().function("f", ECHO).start().await;
    let url = node.fnbus(&["nats", "url"]).await.stdout;
    assert!(url.starts_with("nats://fnbus:") && url.contains("@127.0.0.1:"), "{url}");
    let mut heard = node.follow(&["nats", "sub", "news.>", "--json"]);
    // Published until somebody has heard it: nobody is told when a subscription is there.
    let hearing = heard.line();
    tokio::pin!(hearing);
    let line = loop {
        let sent = node.fnbus(&["nats", "publish", "news.a", "-d", "hello", "-H", "kind: x"]).await;
        assert!(sent.stderr.contains("no stream has this subject"), "{}", sent.all());
        if let Ok(line) = tokio::time::timeout(std::time::Duration::from_millis(50), &mut hearing).await {
            break line;
        }
    };
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line, json!({ "subject": "news.a", "headers": [["kind", "x"]], "data": "hello" }));
    for (subject, why) in [
        ("fnbus.deliver.x", "fnbus' own"),
        ("$SYS.x", "belong to the NATS server"),
        ("a.*", "wildcard"),
        ("a b", "words"),
    ] {
        let output = node.fnbus(&["nats", "publish", subject, "-d", "1"]).await;
        assert!(output.code() == 1 && output.stderr.contains(why), "{subject}: {}", output.all());
    }
}
