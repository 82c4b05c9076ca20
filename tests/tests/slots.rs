//! Instances that run several invocations at once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::path::Path;

use fnbus_tests::{Answer, Node, Project, clients, eventually};
use futures_util::future::join_all;
use http_body_util::BodyExt;
use hyper::Request;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Asks for as many invocations at once as it may, and does what each names. Its answers say which invocation they are for, as
/// newer clients do; what was said to them is noted.
const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, json, os, threading, time
slots = int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1"))
base = "/2018-06-01/runtime/invocation/"
notes = os.path.join(os.environ["FNBUS_PROJECT"], "notes")
meeting = threading.Barrier(slots)
VERSION = 1
def wait_for(name):
    while not os.path.exists(os.path.join(notes, name)):
        time.sleep(0.01)
def work():
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        api.request("GET", base + "next")
        reply = api.getresponse()
        event, id = json.loads(reply.read()), reply.headers["Lambda-Runtime-Aws-Request-Id"]
        what = event["what"]
        if what == "meet":
            meeting.wait()
        if what == "meet" or what == "tell":
            os.write(1, b"one of several\n")
            os.write(1, b"%s says %s\n" % (id.encode(), str(event.get("word")).encode()))
            if what == "meet":
                meeting.wait()
        if what == "wait":
            wait_for(event["file"])
        if what == "exit":
            wait_for(event["file"])
            os._exit(7)
        if what == "flood":
            api.putrequest("POST", base + id + "/response")
            api.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
            api.putheader("Transfer-Encoding", "chunked")
            api.endheaders()
            while not os.path.exists(os.path.join(notes, "go")):
                api.send(b"3\r\nwet\r\n")
            api.send(b"0\r\n\r\n")
            api.getresponse().read()
            continue
        answer = json.dumps({"pid": os.getpid(), "version": VERSION})
        api.request("POST", base + id + "/response", answer, {"Lambda-Runtime-Invocation-Id": id})
        said = api.getresponse()
        said.read()
        with open(os.path.join(notes, "said"), "a") as file:
            file.write("%s %d\n" % (event.get("word"), said.status))
for _ in range(slots):
    threading.Thread(target=work).start()
"#;

/// The same in JavaScript.
const INDEX: &str = r#"
const fs = require("node:fs");
const path = require("node:path");
const notes = path.join(process.env.FNBUS_PROJECT, "notes");
const waitFor = async (name) => {
  while (!fs.existsSync(path.join(notes, name))) await new Promise((resolve) => setTimeout(resolve, 10));
};
let here = [];
const meet = () => new Promise((resolve) => {
  here.push(resolve);
  if (here.length < 3) return;
  here.forEach((go) => go());
  here = [];
});
exports.handler = async (event, context) => {
  if (event.what === "meet") {
    await meet();
    if (awslambda.InvokeStore.getRequestId() !== context.awsRequestId) throw new Error("of another one");
    console.log("I am", event.word);
    console.error("still", event.word);
    await meet();
  }
  if (event.what === "wait") await waitFor(event.file);
  if (event.what === "fail") throw new TypeError(event.word);
  if (event.what === "reject") { await waitFor(event.file); Promise.reject(new RangeError("nobody handles it")); }
  if (event.what === "reject") await new Promise(() => {});
  return { pid: process.pid, word: event.word, id: context.awsRequestId };
};
"#;

fn config(runtime: &str, keys: &str) -> String {
    format!(
        "[functions.f]\nruntime = '{runtime}'\nconcurrency = 1\nretry = {{ attempts = 1 }}\nfolders = {{ write = 'notes' }}\n{keys}\n\
         [triggers.now]\nhttp = 'POST /now'\npayload = 'body'\nto = 'f'\n\
         [triggers.later]\nhttp = 'POST /later'\npayload = 'body'\nmode = 'async'\nto = 'f'\n"
    )
}

fn project(runtime: &str, keys: &str) -> Project {
    let project = Project::new().file("notes/none", "").config(&config(runtime, keys));
    match runtime {
        "node" => project.file("f/index.js", INDEX),
        _ => project.program("f/bootstrap", BOOTSTRAP),
    }
}

async fn node(runtime: &str, keys: &str) -> Node {
    let node = project(runtime, keys).start().await;
    node.function_ready("f").await;
    node
}

async fn call(node: &Node, event: Value) -> Answer {
    node.post("/now", event.to_string()).await
}

async fn pid(node: &Node, event: Value) -> Value {
    let answer = call(node, event).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json::<Value>()["pid"].clone()
}

/// Waits until so many invocations run.
async fn run(node: &Node, number: u64) {
    eventually("they run", || async { (node.function("f").await["busy"] == number).then_some(()) }).await;
}

/// The attempt of a delivery, when that has ended.
async fn attempt(node: &Node, id: &str) -> Value {
    eventually("it has ended", || async {
        let event = node.show(id).await;
        let attempt = event["deliveries"][0]["attempts"].get(0)?.clone();
        attempt["outcome"].is_string().then_some(attempt)
    })
    .await
}

#[rstest]
#[case::of_a_program("provided")]
#[case::of_node("node")]
#[tokio::test]
async fn one_instance_runs_as_many_invocations_as_it_has_slots(#[case] runtime: &str) {
    let node = node(runtime, "slots = 3").await;
    let mut pids = Vec::new();
    for _ in 0..3 {
        // each of them ends when all are there
        pids.extend(join_all((0..3).map(|word| pid(&node, json!({ "what": "meet", "word": word })))).await);
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "another process was there");
    let status = node.function("f").await;
    assert_eq!(
        (&status["invocations"], &status["busy"], &status["warm"]),
        (&json!(9), &json!(0), &json!(1)),
        "{status}"
    );
    assert_eq!((&status["concurrency"], &status["slots"]), (&json!(1), &json!(3)));
    let ids =
        join_all((0..5).map(|_| node.accepted("/later", json!({ "what": "wait", "file": "go" }).to_string()))).await;
    node.deliveries_are("running", 3).await;
    node.write("notes/go", "");
    for id in &ids {
        assert_eq!(node.event_is(id, "done").await["deliveries"][0]["attempts"].as_array().unwrap().len(), 1);
    }
}

#[rstest]
#[case::of_a_program("provided")]
#[case::of_node("node")]
#[tokio::test]
async fn each_attempt_keeps_its_own_lines(#[case] runtime: &str) {
    let node = node(runtime, "slots = 3").await;
    let mut followed = node.follow_logs(&["f"]).await;
    let event = |word| json!({ "what": "meet", "word": word }).to_string();
    let ids = join_all(["red", "green", "blue"].map(|word| node.accepted("/later", event(word)))).await;
    for (id, word) in ids.iter().zip(["red", "green", "blue"]) {
        let log = attempt(&node, id).await["log"].as_str().unwrap().to_owned();
        let others = ["red", "green", "blue"].into_iter().filter(|other| *other != word);
        assert!(log.contains(word), "{log}");
        assert!(others.clone().all(|other| !log.contains(other)), "{log}");
        if runtime == "node" {
            assert_eq!(log, format!("I am {word}\nstill {word}\n"));
        } else {
            assert_eq!(log.matches("one of several").count(), 3, "what names nobody is kept with all: {log}");
        }
    }
    let mut missing = vec!["red", "green", "blue"];
    while !missing.is_empty() {
        let line = followed.line().await;
        missing.retain(|word| !line.contains(word));
    }
}

#[tokio::test]
async fn what_runs_over_its_time_is_told_at_once_and_its_neighbours_go_on() {
    let node = node("provided", "slots = 2\ntimeout = '60s'").await;
    let first = pid(&node, json!({ "what": "tell" })).await;
    let beside = node.accepted("/later", json!({ "what": "wait", "file": "go", "word": "beside" }).to_string()).await;
    run(&node, 1).await;
    // what runs keeps its own deadline
    node.reconfigure(&node.project().toml().replace("'60s'", "'200ms'")).await;
    let late = call(&node, json!({ "what": "wait", "file": "late", "word": "late" })).await;
    assert_eq!(late.status, 504, "{}", late.text());
    run(&node, 1).await;
    node.write("notes/late", "");
    let said = node.lines_of("notes/said", 2).await;
    assert_eq!(said[1], "late 410", "nobody waits for it");
    node.reconfigure(node.project().toml()).await;
    node.write("notes/go", "");
    let event = node.event_is(&beside, "done").await;
    assert!(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap().contains(&first.to_string()), "{event}");
    let second = eventually("another one serves", || async {
        let answer = call(&node, json!({ "what": "tell" })).await;
        (answer.status == 200).then(|| answer.json::<Value>()["pid"].clone())
    })
    .await;
    assert_ne!(second, first, "nothing comes to it any more");
    eventually("it has ended", || async { (!is_running(&first)).then_some(()) }).await;
}

#[tokio::test]
async fn a_stream_that_runs_over_its_time_ends_though_its_process_goes_on() {
    let node = node("provided", "slots = 2\ntimeout = '60s'").await;
    let beside = node.accepted("/later", json!({ "what": "wait", "file": "go" }).to_string()).await;
    run(&node, 1).await;
    node.reconfigure(&node.project().toml().replace("'60s'", "'300ms'")).await;
    let flood = node.open(Request::post("/now"), json!({ "what": "flood" }).to_string()).await.unwrap();
    assert!(flood.into_body().collect().await.is_err(), "it was broken off");
    node.write("notes/go", "");
    node.event_is(&beside, "done").await;
}

#[rstest]
#[case::of_a_program("provided")]
#[case::of_node("node")]
#[tokio::test]
async fn one_that_ended_while_nothing_ran_is_replaced_and_no_attempt_is_lost(#[case] runtime: &str) {
    let node = node(runtime, "slots = 2").await;
    for _ in 0..3 {
        let first = pid(&node, json!({ "what": "tell" })).await;
        let process = Pid::from_raw(first.as_i64().unwrap().try_into().unwrap()).unwrap();
        kill_process(process, Signal::KILL).unwrap();
        eventually("it is gone", || async { (node.function("f").await["warm"] == 0).then_some(()) }).await;
        let calls = (0..2).map(|_| node.accepted("/later", json!({ "what": "tell" }).to_string()));
        for id in join_all(calls).await {
            let attempt = attempt(&node, &id).await;
            assert_eq!(attempt["outcome"], "ok", "{attempt}");
        }
    }
}

#[rstest]
#[case::of_a_program("provided", "exit", "Runtime.ExitError")]
#[case::of_node("node", "reject", "Runtime.UnhandledPromiseRejection")]
#[tokio::test]
async fn a_crash_is_the_outcome_of_all_that_ran(#[case] runtime: &str, #[case] what: &str, #[case] kind: &str) {
    let node = node(runtime, "slots = 3").await;
    let first = pid(&node, json!({ "what": "tell" })).await;
    let waits = json!({ "what": "wait", "file": "never" }).to_string();
    let mut ids = join_all((0..2).map(|_| node.accepted("/later", waits.clone()))).await;
    ids.push(node.accepted("/later", json!({ "what": what, "file": "go" }).to_string()).await);
    run(&node, 3).await;
    node.write("notes/go", "");
    for id in &ids {
        let attempt = attempt(&node, id).await;
        assert_eq!((&attempt["outcome"], &attempt["error"]["kind"]), (&json!("crash"), &json!(kind)), "{attempt}");
    }
    assert_ne!(pid(&node, json!({ "what": "tell" })).await, first);
}

#[tokio::test]
async fn an_edit_serves_at_once_and_what_runs_ends_on_the_version_it_began_with() {
    let node = project("provided", "slots = 2").start().await;
    node.function_ready("f").await;
    let toml = node.project().toml().replace("concurrency = 1", "concurrency = 2");
    node.reconfigure(&toml).await;
    let first = pid(&node, json!({ "what": "tell" })).await;
    let waits = json!({ "what": "wait", "file": "go" }).to_string();
    let ids = join_all((0..2).map(|_| node.accepted("/later", waits.clone()))).await;
    run(&node, 2).await;
    node.write("f/bootstrap", &BOOTSTRAP.replace("VERSION = 1", "VERSION = 2"));
    let second = eventually("the edit serves", || async {
        let answer = call(&node, json!({ "what": "tell" })).await.json::<Value>();
        (answer["version"] == 2).then(|| answer["pid"].clone())
    })
    .await;
    assert!(is_running(&first), "two invocations are on it");
    node.write("notes/go", "");
    for id in &ids {
        let output = attempt(&node, id).await["output"].as_str().unwrap().to_owned();
        assert!(output.contains("\"version\": 1"), "{output}");
    }
    eventually("the old one has ended", || async { (!is_running(&first)).then_some(()) }).await;
    assert_eq!(pid(&node, json!({ "what": "tell" })).await, second);
}

#[tokio::test]
async fn an_instance_is_frozen_when_nothing_runs_on_it_and_goes_on_with_the_next_call() {
    let node = node("node", "slots = 2\nnetwork = false").await;
    let first = pid(&node, json!({ "what": "tell" })).await;
    eventually("it rests", || async { (node.function("f").await["frozen"] == 1).then_some(()) }).await;
    assert_eq!(pid(&node, json!({ "what": "tell" })).await, first);
    let id = node.accepted("/later", json!({ "what": "wait", "file": "go" }).to_string()).await;
    run(&node, 1).await;
    assert_eq!(node.function("f").await["warm"], 0, "one that is in use is not idle");
    node.write("notes/go", "");
    node.event_is(&id, "done").await;
}

/// Streams as many pieces as the event says, then waits for a file, then ends.
const STREAMS: &str = r#"
const fs = require("node:fs");
const path = require("node:path");
const go = (name) => fs.existsSync(path.join(process.env.FNBUS_PROJECT, "notes", name));
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  for (let n = 0; n < event.pieces; n += 1) {
    if (!stream.write(event.word.repeat(event.size))) await new Promise((resolve) => stream.once("drain", resolve));
  }
  while (event.file && !go(event.file)) await new Promise((resolve) => setTimeout(resolve, 10));
  if (event.fails) throw new TypeError("in the middle");
  stream.end("end");
});
"#;

#[tokio::test]
async fn streams_of_one_instance_go_on_beside_each_other() {
    let project = project("node", "slots = 3").file("f/index.js", STREAMS);
    let node = project.start().await;
    node.function_ready("f").await;
    let open = async |event: Value| node.open(Request::post("/now"), event.to_string()).await.unwrap();
    // nobody reads this one
    let slow = open(json!({ "word": "s", "pieces": 100, "size": 100_000 })).await;
    let mut waits = open(json!({ "word": "w", "pieces": 1, "size": 3, "file": "go" })).await;
    let first = waits.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&first[..], b"www", "it comes while it runs");
    let quick = open(json!({ "word": "q", "pieces": 50, "size": 100_000 })).await;
    let quick = quick.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((quick.len(), quick.ends_with(b"qend")), (5_000_003, true));
    node.write("notes/go", "");
    assert_eq!(&waits.into_body().collect().await.unwrap().to_bytes()[..], b"end");
    let broken = open(json!({ "word": "b", "pieces": 1, "size": 1, "fails": true })).await;
    assert!(broken.into_body().collect().await.is_err(), "it was broken off");
    let slow = slow.into_body().collect().await.unwrap().to_bytes();
    assert!(slow.len() == 10_000_003 && slow.starts_with(b"ss") && slow.ends_with(b"send"), "{}", slow.len());
}

#[tokio::test]
async fn errors_of_one_leave_the_others_and_large_events_come_whole() {
    let node = node("node", "slots = 3").await;
    let word = "x".repeat(500_000);
    for round in 0..4 {
        let calls = ["fail", "tell", "tell"]
            .into_iter()
            .enumerate()
            .map(|(n, what)| call(&node, json!({ "what": what, "word": format!("{round} {n} {word}") })));
        for (n, answer) in join_all(calls).await.into_iter().enumerate() {
            if n == 0 {
                assert_eq!(answer.status, 502);
            } else {
                assert_eq!(answer.json::<Value>()["word"], format!("{round} {n} {word}"));
            }
        }
    }
    assert_eq!(node.function("f").await["errors"], 4);
}

/// An instance that reaches a limit, while two more invocations are on it: what they wait for goes on.
async fn reaching(limit: &str, does: &str) -> (Node, Value, Vec<String>) {
    let code = INDEX.replace("exports.handler =", &format!("const reach = {does};\nexports.handler =")).replace(
        "  if (event.what === \"wait\")",
        "  if (event.what === \"reach\") { await waitFor(event.file); return reach(); }\n  if (event.what === \"wait\")",
    );
    let node = project("node", &format!("slots = 3\n{limit}")).file("f/index.js", &code).start().await;
    node.function_ready("f").await;
    let first = pid(&node, json!({ "what": "tell" })).await;
    let mut ids = Vec::new();
    for (what, file) in [("wait", "end"), ("wait", "end"), ("reach", "go")] {
        ids.push(node.accepted("/later", json!({ "what": what, "file": file }).to_string()).await);
    }
    run(&node, 3).await;
    node.write("notes/go", "");
    (node, first, ids)
}

#[tokio::test]
async fn memory_that_runs_out_is_the_outcome_of_all_that_ran() {
    let eats = "() => { const all = []; for (;;) all.push(new Array(1e6).fill(1.5)); }";
    let (node, first, ids) = reaching("memory = 64", eats).await;
    for id in &ids {
        let attempt = attempt(&node, id).await;
        assert_eq!(attempt["outcome"], "oom", "{attempt}");
    }
    assert_ne!(pid(&node, json!({ "what": "tell" })).await, first, "another one serves");
}

#[tokio::test]
async fn processes_that_run_out_are_the_error_of_who_asked_for_more() {
    let starts = "async () => {
  const { spawn } = require('node:child_process');
  for (;;) await new Promise((resolve, reject) => spawn('sleep', ['1000']).on('error', reject).on('spawn', resolve));
}";
    let (node, first, ids) = reaching("processes = 24", starts).await;
    if !node.enforces("more ").await {
        return;
    }
    let reached = attempt(&node, &ids[2]).await;
    assert_eq!((&reached["outcome"], &reached["error"]["kind"]), (&json!("error"), &json!("Error")), "{reached}");
    let says = "the instance reached its limit of 24 processes and threads: raise `processes`";
    assert!(reached["error"]["message"].as_str().unwrap().ends_with(says), "{reached}");
    node.write("notes/end", "");
    for id in &ids[..2] {
        let attempt = attempt(&node, id).await;
        assert_eq!(attempt["outcome"], "ok", "{attempt}");
        assert!(attempt["output"].as_str().unwrap().contains(&first.to_string()), "{attempt}");
    }
}

#[rstest]
#[case::python("python", "", "a python instance runs one call at a time: another one is forked in milliseconds")]
#[case::command("command", "handler = './f.sh'", "a command is started for each call")]
#[case::wasm("wasm", "", "wasm has an instance for each call")]
#[case::none("provided", "", "")]
#[tokio::test]
async fn slots_are_refused_where_an_instance_runs_one_at_a_time(
    #[case] runtime: &str,
    #[case] keys: &str,
    #[case] says: &str,
) {
    let slots = if says.is_empty() { "slots = 0" } else { "slots = 2" };
    let project = Project::new()
        .file("f/app.py", "def handler(event, context):\n    pass\n")
        .program("f/f.sh", "#!/bin/sh\n")
        .program("f/bootstrap", "#!/bin/sh\n")
        .config(&format!("[functions.f]\nruntime = '{runtime}'\n{slots}\n{keys}\n"));
    let checked = project.check(&[]);
    assert_eq!(checked.code(), 1, "{}", checked.all());
    let says = if says.is_empty() { "must be from 1 to 64" } else { says };
    assert!(checked.all().contains(says), "{}", checked.all());
}

/// Meets another process: each waits until both are there.
const MEETS: &str = r#"
import os, time
notes = os.path.join(os.environ["FNBUS_PROJECT"], "notes")
def handler(event, context):
    print("here", event["word"])
    open(os.path.join(notes, event["word"]), "w").close()
    while not all(os.path.exists(os.path.join(notes, word)) for word in ("a", "b")):
        time.sleep(0.01)
    return os.getppid()
"#;

/// A node whose function is an official client with two slots, of which both have met.
async fn met(clients: &Path, file: &str, code: &str, run: &str, keys: &str) -> Node {
    let read = format!("write = 'notes', read = '{}'", clients.display());
    let node = Project::new()
        .file("notes/none", "")
        .file(file, code)
        .program("f/bootstrap", &format!("#!/bin/sh\n{run}\n"))
        .config(&config("provided", &format!("slots = 2\n{keys}")).replace("write = 'notes'", &read))
        .start()
        .await;
    node.function_ready("f").await;
    let answers = join_all(["a", "b"].map(|word| call(&node, json!({ "word": word })))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{}", node.said());
    assert_eq!(answers[0].text(), answers[1].text(), "both were in one instance");
    node
}

#[tokio::test]
async fn the_official_client_for_python_serves_as_many_as_it_is_told() {
    let Some(clients) = clients() else { return };
    let run = format!("exec '{}' -m awslambdaric app.handler", clients.join("bin/python").display());
    met(&clients, "f/app.py", MEETS, &run, "").await;
}

/// The same, in JavaScript.
const MEETS_IN_NODE: &str = r#"
const fs = require("node:fs");
const path = require("node:path");
const notes = path.join(process.env.FNBUS_PROJECT, "notes");
const there = (word) => fs.existsSync(path.join(notes, word));
exports.handler = async (event) => {
  console.log("here", event.word);
  fs.writeFileSync(path.join(notes, event.word), "");
  while (!["a", "b"].every(there)) await new Promise((resolve) => setTimeout(resolve, 10));
  return process.pid;
};
"#;

#[tokio::test]
async fn the_official_client_for_node_serves_as_many_as_it_is_told() {
    let Some(clients) = clients() else { return };
    let run = format!(
        "export _HANDLER=index.handler AWS_LAMBDA_NODEJS_WORKER_COUNT=2\nexec '{0}/node/bin/node' '{0}/node_modules/aws-lambda-ric/index.mjs'",
        clients.display()
    );
    let node = met(&clients, "f/index.js", MEETS_IN_NODE, &run, "memory = 2048").await;
    let later = json!({ "word": "a" }).to_string();
    let ids = join_all((0..6).map(|_| node.accepted("/later", later.clone()))).await;
    for id in &ids {
        let attempt = attempt(&node, id).await;
        assert_eq!(attempt["outcome"], "ok", "{attempt}");
        assert_eq!(attempt["log"].as_str().unwrap().matches("here a").count(), 1, "its own line: {attempt}");
    }
}

#[tokio::test]
async fn the_official_client_for_rust_serves_as_many_as_it_is_told() {
    let Some(bootstrap) = clients().map(|clients| clients.parent().unwrap().join("rust/debug/bootstrap")) else {
        return;
    };
    let project = Project::new().file("notes/none", "").file("f/README", "").config(&config("provided", "slots = 2"));
    std::fs::copy(bootstrap, project.path().join("f/bootstrap")).unwrap();
    let node = project.start().await;
    node.function_ready("f").await;
    let answers = join_all(["a", "b"].map(|word| call(&node, json!({ "what": "meet", "word": word })))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{}", node.said());
    assert_eq!(answers[0].text(), answers[1].text(), "both were in one instance");
}

fn is_running(pid: &Value) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}
