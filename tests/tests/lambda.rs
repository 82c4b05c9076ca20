//! The API of AWS Lambda: by the cases, and by the clients that people have.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::{env, fs, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use fnbus_tests::{Answer, Node, Project, call_with, clients, eventually};
use hyper::Request;
use rstest::rstest;
use serde_json::{Value, json};

const ECHO: &str = "def handler(event, context):\n    return event\n";
const RAISE: &str = "def handler(event, context):\n    raise type(event['type'], (Exception,), {})(event['message'])\n";
const LOG: &str = "def handler(event, context):\n    print(event['line'])\n    return {}\n";
const SLEEP: &str = "import time\ndef handler(event, context):\n    time.sleep(event['seconds'])\n    return {}\n";
const EXIT: &str = "import os\ndef handler(event, context):\n    os._exit(event['code'])\n";
const CONTEXT: &str = "def handler(event, c):\n    told = c.client_context\n    return {'aws_request_id': c.aws_request_id, \
     'function_name': c.function_name, 'function_version': c.function_version, 'memory_limit_in_mb': c.memory_limit_in_mb, \
     'invoked_function_arn': c.invoked_function_arn, 'remaining_ms': c.get_remaining_time_in_millis(), \
     'client_context': told and {'custom': told.custom, 'env': told.env}}\n";

async fn node() -> Node {
    let node = Project::new()
        .function("echo", ECHO)
        .function("raise", RAISE)
        .function("log", LOG)
        .function_with("sleep", SLEEP, "timeout = '2s'\nconcurrency = 1")
        .function("exit", EXIT)
        .function("context", CONTEXT)
        .start()
        .await;
    for function in ["echo", "raise", "log", "sleep", "exit", "context"] {
        node.function_ready(function).await;
    }
    node
}

async fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let request = Request::builder().method(method).uri(path);
    node.ask_api(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)), body).await
}

async fn invoke(node: &Node, function: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    ask(node, "POST", &format!("/2015-03-31/functions/{function}/invocations"), headers, body).await
}

fn cases() -> Vec<Value> {
    let folder = env::var_os("FNBUS_CASES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases")), PathBuf::from);
    let file = folder.join("lambda_invoke_api.json");
    let Ok(text) = fs::read(&file) else {
        assert!(env::var("CI").as_deref() != Ok("true"), "no cases at {}", file.display());
        eprintln!("skipped: no cases at {}; set FNBUS_CASES", file.display());
        return Vec::new();
    };
    serde_json::from_slice::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_api_answers_as_the_cases_say() {
    let cases = cases();
    if cases.is_empty() {
        return;
    }
    let node = node().await;
    for case in cases {
        let (id, request, expect) = (&case["id"], &case["request"], &case["expect"]);
        let headers: Vec<(&str, &str)> = request["headers"]
            .as_object()
            .map(|headers| headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect())
            .unwrap_or_default();
        let (method, path) = (request["method"].as_str().unwrap(), request["path"].as_str().unwrap());
        let body = request["body"].as_str().unwrap_or_default().to_owned();
        let answer = ask(&node, method, path, &headers, body).await;
        let status = json!(answer.status.as_u16());
        if let Some(any) = expect["status_any"].as_array() {
            assert!(any.contains(&status), "{id}: {answer:?}");
        } else {
            assert_eq!(status, expect["status"], "{id}: {answer:?}");
        }
        let error = answer.header("x-amzn-errortype").unwrap_or_default();
        if let Some(expect) = expect["error"].as_str() {
            assert_eq!(error, expect, "{id}");
        }
        if let Some(any) = expect["error_any"].as_array() {
            assert!(any.contains(&json!(error)), "{id}: {error}");
        }
        for (name, value) in expect["headers"].as_object().into_iter().flatten() {
            assert_eq!(answer.header(name), value.as_str(), "{id}: {name}");
        }
        for name in expect["headers_absent"].as_array().into_iter().flatten() {
            assert_eq!(answer.header(name.as_str().unwrap()), None, "{id}: {name}");
        }
        if let Some(body) = expect["body"].as_str() {
            assert_eq!(answer.text(), body, "{id}");
        }
        if let Some(expect) = expect.get("json") {
            assert_eq!(answer.json::<Value>(), *expect, "{id}");
        }
        for (key, value) in expect["json_has"].as_object().into_iter().flatten() {
            assert_eq!(answer.json::<Value>()[key], *value, "{id}: {}", answer.text());
        }
        for key in expect["json_keys"].as_array().into_iter().flatten() {
            assert!(answer.json::<Value>().get(key.as_str().unwrap()).is_some(), "{id}: {}", answer.text());
        }
        if let Some(words) = expect["body_matches"].as_str() {
            assert!(words.split('|').any(|word| answer.text().contains(word)), "{id}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_payload_comes_back_byte_for_byte_with_its_version_and_request() {
    let node =
        Project::new().config("[functions.cat]\nruntime = 'command'\nhandler = 'cat'\ncode = '.'\n").start().await;
    node.function_ready("cat").await;
    let payload = "{\"a\": 1.10, \"b\": 123456789012345678901234567890, \"a\": \"\\u00e9\"}";
    let answer = invoke(&node, "cat", &[], payload).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, payload));
    assert_eq!(answer.header("x-amz-executed-version"), Some("$LATEST"));
    assert_eq!(answer.header("x-amz-function-error"), None);
    let id = answer.header("x-amzn-requestid").unwrap();
    assert_eq!(id.len(), 36, "{id}");
    assert_eq!(invoke(&node, "cat", &[], "").await.text(), "{}", "no payload is an empty object");
}

#[rstest]
#[case::name("echo")]
#[case::qualified("echo:$LATEST")]
#[case::partial_arn("000000000000:function:echo")]
#[case::arn("arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Aecho")]
#[case::plain_arn("arn:aws:lambda:us-east-1:000000000000:function:echo:$LATEST")]
#[tokio::test]
async fn a_function_is_found_by_every_form_of_its_name(#[case] name: &str) {
    let node = Project::new().function("echo", ECHO).start().await;
    node.function_ready("echo").await;
    assert_eq!(invoke(&node, name, &[], "7").await.text(), "7");
}

#[tokio::test]
async fn errors_have_the_names_by_which_clients_know_them() {
    let node = node().await;
    let huge = format!("\"{}\"", "x".repeat(6 << 20));
    let long = BASE64_STANDARD.encode(format!("{{\"custom\": \"{}\"}}", "x".repeat(3600)));
    let event = ("x-amz-invocation-type", "Event");
    let big = format!("\"{}\"", "x".repeat(1 << 20));
    for (function, headers, body, status, error) in [
        ("nobody", vec![], "{}", 404, "ResourceNotFoundException"),
        ("no body", vec![], "{}", 404, "ResourceNotFoundException"),
        ("echo:stable", vec![], "{}", 404, "ResourceNotFoundException"),
        ("a:b:c:d:e", vec![], "{}", 400, "InvalidParameterValueException"),
        ("echo", vec![], "{broken", 400, "InvalidRequestContentException"),
        ("echo", vec![], "{} {}", 400, "InvalidRequestContentException"),
        ("echo", vec![event], "{broken", 400, "InvalidRequestContentException"),
        ("echo", vec![("x-amz-log-type", "All")], "{}", 400, "InvalidParameterValueException"),
        ("echo", vec![("x-amz-client-context", "bnVsbA==")], "{}", 400, "InvalidRequestContentException"),
        ("echo", vec![("x-amz-client-context", long.as_str())], "{}", 400, "InvalidRequestContentException"),
        ("echo", vec![], huge.as_str(), 413, "RequestTooLargeException"),
        ("echo", vec![event], big.as_str(), 413, "RequestTooLargeException"),
    ] {
        let answer = invoke(&node, &function.replace(' ', "%20"), &headers, body.to_owned()).await;
        assert_eq!(answer.status.as_u16(), status, "{function} {headers:?}: {answer:?}");
        assert_eq!(answer.header("x-amzn-errortype"), Some(error), "{function} {headers:?}");
        assert!(!answer.json::<Value>()["message"].as_str().unwrap().is_empty());
    }
    let answer = invoke(&node, "echo", &[], Bytes::from_static(b"\"\xff\"")).await;
    assert_eq!(answer.header("x-amzn-errortype"), Some("InvalidRequestContentException"), "no UTF-8");
}

#[tokio::test]
async fn what_ends_a_function_is_told_in_the_words_of_aws_and_the_tail_of_its_log_comes_along() {
    let node = node().await;
    let timeout = invoke(&node, "sleep", &[], "{\"seconds\": 60}").await;
    let body = timeout.json::<Value>();
    assert_eq!((timeout.status.as_u16(), timeout.header("x-amz-function-error")), (200, Some("Unhandled")));
    assert_eq!(body["errorType"], "Sandbox.Timedout");
    let id = timeout.header("x-amzn-requestid").unwrap();
    assert_eq!(
        body["errorMessage"],
        format!("RequestId: {id} Error: Task timed out after 2.00 seconds; raise its `timeout`, or make it faster")
    );

    let tail = [("x-amz-log-type", "Tail")];
    let answer = invoke(&node, "log", &tail, "{\"line\": \"over here\"}").await;
    let id = answer.header("x-amzn-requestid").unwrap();
    let log = String::from_utf8(BASE64_STANDARD.decode(answer.header("x-amz-log-result").unwrap()).unwrap()).unwrap();
    let start =
        format!("START RequestId: {id} Version: $LATEST\nover here\nEND RequestId: {id}\nREPORT RequestId: {id}\t");
    assert!(log.starts_with(&start), "{log}");
    let long = json!({ "line": "x".repeat(4000) + "\n" + &"y".repeat(4000) }).to_string();
    let answer = invoke(&node, "log", &tail, long).await;
    let log = BASE64_STANDARD.decode(answer.header("x-amz-log-result").unwrap()).unwrap();
    assert!(log.len() <= 4096 && !log.contains(&b'x'), "{}", log.len());
}

#[tokio::test]
async fn an_event_is_accepted_and_runs_behind_a_dry_run_runs_nothing() {
    let node = Project::new()
        .function("note", "def handler(event, context):\n    open(event['file'], 'a').write('ran')\n")
        .start()
        .await;
    node.function_ready("note").await;
    let event = |file: &str| json!({ "file": node.path().join(file) }).to_string();
    let answer = invoke(&node, "note", &[("x-amz-invocation-type", "DryRun")], event("notes/dry")).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (204, ""));
    let answer = invoke(&node, "note", &[("x-amz-invocation-type", "Event")], event("notes/wet")).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (202, ""));
    let id = answer.header("x-amzn-requestid").unwrap().to_owned();
    node.event_is(&id, "done").await;
    assert_eq!(node.read("notes/wet"), "ran");
    assert!(!node.path().join("notes/dry").exists());
}

#[tokio::test]
async fn a_caller_over_the_limit_is_throttled() {
    let node = node().await;
    let held = invoke(&node, "sleep", &[], "{\"seconds\": 1.9}");
    let refused = async {
        eventually("it is busy", || async { (node.function("sleep").await["busy"] == 1).then_some(()) }).await;
        invoke(&node, "sleep", &[], "{\"seconds\": 0}").await
    };
    let (_, answer) = tokio::join!(held, refused);
    assert_eq!(answer.status.as_u16(), 429);
    assert_eq!(answer.header("x-amzn-errortype"), Some("TooManyRequestsException"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json::<Value>()["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded");
}

#[rstest]
#[case::of_a_page(&[("origin", "http://localhost:9001")])]
#[case::by_another_name(&[("host", "rebound.example")])]
#[tokio::test]
async fn what_a_browser_may_have_sent_is_refused(#[case] headers: &[(&str, &str)]) {
    let node = Project::new().function("echo", ECHO).start().await;
    let answer = invoke(&node, "echo", headers, "{}").await;
    assert_eq!((answer.status.as_u16(), answer.header("x-amzn-errortype")), (403, Some("AccessDeniedException")));
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error_when_it_was_chosen() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let toml = format!("[http]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"{address}\"\n");
    let output = Project::new().whole_config(&toml).fails_to_start().await;
    assert_eq!(output.code(), 1, "{}", output.all());
    assert!(output.stderr.contains(&format!("cannot serve the Lambda API on http://{address}")), "{}", output.stderr);
}

const BOTO3: &str = "
import base64, boto3, json, os
client = boto3.client('lambda', endpoint_url=os.environ['ENDPOINT'])
said = {}
answer = client.invoke(FunctionName='echo', Payload=json.dumps({'n': 1}))
said['echo'] = [answer['StatusCode'], json.load(answer['Payload']), answer['ExecutedVersion'], answer.get('FunctionError')]
answer = client.invoke(FunctionName='raise', Payload=json.dumps({'type': 'KeyError', 'message': 'gone'}))
said['raise'] = [answer['StatusCode'], answer['FunctionError'], json.load(answer['Payload'])['errorType']]
answer = client.invoke(FunctionName='log', LogType='Tail', Payload=json.dumps({'line': 'hello'}))
said['log'] = 'hello' in base64.b64decode(answer['LogResult']).decode()
said['event'] = client.invoke(FunctionName='echo', InvocationType='Event', Payload='{}')['StatusCode']
said['dry'] = client.invoke(FunctionName='echo', InvocationType='DryRun', Payload='{}')['StatusCode']
context = base64.b64encode(json.dumps({'custom': {'k': 'v'}, 'env': {'e': 'f'}}).encode()).decode()
answer = client.invoke(FunctionName='context', ClientContext=context, Payload='{}')
said['context'] = json.load(answer['Payload'])['client_context']
try:
    client.invoke(FunctionName='nobody')
except client.exceptions.ResourceNotFoundException as error:
    said['missing'] = error.response['Error']['Code']
try:
    client.invoke(FunctionName='echo', Payload='{broken')
except client.exceptions.InvalidRequestContentException as error:
    said['broken'] = error.response['Error']['Code']
said['functions'] = sorted(function['FunctionName'] for function in client.list_functions()['Functions'])
client.get_waiter('function_active_v2').wait(FunctionName='echo')
said['state'] = client.get_function_configuration(FunctionName='echo')['State']
print(json.dumps(said))
";

#[tokio::test]
async fn boto3_calls_functions_and_knows_the_errors() {
    let Some(clients) = clients() else { return };
    let node = node().await;
    let said = call_with(&node, clients.join("bin/python"), &["-c", BOTO3]).await;
    let expect = json!({
        "echo": [200, { "n": 1 }, "$LATEST", null],
        "raise": [200, "Unhandled", "KeyError"],
        "log": true,
        "event": 202,
        "dry": 204,
        "context": { "custom": { "k": "v" }, "env": { "e": "f" } },
        "missing": "ResourceNotFoundException",
        "broken": "InvalidRequestContentException",
        "functions": ["context", "echo", "exit", "log", "raise", "sleep"],
        "state": "Active",
    });
    assert_eq!(said, expect);
}

#[tokio::test]
async fn the_aws_cli_calls_functions() {
    let Some(clients) = clients() else { return };
    let node = node().await;
    let endpoint = format!("http://{}", node.api().await);
    let python = clients.join("bin/python");
    let invoke = ["-m", "awscli", "--endpoint-url", &endpoint, "lambda", "invoke", "--function-name", "echo"];
    let said = call_with(&node, python, &[&invoke[..], &["--payload", "{\"n\": 1}", "answer.json"]].concat()).await;
    assert_eq!(said, json!({ "StatusCode": 200, "ExecutedVersion": "$LATEST" }));
    assert_eq!(serde_json::from_str::<Value>(&node.read("answer.json")).unwrap(), json!({ "n": 1 }));
}

const JAVASCRIPT: &str = "
const { LambdaClient, InvokeCommand, ListFunctionsCommand } = require('@aws-sdk/client-lambda')
const client = new LambdaClient({ endpoint: process.env.ENDPOINT })
const text = (payload) => JSON.parse(Buffer.from(payload).toString())
async function main() {
  const said = {}
  const answer = await client.send(new InvokeCommand({ FunctionName: 'echo', Payload: JSON.stringify({ n: 1 }) }))
  said.echo = [answer.StatusCode, text(answer.Payload), answer.ExecutedVersion]
  const raised = await client.send(new InvokeCommand({ FunctionName: 'raise', Payload: JSON.stringify({ type: 'TypeError', message: 'no' }) }))
  said.raise = [raised.FunctionError, text(raised.Payload).errorMessage]
  said.event = (await client.send(new InvokeCommand({ FunctionName: 'echo', InvocationType: 'Event' }))).StatusCode
  said.missing = await client.send(new InvokeCommand({ FunctionName: 'nobody' })).catch((error) => error.name)
  said.functions = (await client.send(new ListFunctionsCommand({}))).Functions.length
  console.log(JSON.stringify(said))
}
main()
";

#[tokio::test]
async fn the_javascript_sdk_calls_functions_and_knows_the_errors() {
    let Some(clients) = clients() else { return };
    let node = node().await;
    let script = node.path().join("client.cjs");
    let modules = clients.join("node_modules");
    let text =
        JAVASCRIPT.replace("'@aws-sdk/client-lambda'", &json!(modules.join("@aws-sdk/client-lambda")).to_string());
    fs::write(&script, text).unwrap();
    let said = call_with(&node, "node".into(), &[script.to_str().unwrap()]).await;
    let expect = json!({
        "echo": [200, { "n": 1 }, "$LATEST"],
        "raise": ["Unhandled", "no"],
        "event": 202,
        "missing": "ResourceNotFoundException",
        "functions": 6,
    });
    assert_eq!(said, expect);
}
