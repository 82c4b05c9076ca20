//! What the commands show and do.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Output, Project, eventually};
use serde_json::{Value, json};

const CONFIG: &str = "[triggers.sync]\nhttp = 'POST /sync'\npayload = 'body'\nto = 'f'\n\
                      [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n\
                      [triggers.priced]\nevent = { type = 'order.priced' }\nto = 'f'\n";

/// Prints what it got, fails when it is told to, else gives it back.
const CODE: &str = "def handler(event, context):\n    print('got', event)\n    \
                    if event == {'fail': True}: raise ValueError('as told')\n    return event\n";

async fn node() -> Node {
    let node = Project::new().function_with("f", CODE, "retry = { attempts = 1 }").config(CONFIG).start().await;
    node.function_ready("f").await;
    node
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().unwrap()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Runs a command where no node is.
fn offline(project: &Project, arguments: &[&str]) -> Output {
    project.command(arguments).output().unwrap().into()
}

#[tokio::test]
async fn events_are_found_by_trigger_function_type_status_and_time() {
    let node = node().await;
    let good = node.accepted("/jobs", "{}").await;
    node.event_is(&good, "done").await;
    let bad = node.accepted("/jobs", r#"{"fail":true}"#).await;
    node.event_is(&bad, "dead").await;
    let emitted = node.json(&["emit", "order.priced", "--json"]).await[0]["id"].as_str().unwrap().to_owned();
    node.event_is(&emitted, "done").await;
    let found = async |filter: &[&str]| {
        let events = node.json(&[&["events", "--json"], filter].concat()).await;
        ids(&events).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found(&[]).await, [&*good, &*bad, &*emitted]);
    assert_eq!(found(&["--trigger", "jobs"]).await, [&*good, &*bad]);
    assert_eq!(found(&["--type", "order.priced"]).await, [&*emitted]);
    assert_eq!(found(&["--status", "dead"]).await, [&*bad]);
    assert_eq!(found(&["--function", "f", "--status", "done"]).await, [&*good, &*emitted]);
    assert_eq!(found(&["--function", "nobody"]).await, [""; 0]);
    assert_eq!(found(&["--since", "1h"]).await.len(), 3);
    assert_eq!(found(&["--until", "1h"]).await, [""; 0]);
    assert_eq!(found(&["-n", "1"]).await, [&*emitted], "the newest so many");
    let text = node.fnbus(&["events"]).await.stdout;
    assert!(text.lines().count() == 3 && text.contains(&good) && text.contains("jobs -> f"), "{text}");
}

#[tokio::test]
async fn following_shows_what_was_and_then_what_comes() {
    let mut node = node().await;
    let before = node.accepted("/jobs", "{}").await;
    let mut followed = node.follow(&["events", "--follow", "--json"]);
    let line: Value = serde_json::from_str(&followed.line().await).unwrap();
    assert_eq!(line["id"], before);
    let later = node.accepted("/jobs", "{}").await;
    let line: Value = serde_json::from_str(&followed.line().await).unwrap();
    assert_eq!(line["id"], later);
    assert_eq!(node.post("/sync", "{}").await.status, 200);
    let line: Value = serde_json::from_str(&followed.line().await).unwrap();
    assert_eq!(line["trigger"], "sync", "synchronous calls are followed too");
    node.stop().await;
    assert_eq!(followed.rest().await, [""; 0], "it ends with the node");
    node.restart().await;
}

#[tokio::test]
async fn json_has_the_promised_fields() {
    let node = node().await;
    let id = node.accepted("/jobs", r#"{"fail":true}"#).await;
    let event = node.event_is(&id, "dead").await;
    let row = node.json(&["events", "--json"]).await.remove(0);
    for (value, promised) in [
        (&row, &["id", "source", "type", "time", "trigger", "status"][..]),
        (&event, &["id", "source", "type", "time", "trigger", "status", "deliveries"]),
        (&event["deliveries"][0], &["id", "event", "target", "generation", "status", "attempts"]),
        (
            &event["deliveries"][0]["attempts"][0],
            &["id", "n", "outcome", "started", "queue_ms", "init_ms", "run_ms", "error"],
        ),
    ] {
        for key in promised {
            assert!(keys(value).contains(key), "`{key}` is missing in {value}");
        }
    }
    assert_eq!((&row["source"], &row["type"]), (&json!("/fnbus/jobs"), &json!("http.request")));
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["n"], &attempt["outcome"]), (&json!(1), &json!("error")));
    assert!(attempt["run_ms"].is_f64() && attempt["started"].is_string(), "{attempt}");
}

#[tokio::test]
async fn show_tells_everything_about_an_event() {
    let node = node().await;
    let id = node.accepted("/jobs", r#"{"fail":true}"#).await;
    node.event_is(&id, "dead").await;
    let text = node.fnbus(&["show", &id]).await.stdout;
    for part in [
        &*id,
        "POST /jobs",
        r#"{"fail":true}"#,
        "-> f",
        "attempts exhausted",
        "1. error",
        "ValueError: as told",
        "| got",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[tokio::test]
async fn invoke_gives_the_result_on_stdout_and_the_logs_on_stderr() {
    let node = node().await;
    let given = node.fnbus(&["invoke", "f", "-d", r#"{"n":1}"#]).await;
    assert_eq!((given.code(), given.stdout.as_str()), (0, "{\"n\":1}\n"));
    assert_eq!(given.stderr, "got {'n': 1}\n");
    node.write("data.json", r#"{"n":2}"#);
    assert_eq!(node.fnbus(&["invoke", "f", "-d", "@data.json"]).await.stdout, "{\"n\":2}\n");
    assert_eq!(node.fnbus_with(&["invoke", "f", "-d", "-"], br#"{"n":3}"#).await.stdout, "{\"n\":3}\n");
    let failed = node.fnbus(&["invoke", "f", "-d", r#"{"fail":true}"#]).await;
    assert_eq!(failed.code(), 1);
    assert!(failed.stdout.contains(r#""errorMessage":"as told""#), "{}", failed.stdout);
    assert!(failed.stderr.contains("ValueError: as told"), "{}", failed.stderr);
    let json = node.json(&["invoke", "f", "--json"]).await.remove(0);
    assert_eq!((&json["outcome"], &json["output"]), (&json!("ok"), &json!("{}")));
    node.event_is(json["event"].as_str().unwrap(), "done").await;
    let unknown = node.fnbus(&["invoke", "nobody"]).await;
    assert!(unknown.code() == 1 && unknown.stderr.contains("nobody"), "{}", unknown.all());
}

#[tokio::test]
async fn functions_and_triggers_are_listed() {
    let node = node().await;
    assert_eq!(node.fnbus(&["invoke", "f"]).await.code(), 0);
    let function = node.function("f").await;
    assert_eq!((&function["runtime"], &function["state"]), (&json!("python"), &json!("ready")));
    assert_eq!((&function["invocations"], &function["errors"]), (&json!(1), &json!(0)));
    for words in [&["functions"][..], &["functions", "list"]] {
        let listed = node.fnbus(words).await;
        assert!(listed.stdout.contains(function["version"].as_str().unwrap()), "{words:?}: {}", listed.all());
    }
    let triggers = node.json(&["triggers", "--json"]).await;
    let facts: Vec<_> = triggers.iter().map(|t| (t["name"].clone(), t["kind"].clone(), t["mode"].clone())).collect();
    assert!(facts.contains(&(json!("jobs"), json!("http"), json!("async"))), "{facts:?}");
    assert!(facts.contains(&(json!("priced"), json!("event"), json!("async"))), "{facts:?}");
    assert!(node.fnbus(&["triggers"]).await.stdout.contains("POST /jobs"));
}

#[tokio::test]
async fn what_needs_no_node_works_without_one() {
    let project = Project::new();
    let made = offline(&project, &["init", "shop"]);
    assert_eq!(made.code(), 0, "{}", made.all());
    let checked = offline(&project, &["--config", "shop/fnbus.toml", "check"]);
    assert_eq!((checked.code(), checked.stdout.as_str()), (0, "shop/fnbus.toml is good: 1 function, 1 trigger\n"));
    for shell in ["bash", "zsh", "fish"] {
        let script = offline(&project, &["completions", shell]);
        assert!(script.code() == 0 && script.stdout.contains("redrive"), "{shell}: {}", script.stderr);
    }
    let schema = offline(&project, &["config", "schema"]);
    assert!(serde_json::from_str::<Value>(&schema.stdout).is_ok());
}

#[tokio::test]
async fn what_needs_a_node_says_that_there_is_none_and_how_to_start_it() {
    let project = Project::new().file("fnbus.toml", "");
    for command in [&["events"][..], &["show", "x"], &["invoke", "f"], &["functions"], &["dead", "list"], &["logs"]] {
        let output = offline(&project, command);
        assert_eq!((output.code(), output.stdout.as_str()), (1, ""), "{command:?}");
        assert!(output.stderr.contains("fnbus up"), "{command:?}: {}", output.stderr);
    }
}

#[tokio::test]
async fn a_started_example_project_answers_as_its_welcome_says() {
    let project = Project::new();
    assert_eq!(offline(&project, &["init"]).code(), 0);
    let toml = std::fs::read_to_string(project.path().join("fnbus.toml")).unwrap();
    let node = project.whole_config(&toml.replace("127.0.0.1:8080", "127.0.0.1:0")).start().await;
    node.says(&format!("curl http://{}/hello/name", node.http())).await;
    assert_eq!(node.get("/hello/Ada").await.json::<Value>(), json!({ "message": "Hello, Ada!" }));
    eventually("the call is logged", || async {
        (node.json(&["events", "--json", "--status", "done"]).await.len() == 1).then_some(())
    })
    .await;
}
