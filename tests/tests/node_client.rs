//! The official runtime client for Node.js as a `provided` function, and our own runtime beside it on the same code: the same
//! answers, errors, contexts and streams.
//!
//! Its JavaScript runs unmodified. Its native part, which sends and gets over HTTP and would have to be compiled, is played by
//! `NATIVE`.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::path::Path;

use fnbus_tests::{Answer, Node, Project, clients};
use http_body_util::BodyExt;
use hyper::Request;
use rstest::rstest;
use serde_json::{Value, json};

/// Answers an invocation before it returns, as the native part does. What asks for the next one is in JavaScript already.
const NATIVE: &str = r#"
const Module = require("node:module");
const { Worker } = require("node:worker_threads");
const base = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation/`;
const answered = new Int32Array(new SharedArrayBuffer(4));
const worker = new Worker(`
  const { parentPort, workerData: answered } = require("node:worker_threads");
  parentPort.on("message", ({ url, body }) => {
    const headers = { "content-type": "application/json" };
    const done = () => { Atomics.store(answered, 0, 1); Atomics.notify(answered, 0); };
    require("node:http").request(url, { method: "POST", headers }, (a) => a.resume().on("end", done)).end(body);
  });`, { eval: true, workerData: answered, execArgv: [] });
worker.unref();
function post(url, body) {
  Atomics.store(answered, 0, 0);
  worker.postMessage({ url, body });
  Atomics.wait(answered, 0, 0);
}
module.exports = {
  done: (id, body) => post(`${base}${id}/response`, body),
  error: (id, body) => post(`${base}${id}/error`, body),
};
const resolve = Module._resolveFilename;
Module._resolveFilename = (name, ...more) => (name === "./rapid-client.node" ? __filename : resolve(name, ...more));
"#;

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
  env: async () => ["AWS_REGION", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "TZ", "OWN", "_HANDLER"].map((n) => process.env[n]),
};
exports.handler = (event, context, callback) => { loads += 1; return does[event.what](event, context, callback); };
"#;

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

/// A project with the same code run by our runtime (`a`) and by the official client (`b`).
async fn both(clients: &Path, file: &str, code: &str) -> Node {
    let client = clients.join("node_modules/aws-lambda-ric/bin/index.mjs");
    assert!(client.exists(), "the clients are of an older version: run `make test`, or tools/clients.sh");
    let bootstrap = format!(
        "#!/bin/sh\nexec node --require \"$LAMBDA_TASK_ROOT/native.cjs\" '{}' index.handler\n",
        client.display()
    );
    let functions = format!(
        "[functions.a]\nruntime = 'node'\nenv = {{ OWN = 'yes' }}\nretry = {{ attempts = 1 }}\n\
         [functions.b]\nruntime = 'provided'\nfolders = {{ read = '{}' }}\nretry = {{ attempts = 1 }}\n\
         env = {{ OWN = 'yes', AWS_LAMBDA_NODEJS_USE_ALTERNATIVE_CLIENT_1 = 'true', _HANDLER = 'index.handler' }}\n\
         [triggers.a]\nhttp = 'POST /a'\npayload = 'body'\nto = 'a'\n\
         [triggers.b]\nhttp = 'POST /b'\npayload = 'body'\nto = 'b'\n",
        clients.display()
    );
    Project::new()
        .file(&format!("a/{file}"), code)
        .file(&format!("b/{file}"), code)
        .file("b/native.cjs", NATIVE)
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

#[tokio::test]
async fn the_official_client_and_our_runtime_answer_alike() {
    let Some(clients) = clients() else { return };
    let node = both(&clients, "index.js", APP).await;
    for function in ["a", "b"] {
        node.function_ready(function).await;
    }
    for what in [
        "count",
        "count",
        "echo",
        "none",
        "nothing",
        "text",
        "list",
        "then",
        "callback",
        "twice",
        "waits",
        "hurries",
        "later",
        "failed",
        "failed_text",
        "failed_null",
        "failed_number",
        "succeed",
        "fail",
        "fail_nothing",
        "done",
        "throws",
        "throws_at_once",
        "rejects",
        "caused",
        "context",
        "env",
        "count",
    ] {
        let (ours, theirs) = (invoke(&node, "a", what).await, invoke(&node, "b", what).await);
        assert_eq!(essence(&ours), essence(&theirs), "{what}");
    }
}

#[tokio::test]
async fn the_official_client_and_our_runtime_stream_alike() {
    let Some(clients) = clients() else { return };
    let node = both(&clients, "index.js", STREAMS).await;
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
#[tokio::test]
async fn code_is_loaded_or_refused_alike(#[case] file: &str, #[case] code: &str) {
    let Some(clients) = clients() else { return };
    let node = both(&clients, file, code).await;
    let (ours, theirs) = (invoke(&node, "a", "").await, invoke(&node, "b", "").await);
    let told = |answer: &Answer| {
        let value = answer.json::<Value>();
        let kind = value.get("errorType").cloned().unwrap_or(value);
        (answer.status.as_u16(), answer.header("x-amz-function-error").map(str::to_owned), kind)
    };
    assert_eq!(told(&ours), told(&theirs), "{} {}", ours.text(), theirs.text());
}
