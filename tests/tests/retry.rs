//! What a function's own word and a repeated end of the node do to a delivery: told once, tried no more, in nobody's way.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project};
use rstest::rstest;
use serde_json::{Value, json};

const RETRY: &str = "retry = { attempts = 3, wait = '10ms' }";

/// Raises what the event names.
const PYTHON: &str = "class Wrong(ValueError):\n    retry = False\n\
                      def handler(event, context):\n    \
                      if event == 'class': raise Wrong('the order has no item')\n    \
                      error = ValueError('the order has no item')\n    \
                      if event == 'instance': error.retry = False\n    \
                      raise error\n";
const NODE: &str = "exports.handler = async () => {\n  \
                    throw Object.assign(new Error('the order has no item'), { name: 'Wrong', retry: false });\n};\n";
const COMMAND: &str = "#!/bin/sh\necho 'the order has no item' >&2\nexit 65\n";
/// The Runtime API with Python's standard library.
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"
while True:
    api.request("GET", base + "next")
    reply = api.getresponse()
    reply.read()
    error = {"errorType": "Wrong", "errorMessage": "the order has no item", "retry": False}
    api.request("POST", base + reply.headers["Lambda-Runtime-Aws-Request-Id"] + "/error", json.dumps(error))
    api.getresponse().read()
"#;

/// A node with one function `f` of that runtime and what gets its failures.
async fn node(runtime: &str) -> Node {
    let project = match runtime {
        "python" => Project::new().file("f/app.py", PYTHON),
        "node" => Project::new().file("f/index.js", NODE),
        "provided" => Project::new().program("f/bootstrap", BOOTSTRAP),
        _ => Project::new().program("f/run", COMMAND).config("[functions.f]\nhandler = './run'"),
    };
    let table = if runtime == "command" { "" } else { "[functions.f]" };
    let config = format!("{table}\nruntime = '{runtime}'\non_failure = 'file:failed.jsonl'\n{RETRY}\n");
    let route = "[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n";
    project.config(&config).config(route).start().await
}

/// The first delivery of an event that is dead, and its attempts.
async fn dead(node: &Node, data: &'static str) -> (Value, Vec<Value>) {
    let id = node.accepted("/jobs", data).await;
    let delivery = node.event_is(&id, "dead").await["deliveries"][0].take();
    let attempts = delivery["attempts"].as_array().unwrap().clone();
    (delivery, attempts)
}

#[rstest]
#[case::an_error_class_in_python("python", "\"class\"")]
#[case::an_error_in_python("python", "\"instance\"")]
#[case::an_error_in_node("node", "{}")]
#[case::an_error_told_to_the_runtime_api("provided", "{}")]
#[case::the_exit_code_of_wrong_input("command", "{}")]
#[tokio::test]
async fn a_function_can_say_that_another_attempt_would_end_the_same(#[case] runtime: &str, #[case] data: &'static str) {
    let node = node(runtime).await;
    let (delivery, attempts) = dead(&node, data).await;
    assert_eq!((&delivery["reason"], attempts.len()), (&json!("rejected"), 1), "{delivery}");
    assert_eq!((&attempts[0]["outcome"], &attempts[0]["error"]["retry"]), (&json!("error"), &json!(false)));
    assert!(attempts[0]["error"]["message"].as_str().unwrap().contains("the order has no item"));
    let failed = node.lines_of("failed.jsonl", 1).await;
    assert!(failed[0].contains("RetriesExhausted"), "on_failure is told: {}", failed[0]);
}

#[tokio::test]
async fn an_error_that_says_nothing_is_tried_again() {
    let node = node("python").await;
    let (delivery, attempts) = dead(&node, "\"other\"").await;
    assert_eq!((&delivery["reason"], attempts.len()), (&json!("attempts_exhausted"), 3));
    assert_eq!(attempts[0]["error"], json!({ "kind": "ValueError", "message": "the order has no item" }));
}

#[tokio::test]
async fn a_step_that_says_so_is_not_repeated_and_ends_its_pipeline() {
    let config = "[pipelines.p]\nsteps = [{ run = 'f', retry = { attempts = 9, wait = '10ms' } }]\n\
                  [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'p'\n";
    let node = Project::new().function("f", PYTHON).config(config).start().await;
    let id = node.accepted("/jobs", "\"class\"").await;
    let event = node.event_is(&id, "dead").await;
    let deliveries = event["deliveries"].as_array().unwrap();
    let step = deliveries.iter().find(|delivery| delivery["step"] == "f").unwrap();
    assert_eq!((&step["reason"], step["attempts"].as_array().unwrap().len()), (&json!("rejected"), 1));
    assert!(deliveries.iter().any(|delivery| delivery["reason"] == "step_failed"), "{event}");
}

#[tokio::test]
async fn one_message_of_a_batch_can_be_given_up_while_another_is_tried_again() {
    let code = "def handler(event, context):\n    return {'batchItemFailures': [\n        \
                {'itemIdentifier': r['messageId'], 'retry': r['body'] != 'wrong'} for r in event['Records']]}\n";
    let node = Project::new()
        .function_with("f", code, "retry = { attempts = 2, wait = '10ms' }")
        .config("[triggers.jobs]\nqueue = 'nats:jobs'\nto = 'f'\nbatch = { size = 2, window = '1s' }\n")
        .start()
        .await;
    node.reads("jobs", "fnbus_in_jobs").await;
    for body in ["wrong", "late"] {
        assert_eq!(node.fnbus(&["nats", "publish", "jobs", "-d", body]).await.code(), 0);
    }
    node.deliveries_are("dead", 2).await;
    let letters = node.json(&["dead", "list", "--json"]).await;
    let mut reasons: Vec<_> = letters.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["attempts_exhausted", "rejected"]);
}

#[tokio::test]
async fn a_function_that_keeps_ending_its_process_is_given_up_and_others_go_on_meanwhile() {
    let code = "import os, sys\ndef handler(event, context):\n    if event == 'poison':\n        \
                print('goodbye', file=sys.stderr)\n        os._exit(3)\n    return event\n";
    let node = Project::new()
        .function_with("f", code, "concurrency = 2\nretry = { attempts = 3, wait = '10ms' }")
        .config("[triggers.jobs]\nevent = { type = 'job' }\npayload = 'body'\nto = 'f'\n")
        .start()
        .await;
    let job = |n: usize| json!({ "type": "job", "data": if n == 50 { json!("poison") } else { json!(n) } });
    assert_eq!(node.post("/events", json!((0..300).map(job).collect::<Vec<_>>()).to_string()).await.status, 202);
    node.deliveries_are("done", 299).await;
    node.deliveries_are("dead", 1).await;
    let letter = node.json(&["dead", "list", "--json"]).await.remove(0);
    assert_eq!((&letter["attempts"], &letter["reason"]), (&json!(3), &json!("attempts_exhausted")));
    let shown = node.fnbus(&["dead", "show", letter["event"].as_str().unwrap()]).await;
    assert!(shown.stdout.contains("goodbye") && shown.stdout.contains("exit status 3"), "{}", shown.all());
}
