//! What the pools of a node share: memory, and what they know of calls to come.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use chrono::{TimeDelta, Utc};
use fnbus_tests::{NOTES, Node, Project, eventually};
use rstest::rstest;
use serde_json::{Value, json};

/// Takes thirty megabytes.
const LARGE: &str = "BALLAST = bytearray(30_000_000)\ndef handler(event, context):\n    return 'here'\n";
/// The same, and works until the file `notes/go` is there.
const HOLDS: &str = "import os, time\nBALLAST = bytearray(30_000_000)\ndef handler(event, context):\n    \
                     while not os.path.exists(GO): time.sleep(0.02)\n    return 'gone'\n";

fn routes(name: &str) -> String {
    format!(
        "[triggers.{name}-call]\nhttp = 'POST /{name}'\nto = '{name}'\n\
         [triggers.{name}-later]\nhttp = 'POST /{name}/later'\nmode = 'async'\nto = '{name}'\n"
    )
}

async fn idle(node: &Node) -> u64 {
    let functions = node.json(&["functions", "--json"]).await;
    functions.iter().map(|function| function["warm"].as_u64().unwrap()).sum()
}

#[rstest]
#[tokio::test]
async fn where_memory_is_short_the_instance_goes_that_is_called_least(
    #[values("sandbox", "namespaces")] isolation: &str,
) {
    let keys = format!("zygote = false\nisolation = '{isolation}'");
    let mut project = Project::new().config("[pool]\nmemory = '100MB'\n");
    for name in ["a", "b", "c"] {
        project = project.function_with(name, LARGE, &keys).config(&routes(name));
    }
    let node = project.start().await;
    if isolation == "namespaces" && !node.enforces("seeing ").await {
        return;
    }
    for name in ["a", "b", "c"] {
        node.function_ready(name).await;
    }
    for _ in 0..10 {
        assert_eq!(node.post("/a", "{}").await.text(), "here");
    }
    for name in ["b", "c", "b", "c"] {
        assert_eq!(node.post(&format!("/{name}"), "{}").await.text(), "here");
        assert!(idle(&node).await <= 2, "three are more than there is room for");
    }
    assert_eq!(node.function("a").await["warm"], 1, "it is called most");
    let memory = node.function("a").await["memory"].as_u64().unwrap();
    assert!((30_000_000..60_000_000).contains(&memory), "{memory}");
}

/// The same, as a program for each invocation.
const WAITS: &str = "#!/bin/sh\nwhile [ ! -e \"$GO\" ]; do sleep 0.02; done\necho gone\n";

#[rstest]
#[case::a_language("python", "sandbox")]
#[case::a_language_in_namespaces("python", "namespaces")]
#[case::a_command("command", "sandbox")]
#[tokio::test]
async fn who_finds_no_room_is_told_so_or_waits_for_it(#[case] runtime: &str, #[case] isolation: &str) {
    let project = Project::new();
    let go = project.path().join(NOTES).join("go").display().to_string();
    let keys = format!("folders = {{ write = '{NOTES}' }}\nisolation = '{isolation}'\nzygote = false");
    let project = project.function_with("g", LARGE, &keys);
    let project = if runtime == "python" {
        project.function_with("f", &format!("GO = '{go}'\n{HOLDS}"), &keys)
    } else {
        let keys = format!("folders = {{ read = '{NOTES}' }}\nenv = {{ GO = '{go}' }}");
        project
            .program("f/run", WAITS)
            .config(&format!("[functions.f]\nruntime = 'command'\nhandler = './run'\n{keys}"))
    };
    let node = project.config("[pool]\nmemory = '60MB'\n").config(&routes("f")).config(&routes("g")).start().await;
    if isolation == "namespaces" && !node.enforces("seeing ").await {
        return;
    }
    node.function_ready("f").await;
    node.function_ready("g").await;
    let first = node.accepted("/f/later", "{}").await;
    node.deliveries_are("running", 1).await;
    eventually("the other one had to go", || async { (idle(&node).await == 0).then_some(()) }).await;
    let second = node.accepted("/g/later", "{}").await;
    assert_eq!(node.post("/g", "{}").await.status, 429, "{}", node.said());
    node.says("raise [pool] memory").await;
    node.write("notes/go", "");
    node.event_is(&first, "done").await;
    let event = node.event_is(&second, "done").await;
    assert_eq!(event["deliveries"][0]["attempts"].as_array().unwrap().len(), 1, "waiting is no attempt");
}

/// Whether what was started before its call was called, since `before`.
async fn paid(node: &Node, name: &str, before: u64) -> bool {
    node.function(name).await["pre_warmed_used"].as_u64().unwrap() > before
}

#[tokio::test]
async fn the_functions_of_later_steps_are_started_while_earlier_ones_run() {
    let names = ["a", "b", "c", "d"];
    let code = "import time\ndef handler(event, context):\n    time.sleep(0.2)\n    return 1\n";
    let mut project = Project::new();
    for name in names {
        project = project.function_with(name, code, "keep_alive = '1ms'");
    }
    let config = format!("[pipelines.line]\nsteps = {names:?}\n[triggers.run]\nhttp = 'POST /run'\nto = 'line'\n");
    let node = project.config(&config).start().await;
    for name in names {
        node.function_ready(name).await;
    }
    eventually("the later steps found instances", || async {
        (idle(&node).await == 0).then_some(())?;
        assert_eq!(node.post("/run", "{}").await.text(), "1");
        for name in &names[1..] {
            paid(&node, name, 0).await.then_some(())?;
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn what_follows_from_a_function_is_started_while_it_runs() {
    let node = Project::new()
        .function_with("f", "import time\ndef handler(event, context):\n    time.sleep(0.2)\n", "then = 'g'")
        .function_with("g", "def handler(event, context):\n    return 1\n", "keep_alive = '1ms'")
        .config(&routes("f"))
        .start()
        .await;
    node.function_ready("g").await;
    eventually("the second one found an instance", || async {
        (node.function("g").await["warm"] == 0).then_some(())?;
        let done = node.deliveries("done").await;
        assert_eq!(node.post("/f", "{}").await.status, 200);
        eventually("the second one has run", || async { (node.deliveries("done").await > done).then_some(()) }).await;
        paid(&node, "g", 0).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_instance_is_there_when_the_time_of_a_schedule_comes() {
    let code = "def handler(event, context):\n    return 1\n";
    let node = Project::new().function_with("f", code, "keep_alive = '1ms'").start().await;
    node.function_ready("f").await;
    let toml = node.project().toml().to_owned();
    eventually("it was there before", || async {
        let at = (Utc::now() + TimeDelta::seconds(2)).format("%Y-%m-%dT%H:%M:%S");
        node.reconfigure(&format!("{toml}\n[triggers.t{}]\ncron = 'at({at})'\nto = 'f'\n", Utc::now().timestamp()))
            .await;
        let done = node.deliveries("done").await;
        eventually("it has run", || async { (node.deliveries("done").await > done).then_some(()) }).await;
        paid(&node, "f", 0).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn starts_are_counted_and_timed_by_what_a_call_found() {
    let code = "def handler(event, context):\n    return 1\n";
    let node = Project::new().function_with("f", code, "keep_alive = '1ms'").config(&routes("f")).start().await;
    node.function_ready("f").await;
    eventually("its instance has ended", || async { (idle(&node).await == 0).then_some(()) }).await;
    let id = node.accepted("/f/later", "{}").await;
    let event = node.event_is(&id, "done").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    for part in ["queue_ms", "start_ms", "init_ms", "run_ms"] {
        assert!(attempt[part].is_number(), "{part} in {attempt}");
    }
    let starts = node.function("f").await["starts"].clone();
    let [start] = starts.as_array().unwrap().as_slice() else { panic!("{starts}") };
    assert_eq!((&start["found"], &start["count"]), (&attempt["start"], &json!(1)), "{start}");
    let number = |value: &Value| value.as_u64().unwrap();
    let took = number(&start["start_us"]["p50"]) + number(&start["init_us"]["p50"]);
    assert!(took > 0 && number(&start["run_us"]["p99"]) >= number(&start["run_us"]["p50"]), "{start}");
}
