//! The official runtime clients for Node.js, unmodified, as `provided` functions; and our own runtime beside them on the same
//! code: the same answers, errors, contexts and streams.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::path::{Path, PathBuf};

use fnbus_tests::{Answer, Node, Project, clients};
use http_body_util::BodyExt;
use hyper::Request;
use rstest::rstest;
use serde_json::{Value, json};

/// One of the two that are there: AWS runs the older one up to Node.js 22.
#[derive(Clone, Copy, PartialEq)]
enum Client {
    /// On the Node.js that came with it.
    Newest,
    /// On the one that is installed, which the tests count on to take callbacks.
    WithCallbacks,
}

impl Client {
    /// Its binary and its script.
    fn programs(self, clients: &Path) -> (PathBuf, PathBuf) {
        let modules = clients.join("node_modules");
        match self {
            Self::Newest => (clients.join("node/bin/node"), modules.join("aws-lambda-ric/index.mjs")),
            Self::WithCallbacks => ("node".into(), modules.join("aws-lambda-ric-3/bin/index.mjs")),
        }
    }
}

/// Does what the event names.
const APP: &str = r#"
let loads = 0;
class Own extends Error {
  constructor(message) { super(message); this.name = "Own"; this.code = "E_OWN"; }
}
const does = {
  count: async () => loads,
  echo: async (event) => event,
  none: async () => {},
  nothing: () => {},
  plain: () => "plain",
  text: async () => "text \u00e9 \ud55c",
  list: async () => [1, 2.5, true, null, undefined, { a: [], b: undefined }, new Date(0), NaN],
  then: () => ({ then: (resolve) => resolve("thenable") }),
  callback: (event, context, callback) => callback(null, { done: true }),
  twice: (event, context, callback) => { callback(null, 1); callback(null, 2); },
  waits: (event, context, callback) => { const list = []; setTimeout(() => list.push(1), 20); callback(null, list); },
  hurries: (event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    const list = [];
    setTimeout(() => list.push(1), 20);
    callback(null, list);
  },
  later: (event, context, callback) => setTimeout(() => callback(null, "later"), 20),
  failed: (event, context, callback) => callback(new RangeError("far")),
  failed_text: (event, context, callback) => callback("sorry"),
  failed_null: async () => { throw null; },
  failed_number: async () => { throw 7; },
  succeed: (event, context) => context.succeed("old"),
  fail: (event, context) => context.fail(new Own("old")),
  fail_nothing: (event, context) => context.fail(),
  done: (event, context) => context.done(null, "done"),
  throws: async () => { throw new TypeError("no such thing: \u00e9"); },
  throws_at_once: () => { throw new Own("at once"); },
  rejects: () => Promise.reject(new Own("own")),
  caused: async () => { throw new Error("because", { cause: new Error("gone") }); },
  context: async (event, context) => [
    context.memoryLimitInMB, context.awsRequestId.length, context.invokedFunctionArn.split(":").slice(0, 6),
    context.logGroupName.slice(0, 12), context.callbackWaitsForEmptyEventLoop, context.identity === undefined,
    context.tenantId === undefined, context.clientContext, context.getRemainingTimeInMillis() > 0,
    ["succeed", "fail", "done"].map((name) => typeof context[name]),
  ],
  traced: async (event, context) => {
    const [id, { InvokeStore }] = [process.env._X_AMZN_TRACE_ID, awslambda];
    const stored = [InvokeStore.getRequestId() === context.awsRequestId, InvokeStore.getXRayTraceId() === id];
    return [context.xRayTraceId === id, ...stored];
  },
  env: async () => ["AWS_REGION", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "TZ", "OWN", "_HANDLER"].map((n) => process.env[n]),
};
"#;

/// The handler that they have in common, and the one that takes callbacks.
const PROMISES: &str =
    "exports.handler = (event, context) => { loads += 1; return does[event.what](event, context); };\n";
const CALLBACKS: &str = "exports.handler = (event, context, callback) => {
  loads += 1;
  return does[event.what](event, context, callback);
};\n";

/// Streams what the event names.
const STREAMS: &str = r#"
const { Readable, pipeline } = require("node:stream");
const from = (stream, prelude) => awslambda.HttpResponseStream.from(stream, prelude);
const does = {
  plain: async (stream) => { stream.write("one "); stream.end("two"); },
  typed: async (stream) => { stream.setContentType("text/plain"); stream.write("one"); stream.end(); },
  object: async (stream) => { stream.write({ a: 1 }); stream.write(new Uint8Array([65])); stream.end(); },
  head: async (stream) => {
    stream = from(stream, { statusCode: 201, headers: { "x-a": "b", "content-type": "text/html" }, cookies: ["c=d"] });
    stream.write("<p>");
    stream.end();
  },
  bare_head: async (stream) => { stream = from(stream, {}); stream.write("x"); stream.end(); },
  piped: (stream) => new Promise((resolve, reject) =>
    pipeline(Readable.from(["a".repeat(300000), "b".repeat(300000)]), stream, (error) => (error ? reject(error) : resolve()))),
  later: async (stream) => { stream.write("a"); await new Promise((r) => setTimeout(r, 20)); stream.end("b"); },
  throws: async () => { throw new TypeError("before"); },
  breaks: async (stream) => { stream.write("begun"); await new Promise((r) => setTimeout(r, 20)); throw new TypeError("late"); },
  too_late: async (stream) => { stream.write("begun"); stream.setContentType("text/plain"); },
  at_once: (stream) => { stream.write("x"); },
};
exports.handler = awslambda.streamifyResponse((event, stream, context) => does[event.what](stream, context));
"#;

/// A project with the same code run by our runtime (`a`) and by an official client (`b`).
async fn both(client: Client, clients: &Path, file: &str, code: &str) -> Node {
    let (node, script) = client.programs(clients);
    assert!(script.exists(), "the clients are of an older version: run `make test`, or tools/clients.sh");
    let bootstrap = format!(
        "#!/bin/sh\nexport _HANDLER=index.handler\nexec '{}' '{}' index.handler\n",
        node.display(),
        script.display()
    );
    let functions = format!(
        "[functions.a]\nruntime = 'node'\nmemory = 1024\nenv = {{ OWN = 'yes' }}\nretry = {{ attempts = 1 }}\n\
         [functions.b]\nruntime = 'provided'\nmemory = 1024\nenv = {{ OWN = 'yes' }}\nretry = {{ attempts = 1 }}\n\
         folders = {{ read = '{}' }}\n\
         [triggers.a]\nhttp = 'POST /a'\npayload = 'body'\nto = 'a'\n\
         [triggers.b]\nhttp = 'POST /b'\npayload = 'body'\nto = 'b'\n",
        clients.display()
    );
    Project::new()
        .variable("FNBUS_NODE", &node.display().to_string())
        .file(&format!("a/{file}"), code)
        .file(&format!("b/{file}"), code)
        .program("b/bootstrap", &bootstrap)
        .config(&functions)
        .start()
        .await
}

async fn invoke(node: &Node, function: &str, what: &str) -> Answer {
    // {"custom": {"k": "v"}, "env": {"e": "f"}}
    let context = "eyJjdXN0b20iOiB7ImsiOiAidiJ9LCAiZW52IjogeyJlIjogImYifX0=";
    let request = Request::post(format!("/2015-03-31/functions/{function}/invocations"));
    node.ask_api(request.header("x-amz-client-context", context), json!({ "what": what, "n": 1.5 }).to_string()).await
}

/// What is compared of an answer: paths are of each one's own, and so is what stands below the handler in a trace.
fn essence(answer: &Answer) -> (u16, Option<String>, String) {
    let mut text = answer.text().to_owned();
    if let Ok(mut error @ Value::Object(_)) = serde_json::from_str::<Value>(&text)
        && let Some(trace) = error["trace"].as_array_mut()
    {
        trace.truncate(2);
        for frame in trace {
            *frame = frame.as_str().unwrap_or_default().rsplit(['/', '(']).next().unwrap_or_default().into();
        }
        text = error.to_string();
    }
    (answer.status.as_u16(), answer.header("x-amz-function-error").map(str::to_owned), text)
}

/// What handlers that return promises do.
const WITH_PROMISES: &[&str] = &[
    "count",
    "count",
    "echo",
    "none",
    "nothing",
    "text",
    "list",
    "then",
    "plain",
    "failed_null",
    "failed_number",
    "throws",
    "throws_at_once",
    "rejects",
    "caused",
    "context",
    "env",
    "count",
];
/// What only the newest client has.
const NEWEST: &[&str] = &["traced"];
/// What is only there where they may take callbacks.
const WITH_CALLBACKS: &[&str] = &[
    "callback",
    "twice",
    "waits",
    "hurries",
    "later",
    "failed",
    "failed_text",
    "succeed",
    "fail",
    "fail_nothing",
    "done",
    "count",
];

#[rstest]
#[case::newest(Client::Newest, PROMISES, NEWEST)]
#[case::with_callbacks(Client::WithCallbacks, CALLBACKS, WITH_CALLBACKS)]
#[tokio::test]
async fn the_official_client_and_our_runtime_answer_alike(
    #[case] client: Client,
    #[case] handler: &str,
    #[case] more: &[&str],
) {
    let Some(clients) = clients() else { return };
    let node = both(client, &clients, "index.js", &format!("{APP}{handler}")).await;
    for function in ["a", "b"] {
        node.function_ready(function).await;
    }
    for what in WITH_PROMISES.iter().chain(more) {
        let (ours, theirs) = (invoke(&node, "a", what).await, invoke(&node, "b", what).await);
        assert_eq!(essence(&ours), essence(&theirs), "{what}");
    }
}

#[rstest]
#[case::newest(Client::Newest)]
#[case::with_callbacks(Client::WithCallbacks)]
#[tokio::test]
async fn the_official_client_and_our_runtime_stream_alike(#[case] client: Client) {
    let Some(clients) = clients() else { return };
    let node = both(client, &clients, "index.js", STREAMS).await;
    for function in ["a", "b"] {
        node.function_ready(function).await;
    }
    for what in [
        "plain",
        "typed",
        "object",
        "head",
        "bare_head",
        "piped",
        "later",
        "throws",
        "breaks",
        "too_late",
        "at_once",
        "plain",
    ] {
        let mut answers = Vec::new();
        for path in ["/a", "/b"] {
            let response = node.open(Request::post(path), json!({ "what": what }).to_string()).await.unwrap();
            let head = [&response.headers()["content-type"]].into_iter().chain(response.headers().get("x-a"));
            let head: Vec<String> = head
                .chain(response.headers().get_all("set-cookie"))
                .map(|value| value.to_str().unwrap().to_owned())
                .collect();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).ok();
            // the document of a refusal has an id
            answers.push((status, head, body.filter(|_| status != 502)));
        }
        assert_eq!(answers[0], answers[1], "{what}");
    }
}

#[rstest]
#[case::a_module("index.mjs", "const one = await Promise.resolve(1);\nexport const handler = async () => one;\n")]
#[case::a_script("index.cjs", "exports.handler = async () => __filename.slice(-9);\n")]
#[case::a_missing_package("index.js", "require('nothing-of-this-name');\n")]
#[case::a_syntax_error("index.js", "exports.handler = async ( => 1\n")]
#[case::no_handler("index.js", "exports.other = async () => 1\n")]
#[case::no_function("index.js", "exports.handler = 1\n")]
#[case::throws_while_loading("index.js", "throw new RangeError('while loading')\n")]
#[case::a_callback("index.js", "exports.handler = (event, context, callback) => callback(null, 1)\n")]
#[tokio::test]
async fn code_is_loaded_or_refused_alike(
    #[case] file: &str,
    #[case] code: &str,
    #[values(Client::Newest, Client::WithCallbacks)] client: Client,
) {
    let Some(clients) = clients() else { return };
    let node = both(client, &clients, file, code).await;
    let (ours, theirs) = (invoke(&node, "a", "").await, invoke(&node, "b", "").await);
    let told = |answer: &Answer| {
        let value = answer.json::<Value>();
        let kind = value.get("errorType").cloned().unwrap_or(value);
        (answer.status.as_u16(), answer.header("x-amz-function-error").map(str::to_owned), kind)
    };
    assert_eq!(told(&ours), told(&theirs), "{} {}", ours.text(), theirs.text());
}
