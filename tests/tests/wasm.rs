//! Functions in WebAssembly, from end to end: a module of preview 1, and the component of preview 2 that is made of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{fs, path::Path};

use fnbus_tests::{Node, PATIENCE, Project, eventually, wasm};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::timeout;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Module,
    Component,
}

use Kind::{Component, Module};

fn guest(kind: Kind) -> Option<Vec<u8>> {
    let module = wasm::module("guest")?;
    Some(if kind == Module { module } else { wasm::component(&module) })
}

fn put(project: &Path, file: &str, bytes: &[u8]) {
    let path = project.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// The function `f`, which does as the words say, called at `/f` and, asynchronously, at `/later`.
fn project(code: &[u8], does: &str, keys: &str) -> Project {
    let project = Project::new()
        .config(&format!("[functions.f]\nruntime = 'wasm'\nhandler = \"{does}\"\nretry = {{ attempts = 1 }}\n{keys}"))
        .config("[triggers.f]\nhttp = 'POST /f'\npayload = 'body'\nto = 'f'\n")
        .config("[triggers.later]\nhttp = 'POST /later'\npayload = 'body'\nmode = 'async'\nto = 'f'\n");
    put(project.path(), "f/main.wasm", code);
    project
}

/// How an asynchronous call ends: outcome, error and log.
async fn ends(node: &Node) -> (Value, Value, String) {
    let id = node.accepted("/later", "7").await;
    let event = node.event_is(&id, "dead").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    let log = attempt["log"].as_str().unwrap_or_default().to_owned();
    (attempt["outcome"].clone(), attempt["error"].clone(), log)
}

#[rstest]
#[case::module(Module)]
#[case::component(Component)]
#[tokio::test]
async fn a_function_gets_the_event_on_stdin_and_answers_with_what_it_prints(#[case] kind: Kind) {
    let Some(code) = guest(kind) else { return };
    let node = project(&code, "main.wasm echo --daily", "").start().await;
    assert_eq!(node.post("/f", "{\"n\":1}").await.text(), "--daily {\"n\":1}");
    let large = "x".repeat(3 << 20);
    assert_eq!(node.post("/f", large.clone()).await.text().len(), "--daily ".len() + large.len());
    let id = node.accepted("/later", "7").await;
    let event = node.event_is(&id, "done").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["output"], &attempt["log"]), (&json!("--daily 7"), &json!("working\n")));
    assert_eq!(attempt["start"], "cold");
}

#[rstest]
#[case::module(Module)]
#[case::component(Component)]
#[tokio::test]
async fn each_call_has_an_instance_of_its_own(#[case] kind: Kind) {
    let Some(code) = guest(kind) else { return };
    let node = project(&code, "main.wasm calls", "concurrency = 1").start().await;
    for _ in 0..5 {
        assert_eq!(node.post("/f", "").await.text(), "1");
    }
    assert_eq!(node.function("f").await["warm"], 0, "nothing waits between them");
}

#[rstest]
#[case("exit 4", "", "error", "Runtime.ExitError", "exit status 4: no such customer")]
#[case("trap", "", "crash", "Runtime.Trap", "unreachable")]
#[case("recurse", "", "crash", "Runtime.Trap", "call stack exhausted")]
#[case("eat", "memory = 32", "oom", "Runtime.OutOfMemory", "raise its `memory`")]
#[case("spin", "timeout = '300ms'", "timeout", "Sandbox.Timedout", "timed out after 0.30 seconds")]
#[case("sleep", "timeout = '300ms'", "timeout", "Sandbox.Timedout", "timed out after 0.30 seconds")]
#[case("flood", "", "too_large", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size")]
#[tokio::test]
async fn what_goes_wrong_has_a_name(
    #[values(Module, Component)] kind: Kind,
    #[case] does: &str,
    #[case] keys: &str,
    #[case] outcome: &str,
    #[case] error: &str,
    #[case] message: &str,
) {
    let Some(code) = guest(kind) else { return };
    let node = project(&code, &format!("main.wasm {does}"), keys).start().await;
    let (ended, told, log) = ends(&node).await;
    // a component has no exit codes beside good and bad
    let message =
        if kind == Component { message.replace("exit status 4", "exit status 1") } else { message.to_owned() };
    assert_eq!((&ended, &told["kind"]), (&json!(outcome), &json!(error)), "{told} {log}");
    assert!(told["message"].as_str().unwrap().contains(&message), "{told}");
    let refused = node.post("/f", "7").await;
    assert_eq!(refused.status, if outcome == "timeout" { 504 } else { 502 }, "{}", refused.text());
}

#[tokio::test]
async fn lines_without_end_are_logged_as_far_as_their_bound() {
    let Some(code) = guest(Module) else { return };
    let node = project(&code, "main.wasm chatter", "").start().await;
    let id = node.accepted("/later", "7").await;
    let event = node.event_is(&id, "done").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!(attempt["output"], "done\n");
    let log = attempt["log"].as_str().unwrap();
    assert!(log.ends_with("line 99999\n") && log.contains("bytes before this are cut"), "{}", log.len());
}

#[tokio::test]
async fn functions_that_compute_without_end_hold_up_nobody_else() {
    let Some(code) = guest(Module) else { return };
    let project = project(&code, "main.wasm spin", "timeout = '1h'\nconcurrency = 8")
        .config("[functions.well]\nruntime = 'wasm'\ncode = 'f'\nhandler = 'main.wasm echo'\n")
        .config("[triggers.well]\nhttp = 'POST /well'\npayload = 'body'\nto = 'well'\n");
    let node = project.start().await;
    for _ in 0..8 {
        node.accepted("/later", "7").await;
    }
    node.deliveries_are("running", 8).await;
    for _ in 0..10 {
        let answer = timeout(PATIENCE, node.post("/well", "hello")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "hello"));
    }
    assert_eq!(node.function("f").await["busy"], 8);
}

#[rstest]
#[case::module(Module)]
#[case::component(Component)]
#[tokio::test]
async fn a_function_reaches_its_folders_and_nothing_else(#[case] kind: Kind) {
    let Some(code) = guest(kind) else { return };
    let base = project(&code, "main.wasm calls", "");
    let at = base.path().canonicalize().unwrap();
    let shown = at.display();
    let mut project = base.file("shelf/a.txt", "on the shelf").file("secret.txt", "secret").file(".fnbus/none", "");
    let tries = [
        ("shelf", format!("read {shown}/shelf/a.txt")),
        ("above", format!("read {shown}/shelf/../secret.txt")),
        ("link", format!("read {shown}/shelf/link")),
        ("beside", format!("read {shown}/secret.txt")),
        ("passwords", "read /etc/passwd".to_owned()),
        ("itself", format!("read {shown}/f/main.wasm")),
        ("spoil", format!("note {shown}/shelf/a.txt")),
        ("note", format!("note {shown}/notes/n.txt")),
        ("env", "env".to_owned()),
    ];
    std::os::unix::fs::symlink(at.join("secret.txt"), at.join("shelf/link")).unwrap();
    for (name, does) in &tries {
        project = project.config(&format!(
            "[functions.{name}]\nruntime = 'wasm'\ncode = 'f'\nhandler = \"main.wasm {does}\"\nenv = {{ GREETING = 'hello' }}\n\
             folders = {{ read = 'shelf', write = 'notes' }}\n[triggers.{name}]\nhttp = 'GET /{name}'\nto = '{name}'"
        ));
    }
    let node = project.variable("FNBUS_TEST_SECRET", "secret").start().await;
    assert_eq!(node.get("/shelf").await.text(), "on the shelf");
    assert_eq!(node.get("/note").await.status, 200);
    assert_eq!(node.read("notes/n.txt"), "noted\n");
    for refused in ["above", "link", "beside", "passwords", "itself", "spoil"] {
        let answer = node.get(&format!("/{refused}")).await;
        assert_eq!(answer.status, 502, "{refused}: {}", answer.text());
    }
    assert_eq!(node.read("shelf/a.txt"), "on the shelf");
    let env = node.get("/env").await.text().to_owned();
    let names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
    let ours = |name: &&str| name.starts_with("AWS_") || name.starts_with("FNBUS_") || *name == "_HANDLER";
    let others: Vec<&&str> = names.iter().filter(|name| !ours(name)).collect();
    assert!(others.iter().all(|name| ["GREETING", "TRACEPARENT", "_X_AMZN_TRACE_ID"].contains(name)), "{others:?}");
    assert!(env.contains("GREETING=hello") && env.contains("AWS_LAMBDA_FUNCTION_NAME=env"), "{env}");
    assert!(!env.contains("secret"), "{env}");
}

#[tokio::test]
async fn code_that_cannot_run_is_refused_and_the_version_before_goes_on_serving() {
    let Some(code) = guest(Module) else { return };
    let node = project(&code, "main.wasm echo", "memory = 32").start().await;
    assert_eq!(node.post("/f", "1").await.text(), "1");
    let empty = b"\0asm\x01\0\0\0";
    let asks = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x09\x01\x03env\x01f\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\x01\x0a\x04\x01\x02\0\x0b";
    // a memory of 1024 pages, 64 MiB
    let large = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x04\x01\0\x80\x08\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";
    let bad: [(&[u8], &str); 5] = [
        (b"#!/bin/sh\n", "is no WebAssembly; build it for wasm32-wasip1"),
        (b"\0asm\x01\0\0\0garbage", "cannot be compiled"),
        (empty, "it exports no `_start`; build a program"),
        (asks, "unknown import: `env::f`"),
        (large, "has 64 MiB of memory when it starts, more than its `memory`"),
    ];
    for (code, says) in bad {
        put(node.path(), "f/main.wasm", code);
        eventually(&format!("it is refused: {says}"), async || {
            let refused = node.function("f").await["refused"].as_str().unwrap_or_default().to_owned();
            refused.contains(says).then_some(())
        })
        .await;
        assert_eq!(node.post("/f", "2").await.text(), "2", "{says}");
    }
    put(node.path(), "f/main.wasm", &code);
    eventually("the good code is taken back", async || node.function("f").await["refused"].is_null().then_some(()))
        .await;
}

#[tokio::test]
async fn what_was_compiled_is_kept_and_compiled_anew_when_it_is_not_what_was_written() {
    let Some(code) = guest(Module) else { return };
    let mut node = project(&code, "main.wasm echo", "").start().await;
    assert_eq!(node.post("/f", "1").await.text(), "1");
    let kept = || {
        let files = fs::read_dir(node.data().join("modules")).unwrap().map(|entry| entry.unwrap().path());
        files.collect::<Vec<_>>()
    };
    let [file] = &kept()[..] else { panic!("{:?}", kept()) };
    let (file, written) = (file.clone(), fs::metadata(file).unwrap().modified().unwrap());
    node.stop().await;
    node.restart().await;
    assert_eq!(node.post("/f", "2").await.text(), "2");
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written, "it was compiled again");

    let whole = fs::read(&file).unwrap();
    let mut turned = whole.clone();
    *turned.last_mut().unwrap() ^= 1;
    for broken in [&turned[..], &whole[..whole.len() / 2], b""] {
        node.stop().await;
        fs::write(&file, broken).unwrap();
        node.restart().await;
        assert_eq!(node.post("/f", "3").await.text(), "3");
        assert!(node.said().contains("compiling anew"), "{}", node.said());
        assert_eq!(fs::read(&file).unwrap().len(), whole.len());
    }
}

#[tokio::test]
async fn check_finds_what_is_wrong_with_a_function_in_webassembly() {
    for (keys, says) in [
        ("", "there is no main.wasm in `f`"),
        ("handler = '../other.wasm'", "name a file of WebAssembly in the code folder"),
        ("handler = 'here.wasm'\nwarm = 1", "has no effect on wasm"),
        ("handler = 'here.wasm'\nisolation = 'process'", "has no effect on wasm"),
        ("handler = 'here.wasm'\nnetwork = false", "has no effect on wasm"),
        ("handler = 'here.wasm'\nmemory = 8192", "more than WebAssembly can address"),
    ] {
        let project =
            Project::new().file("f/here.wasm", "").config(&format!("[functions.f]\nruntime = 'wasm'\n{keys}"));
        let checked = project.check(&[]);
        assert_eq!(checked.code(), 1, "{keys}: {}", checked.all());
        assert!(checked.all().contains(says), "{keys}: {}", checked.all());
    }
    let fine = Project::new().file("f/main.wasm", "").config("[functions.f]\nruntime = 'wasm'\nmemory = 64");
    assert_eq!(fine.check(&[]).code(), 0, "{}", fine.check(&[]).all());
}

#[tokio::test]
async fn a_folder_that_is_a_file_is_refused() {
    let Some(code) = guest(Module) else { return };
    let project = project(&code, "main.wasm echo", "folders = { read = 'a.txt' }").file("a.txt", "");
    let node = project.start().await;
    let failed = eventually("it is refused", async || {
        let function = node.function("f").await;
        (function["state"] == "failed").then(|| function["message"].as_str().unwrap().to_owned())
    });
    assert!(failed.await.contains("WebAssembly is given folders alone"));
}

#[tokio::test]
async fn an_invocation_that_runs_ends_with_the_node_and_is_run_again() {
    let Some(code) = guest(Module) else { return };
    let mut node = project(&code, "main.wasm spin", "timeout = '1h'").start().await;
    let id = node.accepted("/later", "7").await;
    node.event_is(&id, "running").await;
    node.kill();
    let toml = node.project().toml().replace("main.wasm spin", "main.wasm echo");
    node.restart_with(&toml).await;
    node.event_is(&id, "done").await;
}

/// The component that answers HTTP, behind each path, and as a function of events.
async fn web(keys: &str) -> Option<Node> {
    let code = wasm::http()?;
    let project =
        project(&code, "main.wasm", keys).config("[triggers.web]\nhttp = ['ANY /', 'ANY /{rest+}']\nto = 'f'");
    Some(project.start().await)
}

#[tokio::test]
async fn a_component_that_answers_http_gets_the_request_and_its_response_is_the_callers() {
    let Some(node) = web("").await else { return };
    let put = hyper::Request::put("/echo/a%20b?x=1&x=2").header("content-type", "text/plain");
    let answer = node.send(put, "hello").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "PUT /echo/a%20b?x=1&x=2 hello"));
    assert_eq!(answer.header("content-type"), Some("text/x-test"));
    assert_eq!(node.get("/status/418").await.status, 418);
    assert_eq!(node.get("/status/500").await.status, 500);
    let bytes = node.send(hyper::Request::post("/x").header("content-type", "image/png"), &b"\xff\0\x01"[..]).await;
    assert_eq!(&bytes.body[..], b"\xff\0\x01");
    let large = "x".repeat(2 << 20);
    assert_eq!(node.post("/x", large.clone()).await.text(), large);
}

#[tokio::test]
async fn an_event_that_is_no_request_is_posted_and_a_status_that_is_no_success_is_an_error() {
    let Some(node) = web("").await else { return };
    let id = node.accepted("/later", "7").await;
    let event = node.event_is(&id, "done").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["output"], &attempt["log"]), (&json!("7"), &json!("asked for /\n")));
    let id = node.accepted("/later", "503").await;
    let event = node.event_is(&id, "dead").await;
    let error = &event["deliveries"][0]["attempts"][0]["error"];
    let message = "the function answered 503 Service Unavailable: 503";
    assert_eq!(error, &json!({ "kind": "Function.HttpStatus", "message": message }));
}

#[rstest]
#[case("/silent", "bad_output", "Runtime.NoResponse")]
#[case("/trap", "crash", "Runtime.Trap")]
#[case("/flood", "too_large", "Function.ResponseSizeTooLarge")]
#[tokio::test]
async fn a_component_that_gives_no_good_response_is_a_bad_gateway(
    #[case] path: &str,
    #[case] outcome: &str,
    #[case] kind: &str,
) {
    let Some(node) = web("").await else { return };
    let refused = node.get(path).await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    let event = node.show(refused.json::<Value>()["id"].as_str().unwrap()).await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["error"]["kind"]), (&json!(outcome), &json!(kind)), "{attempt:#}");
    assert_eq!(node.get("/echo").await.status, 200);
}

#[tokio::test]
async fn requests_go_out_to_the_hosts_that_are_named_and_to_no_other() {
    let Some(code) = guest(Module) else { return };
    let other = project(&code, "main.wasm calls", "").config("[triggers.root]\nhttp = 'GET /'\nto = 'f'");
    let other = other.start().await;
    let other_at = other.http().to_owned();
    let Some(node) = web(&format!("hosts = ['{other_at}', 'api.example.com']")).await else { return };
    assert_eq!(node.get(&format!("/ask?{other_at}")).await.text(), "1");
    let port = other_at.rsplit(':').next().unwrap();
    // the 15th of its errors: the request was denied
    for refused in [format!("localhost:{port}"), node.http().to_owned(), "127.0.0.1".into(), "example.com".into()] {
        let answer = node.get(&format!("/ask?{refused}")).await;
        assert!(answer.text().ends_with(" 15"), "{refused}: {}", answer.text());
    }
    let [event] = &node.json(&["events", "--json", "--limit", "1"]).await[..] else { panic!("no event") };
    let event = node.show(event["id"].as_str().unwrap()).await;
    let log = event["deliveries"][0]["attempts"][0]["log"].as_str().unwrap();
    assert!(log.contains("a request to example.com was refused; `hosts` of the function does not name it"), "{log}");
}

#[test]
fn check_finds_a_host_that_is_none_and_hosts_where_nothing_is_held_back() {
    for (runtime, hosts, says) in [
        ("wasm", "hosts = 'https://api.example.com'", "is not a host"),
        ("wasm", "hosts = ['*.example.com']", "each host is named"),
        ("command", "handler = 'true'\nhosts = 'api.example.com'", "has an effect on wasm functions alone"),
    ] {
        let project =
            Project::new().file("f/main.wasm", "").config(&format!("[functions.f]\nruntime = '{runtime}'\n{hosts}"));
        let checked = project.check(&[]);
        assert_eq!(checked.code(), 1, "{hosts}: {}", checked.all());
        assert!(checked.all().contains(says), "{hosts}: {}", checked.all());
    }
}
