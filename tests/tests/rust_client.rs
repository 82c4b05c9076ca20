//! The official runtime client for Rust, unmodified, in a program as people write them for AWS Lambda (`tools/rust`).

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::fs;

use fnbus_tests::{Answer, Node, Project, clients};
use hyper::Request;
use serde_json::{Value, json};

/// A node with the program as a function; none where nobody built it.
async fn node() -> Option<Node> {
    let bootstrap = clients()?.parent()?.join("rust/debug/bootstrap");
    assert!(bootstrap.exists(), "there is no {}: run `make test`, or tools/clients.sh", bootstrap.display());
    let project = Project::new()
        .file("f/README", "")
        .config("[functions.f]\nruntime = 'provided'\n[triggers.f]\nhttp = 'POST /f'\npayload = 'body'\nto = 'f'\n");
    fs::copy(bootstrap, project.path().join("f/bootstrap")).unwrap();
    let node = project.start().await;
    node.function_ready("f").await;
    Some(node)
}

async fn invoke(node: &Node, what: &str) -> Answer {
    // {"custom": {"k": "v"}}
    let request = Request::post("/2015-03-31/functions/f/invocations")
        .header("x-amz-client-context", "eyJjdXN0b20iOiB7ImsiOiAidiJ9fQ==");
    node.ask_api(request, json!({ "what": what, "n": 1.5 }).to_string()).await
}

#[tokio::test]
async fn a_program_with_the_official_client_answers_and_fails_as_on_aws() {
    let Some(node) = node().await else { return };
    assert_eq!(invoke(&node, "echo").await.json::<Value>(), json!({ "what": "echo", "n": 1.5 }));
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:f";
    assert_eq!(invoke(&node, "context").await.json::<Value>(), json!([36, arn, 256, { "k": "v" }]));
    let pid = invoke(&node, "pid").await.json::<Value>();
    for (what, message) in [("fail", "no such thing"), ("panic", "out of order")] {
        let failed = invoke(&node, what).await;
        assert_eq!(failed.header("x-amz-function-error"), Some("Unhandled"), "{what}: {}", failed.text());
        assert!(failed.json::<Value>()["errorMessage"].as_str().unwrap().contains(message), "{}", failed.text());
    }
    assert_eq!(invoke(&node, "pid").await.json::<Value>(), pid, "the process lives on");
    assert_eq!(invoke(&node, "exit").await.json::<Value>()["errorType"], "Runtime.ExitError");
    assert_ne!(invoke(&node, "pid").await.json::<Value>(), pid, "another one has its place");
}

#[tokio::test]
async fn what_it_streams_is_a_response_or_the_object_of_one() {
    let Some(node) = node().await else { return };
    let answer = node.post("/f", "{\"what\": \"stream\"}").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "one two"));
    let whole = invoke(&node, "stream").await.json::<Value>();
    assert_eq!((&whole["statusCode"], &whole["body"]), (&json!(200), &json!("one two")), "{whole}");
}
