//! What follows from an outcome: `then`, `on_success`, `on_failure`, and targets outside the bus.

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

const ONE: &str = "def handler(event, context):\n    return [{'n': 1.5}, {'n': 2}]\n";
const ECHO: &str = "def handler(event, context):\n    return event\n";
const FAIL: &str = "def handler(event, context):\n    raise ValueError('no')\n";
const ASYNC: &str = "[triggers.go]\nhttp = 'POST /go'\nmode = 'async'\npayload = 'body'\nto = 'first'\n";

/// The events of one type, when there are this many and all of them ended.
async fn events(node: &Node, kind: &str, many: usize) -> Vec<Value> {
    eventually(&format!("{many} events of type {kind}"), || async {
        let events = node.json(&["events", "--type", kind, "--json"]).await;
        let ended = events.iter().all(|event| ["done", "dead"].contains(&event["status"].as_str().unwrap_or_default()));
        (events.len() == many && ended).then_some(events)
    })
    .await
}

async fn lines(node: &Node, path: &str, many: usize) -> Vec<Value> {
    eventually(&format!("{many} lines in {path}"), || async {
        let text = std::fs::read_to_string(node.path().join(path)).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= many).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn an_output_goes_on_to_the_next_function_and_knows_where_it_came_from() {
    let node = Project::new()
        .function_with("first", ONE, "then = 'second'")
        .function("second", ECHO)
        .config(ASYNC)
        .start()
        .await;
    let id = node.accepted("/go", "{}").await;
    let output = events(&node, "function.output", 1).await.remove(0);
    let event = node.show(output["id"].as_str().unwrap()).await;
    assert_eq!((&event["causation"], &event["correlation"], &event["hop"]), (&json!(id), &json!(id), &json!(1)));
    assert_eq!(event["data"], r#"[{"n":1.5},{"n":2}]"#);
    assert_eq!(event["deliveries"][0]["target"], "second");
}

#[tokio::test]
async fn with_each_every_element_of_an_array_goes_on_by_itself() {
    let node = Project::new()
        .function_with("first", ONE, "then = ['second', 'file:out/all.jsonl']\neach = true")
        .function("second", ECHO)
        .config(ASYNC)
        .start()
        .await;
    node.accepted("/go", "{}").await;
    events(&node, "function.output", 2).await;
    let mut data: Vec<_> = lines(&node, "out/all.jsonl", 2).await.iter().map(|line| line["data"].clone()).collect();
    data.sort_by_key(ToString::to_string);
    assert_eq!(data, [json!({ "n": 1.5 }), json!({ "n": 2 })]);
}

#[tokio::test]
async fn a_synchronous_answer_comes_after_what_follows_from_it_is_on_disk() {
    let node = Project::new()
        .function_with("first", ECHO, "then = 'second'")
        .function("second", ECHO)
        .config("[triggers.go]\nhttp = 'POST /go'\npayload = 'body'\nto = 'first'\n")
        .start()
        .await;
    assert_eq!(node.post("/go", r#"{"n":1.10}"#).await.status, 200);
    // No waiting: the answer was the promise.
    node.kill();
    let mut node = node;
    node.restart().await;
    let output = events(&node, "function.output", 1).await.remove(0);
    assert_eq!(node.show(output["id"].as_str().unwrap()).await["data"], r#"{"n":1.1}"#);
}

#[tokio::test]
async fn what_was_given_up_goes_to_on_failure_as_an_invocation_record() {
    let keys = "retry = { attempts = 2, wait = '10ms' }\non_failure = ['second', 'file:failed.jsonl']";
    let node = Project::new().function_with("first", FAIL, keys).function("second", ECHO).config(ASYNC).start().await;
    let id = node.accepted("/go", r#"{"order":7}"#).await;
    node.event_is(&id, "dead").await;
    let record = lines(&node, "failed.jsonl", 1).await.remove(0)["data"].clone();
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestContext"]["approximateInvokeCount"], 2);
    assert_eq!(record["requestPayload"], json!({ "order": 7 }));
    assert_eq!(record["responsePayload"]["errorType"], "ValueError");
    events(&node, "function.failure", 1).await;
}

#[tokio::test]
async fn a_webhook_that_is_down_is_tried_again_and_becomes_a_dead_letter() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let node = Project::new()
        .function_with("first", ECHO, &format!("then = 'http://{address}/hook'"))
        .config(ASYNC)
        .config("[webhooks]\nallow_private = true\n")
        .start()
        .await;
    node.accepted("/go", "{}").await;
    let letter = eventually("a dead letter", || async { node.json(&["dead", "list", "--json"]).await.pop() }).await;
    assert_eq!(letter["target"], format!("http://{address}/hook"));
    assert_eq!((&letter["attempts"], &letter["error"]["kind"]), (&json!(3), &json!("Webhook.Connect")));
}

#[tokio::test]
async fn a_webhook_gets_the_data_with_the_id_of_its_delivery_and_private_ones_are_refused_unless_allowed() {
    use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
    let (seen, mut posts) = tokio::sync::mpsc::unbounded_channel();
    let hook = post(move |headers: HeaderMap, body: Bytes| {
        let _ = seen.send((headers, body));
        async { "thanks" }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", hook)).await });
    let keys = format!("then = 'http://{address}/hook'");
    let allowed = Project::new().function_with("first", ECHO, &keys).config(ASYNC);
    let node = allowed.config("[webhooks]\nallow_private = true\n").start().await;
    node.accepted("/go", r#"{"n":1}"#).await;
    let (headers, body) = posts.recv().await.unwrap();
    assert_eq!((&body[..], &headers["ce-type"]), (&br#"{"n":1}"#[..], &"function.output".parse().unwrap()));
    let output = events(&node, "function.output", 1).await.remove(0);
    let event = node.show(output["id"].as_str().unwrap()).await;
    assert_eq!(event["deliveries"][0]["id"], headers["webhook-id"].to_str().unwrap());
    assert_eq!(event["deliveries"][0]["attempts"][0]["output"], "thanks");

    let keys = format!("{keys}\nretry = {{ attempts = 1 }}");
    let node = Project::new().function_with("first", ECHO, &keys).config(ASYNC).start().await;
    node.accepted("/go", "{}").await;
    let output = events(&node, "function.output", 1).await.remove(0);
    let event = node.show(output["id"].as_str().unwrap()).await;
    assert_eq!(event["status"], "dead");
    assert_eq!(event["deliveries"][0]["attempts"][0]["error"]["kind"], "Webhook.Url");
}

#[tokio::test]
async fn an_avalanche_ends_at_the_branch_limit_where_it_can_be_seen() {
    let code = "def handler(event, context): return list(range(event))\n";
    let spread = "def handler(event, context): return [400] * event\n";
    let node = Project::new()
        .function_with("first", spread, "then = 'second'\neach = true")
        .function_with("second", code, "then = 'file:out.jsonl'\neach = true")
        .config("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'first'\n")
        .config("[triggers.now]\nhttp = 'POST /now'\npayload = 'body'\nto = 'first'\n")
        .start()
        .await;
    node.accepted("/jobs", "2").await;
    assert_eq!(node.lines_of("out.jsonl", 800).await.len(), 800, "what is large is not yet an avalanche");
    node.accepted("/jobs", "300").await;
    node.deliveries_are("dead", 300).await;
    let letter = node.json(&["dead", "list", "-n", "1", "--json"]).await.remove(0);
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("branch_limit"), &json!(1)));
    assert_eq!(letter["error"]["kind"], "Runtime.TooManyEvents");
    assert_eq!(node.read("out.jsonl").lines().count(), 800, "nothing follows from it");
    assert_eq!(node.post("/now", "100001").await.status, 502, "a caller is told");
}

#[tokio::test]
async fn a_loop_ends_at_the_hop_limit_where_it_can_be_seen() {
    let node = Project::new()
        .function_with("first", ECHO, "then = 'second'")
        .function_with("second", ECHO, "then = 'first'")
        .config(ASYNC)
        .start()
        .await;
    node.accepted("/go", "{}").await;
    let events = events(&node, "function.output", 17).await;
    assert_eq!(events.iter().filter(|event| event["status"] == "dead").count(), 1);
    let letters = node.json(&["dead", "list", "--json"]).await;
    assert_eq!(letters[0]["reason"], "hop_limit");
}

#[tokio::test]
async fn an_output_goes_on_the_bus_as_an_event_of_the_type_a_target_names() {
    let node = Project::new()
        .function_with("first", ECHO, "then = 'event:order.priced'")
        .function("second", ECHO)
        .config("[pipelines.line]\nsteps = ['first', 'event:order.confirmed']\n")
        .config("[triggers.line]\nhttp = 'POST /line'\npayload = 'body'\nto = 'line'\n")
        .config("[triggers.heard]\nevent = { type = ['order.priced', 'order.confirmed'] }\nto = 'second'\n")
        .config(ASYNC)
        .start()
        .await;
    let id = node.accepted("/go", r#"{"n":1.10}"#).await;
    let priced = events(&node, "order.priced", 1).await.remove(0);
    let event = node.show(priced["id"].as_str().unwrap()).await;
    assert_eq!((&event["data"], &event["source"]), (&json!(r#"{"n":1.1}"#), &json!("/fnbus/first")));
    assert_eq!((&event["deliveries"][0]["target"], &event["correlation"]), (&json!("second"), &json!(id)));
    // In a pipeline it passes on what it got.
    assert_eq!(node.post("/line", r#"{"n":2}"#).await.json::<Value>(), json!({ "n": 2 }));
    let confirmed = events(&node, "order.confirmed", 1).await.remove(0);
    assert_eq!((&confirmed["source"], &confirmed["targets"]), (&json!("/fnbus/line"), &json!(["second"])));
}
