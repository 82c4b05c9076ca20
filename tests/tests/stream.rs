//! Answers that a program streams: they reach their caller while it still runs, whole or broken off, and take no room.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::fs;

use bytes::Bytes;
use fnbus_tests::{NOTES, Node, Process, Project, call_with, clients, eventually};
use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming};
use rstest::rstest;
use serde_json::{Value, json};

/// Streams what the event says: bytes to send, files to wait for, and ways to end.
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import base64, http.client, json, os, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"
def send(data):
    api.send(b"%x\r\n%s\r\n" % (len(data), data))
while True:
    api.request("GET", base + "next")
    reply = api.getresponse()
    event, id = json.loads(reply.read()), reply.headers["Lambda-Runtime-Aws-Request-Id"]
    api.putrequest("POST", base + id + "/response")
    api.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
    api.putheader("Transfer-Encoding", "chunked")
    api.putheader("Content-Type", event.get("type", "text/event-stream"))
    api.putheader("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body")
    api.endheaders()
    end = b"0\r\n"
    for step, what in event["steps"]:
        if step == "send":
            send(what.encode())
        elif step == "mebibytes":
            for n in range(what):
                send(b"x" * (1 << 20))
        elif step == "wait":
            while not os.path.exists(os.path.join(os.environ["FNBUS_PROJECT"], "notes", what)):
                time.sleep(0.01)
        elif step == "note":
            open(os.path.join(os.environ["FNBUS_PROJECT"], "notes", what), "w").close()
        elif step == "exit":
            os._exit(what)
        elif step == "fail":
            body = base64.b64encode(json.dumps({"errorType": what, "errorMessage": "in the middle"}).encode())
            end += b"Lambda-Runtime-Function-Error-Type: " + what.encode() + b"\r\n"
            end += b"Lambda-Runtime-Function-Error-Body: " + body + b"\r\n"
    api.send(end + b"\r\n")
    api.getresponse().read()
"#;

const HTTP: &str = "application/vnd.awslambda.http-integration-response";
const HEAD: &str = "{\"statusCode\":201,\"headers\":{\"x-a\":\"b\",\"content-type\":\"text/plain\"},\"cookies\":[\"c=d\",\"e=f\"]}\0\0\0\0\0\0\0\0";

/// A program that streams, behind a route that is answered now and one that is answered later.
async fn node() -> Node {
    Project::new()
        .program("f/bootstrap", BOOTSTRAP)
        .file(&format!("{NOTES}/none"), "")
        .config(&format!(
            "[functions.f]\nruntime = 'provided'\nretry = {{ attempts = 1 }}\nfolders = {{ write = '{NOTES}' }}\n\
             [triggers.now]\nhttp = 'POST /now'\npayload = 'body'\nto = 'f'\n\
             [triggers.later]\nhttp = 'POST /later'\npayload = 'body'\nmode = 'async'\nto = 'f'\n"
        ))
        .start()
        .await
}

fn steps(media_type: Option<&str>, steps: &Value) -> String {
    let mut event = json!({ "steps": steps });
    if let Some(media_type) = media_type {
        event["type"] = media_type.into();
    }
    event.to_string()
}

async fn open(node: &Node, event: String) -> Response<Incoming> {
    node.open(Request::post("/now"), event).await.unwrap()
}

/// The next piece of a body.
async fn piece(response: &mut Response<Incoming>) -> Option<Bytes> {
    Some(response.frame().await?.unwrap().into_data().unwrap())
}

/// What is logged of the newest attempt.
async fn attempt(node: &Node) -> Value {
    eventually("the call is logged", || async {
        let events = node.json(&["events", "--json"]).await;
        let id = events.first()?["id"].as_str()?.to_owned();
        let attempt = node.show(&id).await["deliveries"][0]["attempts"][0].clone();
        (!attempt["outcome"].is_null()).then_some(attempt)
    })
    .await
}

#[tokio::test]
async fn what_is_streamed_reaches_the_client_while_the_function_runs() {
    let node = node().await;
    let event = steps(None, &json!([["send", "one "], ["wait", "go"], ["send", "two"]]));
    let mut response = open(&node, event).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    assert_eq!(piece(&mut response).await.unwrap(), "one ");
    node.write("notes/go", "");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "two");
    let attempt = attempt(&node).await;
    assert_eq!((&attempt["outcome"], &attempt["output"]), (&json!("ok"), &json!("one two")), "{attempt}");
}

#[tokio::test]
async fn a_streamed_answer_may_begin_with_the_head_of_its_response_however_it_is_cut() {
    let node = node().await;
    let (first, second) = HEAD.split_at(HEAD.len() - 3);
    let event =
        steps(Some(HTTP), &json!([["send", first], ["send", format!("{second}body")], ["wait", "go"], ["send", "!"]]));
    let mut response = open(&node, event).await;
    assert_eq!(response.status(), 201);
    let headers = response.headers();
    assert_eq!((&headers["x-a"], &headers["content-type"]), (&"b".parse().unwrap(), &"text/plain".parse().unwrap()));
    assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["c=d", "e=f"]);
    assert_eq!(piece(&mut response).await.unwrap(), "body");
    node.write("notes/go", "");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "!");
}

#[rstest]
#[case::an_error_in_the_middle(json!(["fail", "Own.Late"]), "error", "Own.Late")]
#[case::a_process_that_ends(json!(["exit", 3]), "crash", "Runtime.ExitError")]
#[tokio::test]
async fn an_answer_whose_function_fails_in_the_middle_is_broken_off(
    #[case] end: Value,
    #[case] outcome: &str,
    #[case] kind: &str,
) {
    let node = node().await;
    let mut response = open(&node, steps(None, &json!([["send", "begun"], ["wait", "go"], end]))).await;
    assert_eq!(response.status(), 200);
    assert_eq!(piece(&mut response).await.unwrap(), "begun");
    node.write("notes/go", "");
    assert!(response.into_body().collect().await.is_err(), "the client sees that it is not whole");
    let attempt = attempt(&node).await;
    assert_eq!((&attempt["outcome"], &attempt["error"]["kind"]), (&outcome.into(), &kind.into()), "{attempt}");
}

#[rstest]
#[case::an_error_before_a_byte(None, json!([["fail", "Own.Early"]]), "function-failed")]
#[case::no_end_of_the_head(Some(HTTP), json!([["send", "{\"statusCode\":200}"]]), "bad-response")]
#[case::a_head_that_is_none(Some(HTTP), json!([["send", "[]\0\0\0\0\0\0\0\0"]]), "bad-response")]
#[case::a_status_that_is_none(Some(HTTP), json!([["send", "{\"statusCode\":7}\0\0\0\0\0\0\0\0"]]), "bad-response")]
#[case::a_head_without_end(Some(HTTP), json!([["mebibytes", 1]]), "bad-response")]
#[case::an_end_within_the_head(Some(HTTP), json!([["send", "{"], ["exit", 1]]), "function-failed")]
#[tokio::test]
async fn an_answer_that_does_not_get_as_far_as_a_response_is_a_502(
    #[case] media_type: Option<&str>,
    #[case] told: Value,
    #[case] urn: &str,
) {
    let node = node().await;
    let answer = node.post("/now", steps(media_type, &told)).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.json::<Value>()["type"], format!("urn:fnbus:{urn}"));
}

#[tokio::test]
async fn a_long_answer_takes_no_room_and_its_beginning_is_logged() {
    const MIB: usize = 96;
    let node = node().await;
    node.function_ready("f").await;
    let serving = node.serving().await;
    let before = Process::peak(serving.pid);
    let event = steps(None, &json!([["mebibytes", 2], ["note", "begun"], ["mebibytes", MIB - 2], ["note", "done"]]));
    let mut response = open(&node, event).await;
    // a client that takes nothing holds the function up
    piece(&mut response).await.unwrap();
    eventually("the function has begun", || async { fs::metadata(node.path().join("notes/begun")).ok() }).await;
    assert!(!node.path().join("notes/done").exists(), "nobody has taken it");
    let mut rest = 0;
    while let Some(data) = piece(&mut response).await {
        rest += data.len();
    }
    assert!(rest > (MIB - 1) << 20 && rest < MIB << 20, "{rest} bytes");
    let grown = Process::peak(serving.pid) - before;
    assert!(grown < 48.0, "the node grew by {grown} MiB for an answer of {MIB}");
    let attempt = attempt(&node).await;
    assert_eq!((&attempt["outcome"], attempt["output"].as_str().unwrap().len()), (&json!("ok"), 64 * 1024));
    let log = attempt["log"].as_str().unwrap();
    assert!(log.contains("[the answer of 100663296 bytes was streamed; its first 65536 are kept]"), "{log}");
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_what_streams() {
    let node = node().await;
    let event = steps(None, &json!([["send", "one"], ["wait", "go"], ["mebibytes", 8], ["note", "done"]]));
    let mut response = open(&node, event).await;
    piece(&mut response).await.unwrap();
    drop(response);
    node.write("notes/go", "");
    eventually("the function goes on", || async { fs::metadata(node.path().join("notes/done")).ok() }).await;
    assert_eq!(attempt(&node).await["outcome"], "ok");
}

#[tokio::test]
async fn an_answer_that_is_wanted_whole_is_the_response_it_would_have_streamed() {
    let node = node().await;
    let event = steps(Some(HTTP), &json!([["send", HEAD], ["send", "bo"], ["send", "dy"]]));
    let whole = json!({ "statusCode": 201, "headers": { "x-a": "b", "content-type": "text/plain" }, "cookies": ["c=d", "e=f"],
                        "isBase64Encoded": false, "body": "body" });
    let id = node.accepted("/later", event.clone()).await;
    let output = node.event_is(&id, "done").await["deliveries"][0]["attempts"][0]["output"].clone();
    let output: Value = output.as_str().map_or(output.clone(), |text| serde_json::from_str(text).unwrap());
    assert_eq!(output, whole);
    // once for its id, and the same again
    for _ in 0..2 {
        let answer = node.send(Request::post("/now").header("idempotency-key", "a"), event.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (201, "body"));
        assert_eq!(answer.header("x-a"), Some("b"));
    }
    // and bounded
    let id = node.accepted("/later", steps(None, &json!([["mebibytes", 7]]))).await;
    let event = node.event_is(&id, "dead").await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["outcome"], "too_large");
}

/// What each client is to have heard: pieces, and how it ended.
fn heard() -> Value {
    json!({
        "streamed": ["one two", null],
        "broken": ["begun", "Own.Late", "in the middle"],
        "whole": ["{\"n\": 1}", null],
        "failed": ["", "ValueError", "no"],
        "tail": true,
        "missing": "ResourceNotFoundException",
    })
}

/// With a function that streams and one that does not.
async fn called_by(program: std::path::PathBuf, file: &str, text: &str) -> Value {
    let code = "def handler(event, context):\n    if event.get('fail'):\n        raise ValueError('no')\n    print('hello')\n    return b'{\"n\": 1}'\n";
    let node = Project::new()
        .program("f/bootstrap", BOOTSTRAP)
        .config("[functions.f]\nruntime = 'provided'\n")
        .function("plain", code)
        .file(file, text)
        .start()
        .await;
    node.function_ready("f").await;
    node.function_ready("plain").await;
    call_with(&node, program, &[file]).await
}

const BOTO3: &str = "
import base64, boto3, json, os
client = boto3.client('lambda', endpoint_url=os.environ['ENDPOINT'])
def call(name, event, **more):
    answer = client.invoke_with_response_stream(FunctionName=name, Payload=json.dumps(event), **more)
    got, end = b'', None
    for event in answer['EventStream']:
        got += event.get('PayloadChunk', {}).get('Payload', b'')
        end = event.get('InvokeComplete', end)
    error = end.get('ErrorCode')
    said = [got.decode(), error]
    return (said + [json.loads(end['ErrorDetails'])['errorMessage']] if error else said), end, answer
said = {}
said['streamed'] = call('f', {'steps': [['send', 'one '], ['send', 'two']]})[0]
said['broken'] = call('f', {'steps': [['send', 'begun'], ['fail', 'Own.Late']]})[0]
said['whole'], end, answer = call('plain', {}, LogType='Tail')
said['tail'] = 'hello' in base64.b64decode(end['LogResult']).decode() and answer['ExecutedVersion'] == '$LATEST'
said['failed'] = call('plain', {'fail': True})[0]
try:
    call('nobody', {})
except client.exceptions.ResourceNotFoundException as error:
    said['missing'] = error.response['Error']['Code']
print(json.dumps(said))
";

const JAVASCRIPT: &str = "
const { LambdaClient, InvokeWithResponseStreamCommand } = require(SDK)
const client = new LambdaClient({ endpoint: process.env.ENDPOINT })
async function call(FunctionName, event, more) {
  const input = { FunctionName, Payload: JSON.stringify(event), ...more }
  const answer = await client.send(new InvokeWithResponseStreamCommand(input))
  let got = '', end
  for await (const event of answer.EventStream) {
    if (event.PayloadChunk) got += Buffer.from(event.PayloadChunk.Payload).toString()
    if (event.InvokeComplete) end = event.InvokeComplete
  }
  const said = [got, end.ErrorCode ?? null]
  if (end.ErrorCode) said.push(JSON.parse(end.ErrorDetails).errorMessage)
  return [said, end, answer]
}
async function main() {
  const said = {}
  said.streamed = (await call('f', { steps: [['send', 'one '], ['send', 'two']] }))[0]
  said.broken = (await call('f', { steps: [['send', 'begun'], ['fail', 'Own.Late']] }))[0]
  const [whole, end, answer] = await call('plain', {}, { LogType: 'Tail' })
  said.whole = whole
  said.tail = Buffer.from(end.LogResult, 'base64').toString().includes('hello') && answer.ExecutedVersion === '$LATEST'
  said.failed = (await call('plain', { fail: true }))[0]
  said.missing = await call('nobody', {}).catch((error) => error.name)
  console.log(JSON.stringify(said))
}
main()
";

#[tokio::test]
async fn boto3_gets_an_answer_in_pieces() {
    let Some(clients) = clients() else { return };
    assert_eq!(called_by(clients.join("bin/python"), "client.py", BOTO3).await, heard());
}

#[tokio::test]
async fn the_javascript_sdk_gets_an_answer_in_pieces() {
    let Some(clients) = clients() else { return };
    let sdk = json!(clients.join("node_modules/@aws-sdk/client-lambda")).to_string();
    assert_eq!(called_by("node".into(), "client.cjs", &JAVASCRIPT.replace("SDK)", &format!("{sdk})"))).await, heard());
}

#[tokio::test]
async fn what_a_node_function_streams_reaches_the_client_while_it_runs() {
    let code = "const fs = require('fs');\n\
        exports.handler = awslambda.streamifyResponse(async (event, stream) => {\n\
          stream = awslambda.HttpResponseStream.from(stream, { statusCode: 202, headers: { 'content-type': 'text/plain' } });\n\
          stream.write('one ');\n\
          while (!fs.existsSync(`${process.env.FNBUS_PROJECT}/notes/go`)) await new Promise((r) => setTimeout(r, 10));\n\
          stream.end('two');\n\
        });\n";
    let node = Project::new()
        .file("f/index.js", code)
        .file(&format!("{NOTES}/none"), "")
        .config(&format!(
            "[functions.f]\nruntime = 'node'\nfolders = {{ read = '{NOTES}' }}\n[triggers.f]\nhttp = 'GET /f'\nto = 'f'\n"
        ))
        .start()
        .await;
    let mut response = node.open(Request::get("/f"), "").await.unwrap();
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!((response.status().as_u16(), media_type.as_str()), (202, "text/plain"));
    assert_eq!(piece(&mut response).await.unwrap(), "one ");
    node.write("notes/go", "");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "two");
}
