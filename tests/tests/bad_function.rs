//! Functions that do not end well: the caller, the log and the command line each say what happened, in words of their
//! own, and the next good call works.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::fs;

use fnbus_tests::{Answer, Node, Output, Project, eventually};
use rstest::rstest;
use serde_json::{Value, json};

/// The function `f`, called synchronously at `/sync` and asynchronously at `/async`, and one that is well, `well`.
fn project(code: &str, keys: &str, payload: &str) -> Project {
    called(Project::new().function_with("f", code, &format!("{ONCE}{keys}")), payload)
}

/// The same with a function that is there.
fn called(project: Project, payload: &str) -> Project {
    project.function("well", "def handler(event, context):\n    return 'well'\n").config(&format!(
        "[triggers.sync]\nhttp = 'POST /sync'\npayload = '{payload}'\nto = 'f'\n\
             [triggers.async]\nhttp = 'POST /async'\nmode = 'async'\npayload = '{payload}'\nto = 'f'\n\
             [triggers.well]\nhttp = 'GET /well'\nto = 'well'\n"
    ))
}

const ONCE: &str = "retry = { attempts = 1 }\n";

/// How a call ends, as every face says it.
#[derive(Debug)]
struct Ends<'a> {
    outcome: &'a str,
    kind: &'a str,
    message: &'a str,
    status: u16,
}

/// The caller gets a problem document that says nothing of the inside, and the id in it leads to all of it.
async fn is_refused(node: &Node, answer: &Answer, ends: &Ends<'_>) {
    let status = ends.status;
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Value = answer.json();
    let (urn, title) = if status == 504 {
        ("urn:fnbus:timeout", "Gateway Timeout")
    } else {
        ("urn:fnbus:function-failed", "Bad Gateway")
    };
    assert_eq!((&problem["type"], &problem["title"], &problem["status"]), (&json!(urn), &json!(title), &json!(status)));
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!(detail, format!("the function did not end well ({})", ends.outcome));
    assert!(!answer.text().contains(ends.kind), "what happened inside is not for callers: {}", answer.text());
    let event = node.show(problem["id"].as_str().unwrap()).await;
    has_ended(&event, ends);
}

/// The log has the attempt with its outcome and its error; it was the last.
fn has_ended(event: &Value, ends: &Ends<'_>) {
    assert_eq!(event["status"], "dead", "{event:#}");
    let delivery = &event["deliveries"][0];
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{event:#}");
    let error = &attempts[0]["error"];
    assert_eq!((&attempts[0]["outcome"], &error["kind"]), (&json!(ends.outcome), &json!(ends.kind)), "{event:#}");
    assert!(error["message"].as_str().unwrap().contains(ends.message), "{error}");
    let object: Value = serde_json::from_str(attempts[0]["output"].as_str().unwrap()).unwrap();
    assert_eq!(object["errorType"], ends.kind, "the error object, as clients of Lambda read it");
}

/// `fnbus invoke` fails with one sentence on stderr, and nothing but the error object on stdout.
fn invoke_says(output: &Output, ends: &Ends<'_>) {
    assert_eq!(output.code(), 1, "{}", output.all());
    let sentence = format!("f failed ({}): {}: ", ends.outcome, ends.kind);
    let line =
        output.stderr.lines().find(|line| line.starts_with(&sentence)).unwrap_or_else(|| panic!("{}", output.all()));
    assert!(line.contains(ends.message), "{line}");
    assert!(output.stderr.contains("all of it: fnbus show "), "{}", output.stderr);
    assert_eq!(output.lines()[0]["errorType"], ends.kind);
}

/// A client of Lambda gets the error object.
fn api_says(answer: &Answer, ends: &Ends<'_>) {
    assert_eq!((answer.status.as_u16(), answer.header("x-amz-function-error")), (200, Some("Unhandled")));
    let error: Value = answer.json();
    assert_eq!(error["errorType"], ends.kind, "{error}");
    assert!(error["errorMessage"].as_str().unwrap().contains(ends.message), "{error}");
}

/// All faces of one ending.
async fn ends(node: &Node, ends: &Ends<'_>) {
    ends_for(node, "{}", ends).await;
}

/// The same for an event.
async fn ends_for(node: &Node, body: &str, ends: &Ends<'_>) {
    let asked = hyper::Request::post("/2015-03-31/functions/f/invocations");
    let arguments = ["invoke", "f", "-d", body];
    let (sync, id, invoked, asked) = tokio::join!(
        node.post("/sync", body.to_owned()),
        node.accepted("/async", body.to_owned()),
        node.fnbus(&arguments),
        node.ask_api(asked, body.to_owned())
    );
    is_refused(node, &sync, ends).await;
    let event = node.event_is(&id, "dead").await;
    has_ended(&event, ends);
    assert_eq!(event["deliveries"][0]["reason"], "attempts_exhausted");
    let letters = node.json(&["dead", "list", "--json"]).await;
    let letter = letters.iter().find(|letter| letter["event"] == *id).expect("a dead letter");
    assert_eq!(
        (&letter["target"], &letter["outcome"], &letter["attempts"]),
        (&json!("f"), &json!(ends.outcome), &json!(1))
    );
    invoke_says(&invoked, ends);
    api_says(&asked, ends);
    let shown = node.fnbus(&["show", &id]).await;
    assert!(shown.stdout.contains(ends.kind) && shown.stdout.contains(ends.message), "{}", shown.stdout);
    assert_eq!(node.get("/well").await.text(), "well", "another function suffered");
}

#[rstest]
#[case::exception("raise ValueError('no 한')", "error", "ValueError", "no 한", 502)]
#[case::exit("import os; os._exit(3)", "crash", "Runtime.ExitError", "exit status 3; see in its log", 502)]
#[case::sys_exit("import sys; sys.exit(4)", "crash", "Runtime.ExitError", "exit status 4; see in its log", 502)]
#[case::signal("import os; os.kill(os.getpid(), 11)", "crash", "Runtime.ExitError", "signal 11; see in its log", 502)]
#[case::timeout(
    "import time; time.sleep(600)",
    "timeout",
    "Sandbox.Timedout",
    "after 2.00 seconds; raise its `timeout`",
    504
)]
#[case::memory("return len(bytearray(1 << 30))", "oom", "MemoryError", "raise its `memory`", 502)]
#[case::large("return 'x' * 7_000_000", "too_large", "Function.ResponseSizeTooLarge", "store it elsewhere", 502)]
#[case::not_json("return object()", "bad_output", "Runtime.MarshalError", "return what json.dumps takes", 502)]
#[tokio::test]
async fn a_call_that_does_not_end_well_is_told_by_all_faces_and_the_next_good_one_works(
    #[case] body: &str,
    #[case] outcome: &str,
    #[case] kind: &str,
    #[case] message: &str,
    #[case] status: u16,
) {
    let code = format!("def handler(event, context):\n    if 'good' in str(event): return 'fine'\n    {body}\n");
    let node = project(&code, "timeout = '2s'\nmemory = 128", "lambda").start().await;
    ends(&node, &Ends { outcome, kind, message, status }).await;
    let good = node.post("/sync?good", "{}").await;
    assert_eq!((good.status.as_u16(), good.text()), (200, "fine"));
    let id = node.accepted("/async?good", "{}").await;
    node.event_is(&id, "done").await;
    let invoked = node.fnbus(&["invoke", "f", "-d", r#"{"good":1}"#]).await;
    assert_eq!((invoked.code(), invoked.stdout.as_str()), (0, "\"fine\"\n"));
}

/// Each does what its event says.
const NODE: &str = "exports.handler = async (what) => {
  const does = {
    error: () => { throw new TypeError('no 한'); },
    exit: () => process.exit(3),
    signal: () => process.kill(process.pid, 9),
    hang: () => {},
    memory: () => { const all = []; while (true) all.push(Buffer.alloc(1 << 20, 1)); },
    large: () => 'x'.repeat(7e6),
    output: () => { const self = {}; self.self = self; return self; },
    rejects: () => { Promise.reject(new Error('nobody')); },
  };
  const result = does[what]();
  if (result === undefined) await new Promise((end) => setTimeout(end, 600000));
  return result;
};
";
const PROVIDED: &str = r#"#!/usr/bin/python3
import http.client, json, os, sys, time
c = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])
def ask(method, path, body=None):
    c.request(method, '/2018-06-01/runtime/' + path, body)
    r = c.getresponse()
    return r.read(), r.headers['Lambda-Runtime-Aws-Request-Id']
while True:
    event, id = ask('GET', 'invocation/next')
    what = json.loads(event)
    if what == 'error': ask('POST', f'invocation/{id}/error', json.dumps({'errorType': 'TypeError', 'errorMessage': 'no 한'}))
    if what == 'exit': os._exit(3)
    if what == 'signal': os.kill(os.getpid(), 9)
    if what == 'hang': time.sleep(600)
    if what == 'memory':
        kept = b'x' * (120 << 20)
        os.kill(os.getpid(), 9)
    if what == 'large': ask('POST', f'invocation/{id}/response', '"' + 'x' * 7000000 + '"')
    if what == 'output':
        c.request('POST', f'/2018-06-01/runtime/invocation/{id}/response', '"x', {'Lambda-Runtime-Function-Response-Mode': 'odd'})
        c.getresponse().read()
"#;
const COMMAND: &str = "#!/bin/sh
read -r what
case $what in
    *error*) echo 'no 한' >&2; exit 4 ;;
    *signal*) kill -9 $$ ;;
    *hang*) sleep 600 ;;
    *large*) head -c 7000000 /dev/zero ;;
esac
";

const EXIT: &str = "Runtime.ExitError: exit status 3; see in its log";

/// An event, its outcome, and how Node.js, a program that serves and one that is started for each tell it; nothing: it
/// cannot end so.
const TOLD: [(&str, &str, [&str; 3]); 8] = [
    ("error", "error", ["TypeError: no 한", "TypeError: no 한", "Runtime.ExitError: exit status 4: no 한"]),
    ("exit", "crash", [EXIT, EXIT, ""]),
    ("signal", "crash", ["Runtime.ExitError: signal 9; see in its log"; 3]),
    ("hang", "timeout", ["Sandbox.Timedout: after 2.00 seconds; raise its `timeout`"; 3]),
    ("memory", "oom", ["Runtime.OutOfMemory: raise its `memory`", "Runtime.OutOfMemory: raise its `memory`", ""]),
    ("large", "too_large", ["Function.ResponseSizeTooLarge: store it elsewhere"; 3]),
    (
        "output",
        "bad_output",
        [
            "Runtime.MarshalError: return what JSON.stringify takes",
            "Runtime.InvalidResponseModeHeader: send `streaming`",
            "",
        ],
    ),
    ("rejects", "crash", ["Runtime.UnhandledPromiseRejection: nobody", "", ""]),
];

#[rstest]
#[case::node(0, "node", "index.js", NODE)]
#[case::provided(1, "provided", "bootstrap", PROVIDED)]
#[case::command(2, "command", "run", COMMAND)]
#[tokio::test]
async fn each_runtime_tells_all_endings_by_all_faces_in_the_same_words(
    #[case] column: usize,
    #[case] runtime: &str,
    #[case] file: &str,
    #[case] code: &str,
) {
    let handler = if runtime == "command" { "handler = './run'\n" } else { "" };
    let function = format!("[functions.f]\nruntime = '{runtime}'\n{handler}timeout = '2s'\nmemory = 128\n{ONCE}");
    let project = Project::new().program(&format!("f/{file}"), code).config(&function);
    let node = called(project, "body").start().await;
    for (event, outcome, told) in TOLD {
        let Some((kind, message)) = told[column].split_once(": ") else { continue };
        let status = if outcome == "timeout" { 504 } else { 502 };
        ends_for(&node, &format!("\"{event}\""), &Ends { outcome, kind, message, status }).await;
    }
}

#[rstest]
#[case::syntax("def handler(:\n", "", "Runtime.UserCodeSyntaxError", "app.py:1")]
#[case::import("import no_such_thing\n", "", "Runtime.ImportModuleError", "pip install --target")]
#[case::missing("", "", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'app'; define it there")]
#[case::no_function("handler = 5\n", "", "Runtime.HandlerNotFound", "name a function")]
#[case::raises("1 / 0\n", "", "ZeroDivisionError", "division by zero")]
#[case::exits("raise SystemExit(7)\n", "", "Runtime.ExitError", "exit status 7")]
#[tokio::test]
async fn code_that_cannot_be_loaded_is_told_by_all_faces_and_works_when_mended(
    #[case] code: &str,
    #[case] keys: &str,
    #[case] kind: &str,
    #[case] message: &str,
) {
    let node = project(code, keys, "lambda").start().await;
    ends(&node, &Ends { outcome: "init_error", kind, message, status: 502 }).await;
    let functions = node.json(&["functions", "--json"]).await;
    let f = functions.iter().find(|f| f["name"] == "f").unwrap();
    assert_eq!(f["state"], "failed", "{f}");
    assert!(f["message"].as_str().unwrap().contains(message), "{f}");
    let dead = node.json(&["dead", "list", "--json"]).await.len();

    fs::write(node.path().join("f/app.py"), "def handler(event, context):\n    return 'mended'\n").unwrap();
    eventually("the mended code serves", || async {
        (node.post("/sync", "{}").await.text() == "mended").then_some(())
    })
    .await;
    assert!(node.json(&["dead", "list", "--json"]).await.len() >= dead, "dead letters were lost");
    let redriven = node.json(&["dead", "redrive", "--all", "--json"]).await;
    assert!(redriven[0]["plan"]["deliveries"].as_u64().unwrap() >= dead as u64, "{redriven:?}");
    eventually("every dead letter ended well", || async {
        node.json(&["dead", "list", "--json"]).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_no_json_is_told_as_such_to_a_function_that_gets_the_body() {
    let node = project("def handler(event, context):\n    return event['n']\n", "", "body").start().await;
    let told =
        Ends { outcome: "error", kind: "Runtime.UnmarshalError", message: "Unable to unmarshal input", status: 502 };
    let answer = node.post("/sync", r#"{"n": 1"#).await;
    is_refused(&node, &answer, &told).await;
    let id = node.accepted("/async", r#"{"n": 1"#).await;
    let event = node.event_is(&id, "dead").await;
    has_ended(&event, &told);
    assert_eq!(event["data"], r#"{"n": 1"#, "what came is kept as it came");
    assert_eq!(node.post("/sync", r#"{"n": 1}"#).await.text(), "1");
}

#[tokio::test]
async fn a_result_that_is_no_response_is_a_bad_gateway_and_says_why() {
    let code = "def handler(event, context):\n    return {'statusCode': 'fine'}\n";
    let node = project(code, "", "lambda").start().await;
    let answer = node.post("/sync", "{}").await;
    let problem: Value = answer.json();
    assert_eq!((answer.status.as_u16(), &problem["type"]), (502, &json!("urn:fnbus:bad-response")));
    assert!(problem["detail"].as_str().unwrap().starts_with("the function's result is not a response: "), "{problem}");
    let event = node.show(problem["id"].as_str().unwrap()).await;
    assert_eq!(event["status"], "done", "the function itself ended well");
}

#[tokio::test]
async fn a_failure_is_tried_again_as_often_as_the_policy_says_and_then_kept_as_a_dead_letter() {
    let code = "def handler(event, context):\n    print('tried')\n    raise ValueError('never')\n";
    let node = Project::new()
        .function_with("f", code, "retry = { attempts = 3, wait = '10ms' }")
        .config("[triggers.a]\nhttp = 'POST /a'\nmode = 'async'\nto = 'f'\n")
        .start()
        .await;
    let id = node.accepted("/a", r#"{"n":1}"#).await;
    let event = node.event_is(&id, "dead").await;
    let delivery = &event["deliveries"][0];
    assert_eq!(delivery["reason"], "attempts_exhausted");
    let attempts: Vec<_> = delivery["attempts"].as_array().unwrap().iter().map(|a| (&a["n"], &a["outcome"])).collect();
    assert_eq!(attempts, [(&json!(1), &json!("error")), (&json!(2), &json!("error")), (&json!(3), &json!("error"))]);
    assert!(delivery["attempts"][2]["log"].as_str().unwrap().contains("tried\n"), "{delivery:#}");
    assert_eq!(event["data"], r#"{"n":1}"#);
    let shown = node.fnbus(&["dead", "show", &id]).await;
    assert!(
        shown.stdout.contains("attempts exhausted") && shown.stdout.contains("ValueError: never"),
        "{}",
        shown.stdout
    );
}

#[tokio::test]
async fn code_that_takes_long_to_load_is_waited_for_and_not_called_busy() {
    let code = "import time\ntime.sleep(1.5)\ndef handler(event, context):\n    return 'at last'\n";
    let node = project(code, "", "lambda").start().await;
    let answer = node.post("/sync", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "at last"));
}

#[rstest]
#[case::a_timeout("time.sleep(600)", "timeout")]
#[case::a_crash("os._exit(3)", "crash")]
#[tokio::test]
async fn after_the_last_instance_was_lost_the_next_event_finds_a_warm_one(#[case] body: &str, #[case] outcome: &str) {
    let code =
        format!("import os, time\ndef handler(event, context):\n    if event == 'bad': {body}\n    return 'fine'\n");
    let node = project(&code, "timeout = '300ms'", "body").start().await;
    assert_eq!(node.post("/sync", "1").await.text(), "fine");
    let before = node.function("f").await;
    let id = node.accepted("/async", "\"bad\"").await;
    let event = node.event_is(&id, "dead").await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["outcome"], outcome);
    eventually("another one is warm", || async { (node.function("f").await["warm"] == 1).then_some(()) }).await;
    assert_eq!(node.post("/sync", "1").await.text(), "fine");
    assert_eq!(node.function("f").await["cold_starts"], before["cold_starts"], "nobody waited for a start");
}

#[tokio::test]
async fn a_program_that_ends_at_its_start_is_refused_with_the_last_it_printed() {
    let node = Project::new()
        .program("f/bootstrap", "#!/bin/sh\necho 'libfoo.so.1: not found' >&2\nexit 3\n")
        .config("[functions.f]\nruntime = 'provided'\n")
        .start()
        .await;
    node.says("`f` cannot serve: Runtime.ExitError: Runtime exited with error: exit status 3; it printed: libfoo.so.1: not found").await;
}
