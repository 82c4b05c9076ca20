//! The official runtime client for Python, unmodified, as a `provided` function; and our own runtime beside it on the same
//! code: the same answers, errors and contexts.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use fnbus_tests::{Answer, Node, Project, clients};
use hyper::Request;
use serde_json::Value;

/// Does what the event names.
const APP: &str = r#"
import decimal, json, os
loads = 0

class Own(Exception):
    pass

def handler(event, context):
    global loads
    loads += 1
    what = event["what"]
    if what == "echo":
        return event
    if what == "none":
        return None
    if what == "text":
        return "text \u00e9 \ud55c"
    if what == "list":
        return [1, 2.5, True, None, {"a": []}]
    if what == "decimal":
        return {"price": decimal.Decimal("1.10")}
    if what == "big":
        return 123456789012345678901234567890
    if what == "nan":
        return float("nan")
    if what == "set":
        return {1, 2}
    if what == "raise":
        raise ValueError("no such thing: \u00e9")
    if what == "own":
        raise Own("of our own")
    if what == "empty":
        raise Own()
    if what == "chained":
        try:
            {}["gone"]
        except KeyError as error:
            raise RuntimeError("because") from error
    if what == "count":
        return loads
    if what == "context":
        told = context.client_context
        return [context.memory_limit_in_mb, len(context.aws_request_id),
                context.invoked_function_arn.split(":")[:6], context.log_group_name[:12],
                0 < context.get_remaining_time_in_millis() <= 30000, context.identity.cognito_identity_id,
                told.custom, told.env, told.client.app_title, told.client.installation_id]
    if what == "env":
        return [os.environ.get(name) for name in ("AWS_REGION", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "TZ", "OWN")]
"#;

/// A project with the same code run by our runtime (`a`) and by the official client (`b`), on the same interpreter. The
/// client is to do as on Python 3.12 and newer, where it writes UTF-8, as ours does everywhere.
async fn both(clients: &std::path::Path, code: &str, handler: &str) -> Node {
    let python = clients.join("bin/python");
    let bootstrap = format!("#!/bin/sh\nexec '{}' -m awslambdaric {handler}\n", python.display());
    let functions = format!(
        "[functions.a]\nruntime = 'python'\nhandler = '{handler}'\nenv = {{ OWN = 'yes' }}\n\
         [functions.b]\nruntime = 'provided'\nfolders = {{ read = '{}' }}\n\
         env = {{ OWN = 'yes', AWS_EXECUTION_ENV = 'AWS_Lambda_python3.12' }}\n",
        clients.display()
    );
    Project::new()
        .file("a/app.py", code)
        .file("b/app.py", code)
        .program("b/bootstrap", &bootstrap)
        .variable("FNBUS_PYTHON", python.to_str().unwrap())
        .config(&functions)
        .start()
        .await
}

async fn invoke(node: &Node, function: &str, payload: &str) -> Answer {
    // {"custom": {"k": "v"}, "env": {"e": "f"}, "client": {"app_title": "t"}}
    let context = "eyJjdXN0b20iOiB7ImsiOiAidiJ9LCAiZW52IjogeyJlIjogImYifSwgImNsaWVudCI6IHsiYXBwX3RpdGxlIjogInQifX0=";
    let request = Request::post(format!("/2015-03-31/functions/{function}/invocations"));
    node.ask_api(request.header("x-amz-client-context", context), payload.to_owned()).await
}

/// JSON without its blanks, digits as they are: we write none, the official client does.
fn compact(json: &str) -> String {
    let (mut within, mut escaped) = (false, false);
    let keep = |c: &char| -> bool {
        let kept = within || !c.is_ascii_whitespace();
        within ^= *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        kept
    };
    json.chars().filter(keep).collect()
}

/// What is compared of an answer: ids and paths are of each one's own.
fn essence(answer: &Answer) -> (u16, Option<String>, String) {
    let mut text = answer.text().to_owned();
    if let Ok(mut error @ Value::Object(_)) = serde_json::from_str::<Value>(&text)
        && error.get("errorType").is_some()
    {
        let id = answer.header("x-amzn-requestid").unwrap_or_default();
        assert!(error["requestId"] == id || error["requestId"] == "", "{error}");
        error["requestId"] = Value::Null;
        for frame in error["stackTrace"].as_array_mut().into_iter().flatten() {
            let line = frame.as_str().unwrap_or_default().split(", line").last().unwrap_or_default().to_owned();
            *frame = line.into();
        }
        // ours also says what to do
        text = error.to_string().replace("; return what json.dumps takes, or bytes", "");
    }
    (answer.status.as_u16(), answer.header("x-amz-function-error").map(str::to_owned), compact(&text))
}

#[tokio::test]
async fn the_official_client_and_our_runtime_answer_alike() {
    let Some(clients) = clients() else { return };
    let node = both(&clients, APP, "app.handler").await;
    for function in ["a", "b"] {
        node.function_ready(function).await;
    }
    for what in [
        "count", "count", "echo", "none", "text", "list", "decimal", "big", "nan", "set", "raise", "own", "empty",
        "chained", "context", "env", "count",
    ] {
        let payload = format!("{{\"what\": \"{what}\", \"n\": 1.0}}");
        let (ours, theirs) = (invoke(&node, "a", &payload).await, invoke(&node, "b", &payload).await);
        assert_eq!(essence(&ours), essence(&theirs), "{what}");
    }
}

#[tokio::test]
async fn code_that_cannot_be_loaded_is_told_alike() {
    let Some(clients) = clients() else { return };
    for (code, handler) in [
        ("import nothing_of_this_name\ndef handler(event, context): pass\n", "app.handler"),
        ("def handler(event, context) pass\n", "app.handler"),
        ("def other(event, context): pass\n", "app.handler"),
        ("raise ValueError('while loading')\n", "app.handler"),
    ] {
        let node = both(&clients, code, handler).await;
        let (ours, theirs) = (invoke(&node, "a", "{}").await, invoke(&node, "b", "{}").await);
        let kind = |answer: &Answer| {
            let error = answer.json::<Value>();
            (
                answer.status.as_u16(),
                answer.header("x-amz-function-error").map(str::to_owned),
                error["errorType"].clone(),
            )
        };
        assert_eq!(kind(&ours), kind(&theirs), "{code}: {} {}", ours.text(), theirs.text());
    }
}
