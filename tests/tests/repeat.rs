//! Synchronous calls with an id of their own: accepted before they run, and answered alike however often they come.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Answer, Node, Project, eventually};
use futures_util::future::join_all;
use hyper::Request;
use rstest::rstest;
use serde_json::{Value, json};

/// Notes each execution, waits while there is no file `go`, and fails where it is asked to.
const CODE: &str = r#"
import os, time
def handler(event, context):
    with open(os.environ["RAN"], "a") as file:
        file.write(context.event_id + "\n")
    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
    body = event["body"]
    if "fail" in body:
        raise ValueError("no")
    return {"statusCode": 201, "headers": {"x-order": "7"}, "cookies": ["a=b"], "body": "made of " + body + str(time.time())}
"#;

const ROUTES: &str = "[triggers.orders]\nhttp = 'POST /orders'\nto = 'f'\n\
                      [triggers.runs]\nhttp = 'POST /runs'\nto = 'p'\n\
                      [pipelines.p]\nsteps = ['f']\n";

async fn node(keys: &str) -> Node {
    let project = Project::new();
    let path = |name: &str| project.path().join(name).display().to_string();
    let keys = format!("env = {{ RAN = '{}', GO = '{}' }}\n{keys}", path("notes/ran"), path("go"));
    project.function_with("f", CODE, &keys).config(ROUTES).start().await
}

async fn post(node: &Node, path: &str, id: &str, body: &'static str) -> Answer {
    node.send(Request::post(path).header("idempotency-key", id).header("content-type", "text/plain"), body).await
}

/// Calls as `order-7`, and goes away when the function runs.
async fn begun(node: &Node, path: &str) {
    tokio::select! {
        answer = post(node, path, "order-7", "tea") => panic!("nothing lets it go: {}", answer.text()),
        _ = node.lines_of("notes/ran", 1) => {}
    }
}

fn executions(node: &Node) -> usize {
    node.read("notes/ran").lines().count()
}

fn problem(answer: &Answer) -> (u16, String, Option<String>) {
    let kind = answer.json::<Value>()["type"].as_str().unwrap().to_owned();
    (answer.status.as_u16(), kind, answer.header("retry-after").map(str::to_owned))
}

#[tokio::test]
async fn a_repeat_gets_the_same_response_and_runs_nothing() {
    let mut node = node("").await;
    node.write("go", "");
    let first = post(&node, "/orders", "order-7", "tea").await;
    assert_eq!(
        (first.status.as_u16(), first.header("x-order"), first.header("set-cookie")),
        (201, Some("7"), Some("a=b"))
    );
    let again = post(&node, "/orders", "order-7", "tea").await;
    assert_eq!((again.status, again.text(), again.header("x-order")), (first.status, first.text(), Some("7")));
    let failed = post(&node, "/orders", "order-8", "fail").await;
    assert_eq!((failed.status.as_u16(), post(&node, "/orders", "order-8", "fail").await.status.as_u16()), (502, 502));
    node.kill();
    node.restart().await;
    assert_eq!(post(&node, "/orders", "order-7", "tea").await.text(), first.text(), "it is in the log");
    assert_eq!(executions(&node), 2);
    let event = node.show("order-7").await;
    assert_eq!((&event["status"], event["deliveries"][0]["attempts"].as_array().unwrap().len()), (&json!("done"), 1));
    assert_ne!(
        node.post("/orders", "tea").await.text(),
        node.post("/orders", "tea").await.text(),
        "without an id each runs"
    );
}

#[tokio::test]
async fn another_body_under_the_id_is_refused_said_and_counted() {
    let node = node("").await;
    node.write("go", "");
    post(&node, "/orders", "order-7", "tea").await;
    let other = post(&node, "/orders", "order-7", "coffee").await;
    assert_eq!(problem(&other), (409, "urn:fnbus:conflict".to_owned(), None));
    assert_eq!(executions(&node), 1);
    node.says("another one has its id and another body").await;
    assert!(node.said().contains("order-7") && node.said().contains("orders"));
    assert_eq!(node.json(&["node", "--json"]).await[0]["conflicts"], 1);
    let empty = node.send(Request::post("/orders").header("idempotency-key", ""), "tea").await;
    assert_eq!(empty.status, 400);
}

#[tokio::test]
async fn while_it_runs_a_repeat_is_told_so_and_of_many_at_once_one_runs() {
    let node = node("").await;
    let calls = join_all((0..20).map(|_| post(&node, "/orders", "order-7", "tea")));
    let release = async {
        node.lines_of("notes/ran", 1).await;
        let repeat = post(&node, "/orders", "order-7", "tea").await;
        assert_eq!(problem(&repeat), (409, "urn:fnbus:in-progress".to_owned(), Some("1".to_owned())));
        node.write("go", "");
    };
    let (answers, ()) = tokio::join!(calls, release);
    let first = answers.iter().find(|answer| answer.status == 201).expect("one is answered").text();
    for answer in &answers {
        match answer.status.as_u16() {
            201 => assert_eq!(answer.text(), first),
            other => assert_eq!(other, 409),
        }
    }
    assert_eq!(executions(&node), 1);
}

#[tokio::test]
async fn a_call_that_was_refused_before_it_ran_is_forgotten() {
    let node = node("concurrency = 0").await;
    node.write("go", "");
    assert_eq!(post(&node, "/orders", "order-7", "tea").await.status, 503);
    assert_eq!(node.fnbus(&["show", "order-7"]).await.code(), 1, "it has left nothing");
    node.reconfigure(&node.project().toml().replace("concurrency = 0", "concurrency = 1")).await;
    let answered = || async { (post(&node, "/orders", "order-7", "tea").await.status == 201).then_some(()) };
    eventually("it runs as a new one", answered).await;
}

#[tokio::test]
async fn a_call_whose_node_ended_in_the_middle_is_lost_and_a_repeat_runs_it_again() {
    let mut node = node("").await;
    begun(&node, "/orders").await;
    // what began is on disk before it is called
    node.kill();
    node.restart().await;
    node.write("go", "");
    assert_eq!(node.show("order-7").await["deliveries"][0]["attempts"][0]["outcome"], "lost");
    assert_eq!(post(&node, "/orders", "order-7", "tea").await.status, 201);
    assert_eq!(executions(&node), 2, "at least once");
    let attempts = node.show("order-7").await["deliveries"][0]["attempts"].take();
    let outcomes: Vec<_> = attempts.as_array().unwrap().iter().map(|attempt| attempt["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("lost"), json!("ok")]);
    assert_eq!(post(&node, "/orders", "order-7", "tea").await.status, 201);
    assert_eq!(executions(&node), 2, "and no more");
}

#[rstest]
#[case::a_pipeline("/runs", "")]
#[case::a_function("/orders", "")]
#[case::a_function_whose_output_goes_on("/orders", "then = 'file:out.jsonl'")]
#[tokio::test]
async fn a_repeat_repeats_nothing_that_follows(#[case] path: &str, #[case] keys: &str) {
    let node = node(keys).await;
    node.write("go", "");
    let first = post(&node, path, "order-7", "tea").await;
    assert_eq!(first.status, 201, "{}", first.text());
    assert_eq!(post(&node, path, "order-7", "tea").await.text(), first.text());
    assert_eq!(executions(&node), 1);
    let outputs = node.json(&["events", "--type", "function.output", "--json"]).await.len();
    assert_eq!(outputs, usize::from(!keys.is_empty()), "nothing follows from what has no `then`");
    if !keys.is_empty() {
        node.lines_of("out.jsonl", 1).await;
        node.deliveries_are("done", 2).await;
        assert_eq!(node.read("out.jsonl").lines().count(), 1);
    }
}

#[tokio::test]
async fn a_repeat_of_a_pipeline_that_runs_is_told_so_and_the_run_survives_its_node() {
    let mut node = node("").await;
    begun(&node, "/runs").await;
    assert_eq!(problem(&post(&node, "/runs", "order-7", "tea").await).1, "urn:fnbus:in-progress");
    node.kill();
    node.restart().await;
    node.write("go", "");
    node.event_is("order-7", "done").await;
    assert_eq!(post(&node, "/runs", "order-7", "tea").await.status, 201);
}
