//! Edits of the config under load, and ends in order.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use fnbus_tests::{Node, PATIENCE, Project, eventually};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const ROUTES: &str = "[triggers.f]\nhttp = 'GET /f'\nto = 'f'\n\
                      [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n";

async fn quick() -> Node {
    let node = Project::new().function("f", "def handler(event, context): return 'yes'\n").config(ROUTES).start().await;
    node.function_ready("f").await;
    node
}

/// Waits for the file `go`; its first act is to make `began`.
async fn gated() -> Node {
    let code = "import os, time\ndef handler(event, context):\n    os.write(LOG, b'began\\n')\n    \
                while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n    return 'finished'\n\
                LOG = os.open(os.environ['LOG'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n";
    let project = Project::new();
    let path = |name: &str| project.path().join(name).display().to_string();
    let keys = format!("concurrency = 2\nenv = {{ GO = '{}', LOG = '{}' }}", path("go"), path("notes/began"));
    let node = project.function_with("f", code, &keys).config(ROUTES).start().await;
    node.function_ready("f").await;
    node
}

#[tokio::test]
async fn a_good_edit_is_live_and_drops_no_request() {
    let node = quick().await;
    let (enough, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = || async {
        while !enough.load(Ordering::Relaxed) {
            let answer = node.get("/f").await;
            assert_eq!((answer.status.as_u16(), answer.text()), (200, "yes"));
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let edits = async {
        for n in 0..10 {
            let path = format!("/new{n}");
            assert_eq!(node.get(&path).await.status, 404);
            let edit = format!("{}[triggers.new]\nhttp = 'GET {path}'\nto = 'f'\n", node.project().toml());
            node.reconfigure(&edit).await;
            assert_eq!(node.get(&path).await.text(), "yes", "the new route is live");
            // And requests go on.
            let before = answered.load(Ordering::Relaxed);
            eventually("requests go on", || async { (answered.load(Ordering::Relaxed) > before).then_some(()) }).await;
        }
        enough.store(true, Ordering::Relaxed);
    };
    tokio::join!(load(), load(), edits);
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_says_where_it_is_wrong() {
    let node = quick().await;
    let toml = node.project().toml();
    node.configure(&format!("{toml}[triggers.new]\nhttp = 'GET /new'\nto = 'nobody'\n[nonsense]\nx = 1\n"));
    let line = toml.lines().count() + 3;
    node.says(&format!("fnbus.toml:{line}")).await;
    node.says("nobody").await;
    node.says("nonsense").await;
    node.says("the one from before stays in force").await;
    assert_eq!(node.get("/f").await.text(), "yes");
    assert_eq!(node.get("/new").await.status, 404);
    assert_eq!(node.json(&["triggers", "--json"]).await.len(), 2);
    // Commands still find the node, and the mended file is taken.
    node.reconfigure(&format!("{toml}[triggers.new]\nhttp = 'GET /new'\nto = 'f'\n")).await;
    assert_eq!(node.get("/new").await.text(), "yes");
}

#[tokio::test]
async fn a_new_address_is_said_to_wait_for_a_restart() {
    let node = quick().await;
    let other = node.project().toml().replace("127.0.0.1:0", "127.0.0.1:1");
    node.reconfigure(&format!("{other}[triggers.new]\nhttp = 'GET /new'\nto = 'f'\n")).await;
    node.says("`[http] listen` changed from 127.0.0.1:0 to 127.0.0.1:1: restart fnbus").await;
    assert_eq!(node.get("/new").await.text(), "yes", "the rest of the edit is live");
}

#[tokio::test]
async fn a_signal_lets_what_runs_finish_and_ends_everything() {
    let node = gated().await;
    let id = node.accepted("/jobs", "").await;
    let (called, ended) = tokio::join!(node.get("/f"), async {
        node.lines_of("notes/began", 2).await;
        node.signal(Signal::TERM);
        node.says("draining").await;
        eventually("new connections are refused", || async {
            node.try_send(hyper::Request::get("/f"), "").await.is_err().then_some(())
        })
        .await;
        node.write("go", "");
        node.ended().await
    });
    assert_eq!((called.status.as_u16(), called.text()), (200, "finished"));
    assert_eq!(ended.code(), Some(0));
    node.nothing_runs().await;
    // Nothing is lost, and nothing is repeated.
    let mut node = node;
    node.restart().await;
    let event = node.event_is(&id, "done").await;
    let attempts = event["deliveries"][0]["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["output"]), (1, &Value::from("\"finished\"")));
    let calls = node.json(&["events", "--trigger", "f", "--json"]).await;
    assert_eq!(calls.len(), 1, "the call is in the log");
    assert_eq!(node.read("notes/began").lines().count(), 2, "nothing ran again");
}

#[tokio::test]
async fn what_was_not_begun_when_it_ends_runs_after_the_next_start() {
    let node = gated().await;
    for n in 0..20 {
        node.accepted("/jobs", n.to_string()).await;
    }
    node.lines_of("notes/began", 2).await;
    node.signal(Signal::TERM);
    node.says("draining").await;
    node.write("go", "");
    assert!(node.ended().await.success());
    let mut node = node;
    node.restart().await;
    node.deliveries_are("done", 20).await;
    assert_eq!(node.read("notes/began").lines().count(), 20, "each ran once");
}

#[tokio::test]
async fn a_second_signal_ends_it_now_and_what_ran_runs_again_later() {
    let mut node = gated().await;
    let id = node.accepted("/jobs", "").await;
    node.lines_of("notes/began", 1).await;
    node.event_is(&id, "running").await;
    node.signal(Signal::INT);
    node.says("draining").await;
    node.signal(Signal::INT);
    assert_eq!(node.ended().await.code(), Some(130));
    node.nothing_runs().await;
    node.write("go", "");
    node.restart().await;
    let event = node.event_is(&id, "done").await;
    let attempts = event["deliveries"][0]["attempts"].as_array().unwrap();
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["lost", "ok"]);
}

#[tokio::test]
async fn what_does_not_finish_in_the_grace_period_is_ended() {
    let project = Project::new().argument("--grace").argument("200ms");
    let code = "import os, time\ndef handler(event, context):\n    print('began')\n    time.sleep(1000)\n";
    let node = project.function("f", code).config(ROUTES).start().await;
    let mut logs = node.follow_logs(&[]).await;
    node.accepted("/jobs", "").await;
    logs.line_with("began").await;
    let ended: ExitStatus = node.stop().await;
    assert_eq!(ended.code(), Some(0));
    node.says("the grace period is over").await;
    node.nothing_runs().await;
}

#[tokio::test]
async fn a_data_folder_is_free_again_when_its_node_has_ended() {
    let mut node = quick().await;
    let other = node.project().command(&["up"]).output().unwrap();
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && said.contains("in use by another fnbus"), "{said}");
    assert_eq!(node.get("/f").await.text(), "yes", "the first is not disturbed");
    node.kill();
    node.restart().await;
    node.stop().await;
    node.restart().await;
    assert_eq!(node.get("/f").await.text(), "yes");
}

#[tokio::test]
async fn a_node_whose_words_nobody_reads_any_more_goes_on_and_ends_in_order() {
    let project = Project::new().function("f", "def handler(event, context): return 'yes'\n").config(ROUTES);
    project.check(&[]);
    let mut up = tokio::process::Command::from(project.command(&["up"]));
    let mut child = up.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    drop(child.stderr.take());
    eventually("the function answers", || async {
        let output = tokio::process::Command::from(project.command(&["invoke", "f"])).output().await.unwrap();
        output.status.success().then_some(())
    })
    .await;
    let process = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(process, Signal::TERM).unwrap();
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("the node ends").unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn code_that_cannot_be_used_concerns_its_function_alone() {
    let route = |name: &str| format!("[triggers.{name}]\nhttp = 'GET /{name}'\nto = '{name}'\n");
    let code = |says: &str| format!("def handler(event, context): return '{says}'\n");
    let project = Project::new().function("f", &code("f")).function("g", &code("g"));
    let node = project.config(&route("f")).config(&route("g")).file("broken.zip", "PK and no more").start().await;
    assert_eq!(node.get("/g").await.text(), "g");
    let toml = node.project().toml().to_owned();
    let edit = toml.replace("[functions.g]\n", "[functions.g]\ncode = 'broken.zip'\n");
    let other = "[functions.h]\nruntime = 'python'\ncode = 'nowhere'\n[triggers.new]\nhttp = 'GET /new'\nto = 'f'\n";
    node.reconfigure(&format!("{edit}{other}{}", route("h"))).await;
    for says in [
        "`broken.zip`, the code of `g`, cannot be unpacked: it is no zip file",
        "the folder `nowhere` with the code of `h` does not exist",
        "`g` was not changed, version",
        "`h` cannot serve",
    ] {
        node.says(says).await;
    }
    assert_eq!(node.get("/new").await.text(), "f", "the rest of the edit is live");
    assert_eq!(node.get("/g").await.text(), "g", "the version before still serves");
    assert!(node.function("g").await["refused"].as_str().unwrap().contains("no zip file"));
    assert_eq!(node.get("/h").await.status, 502);
    assert_eq!(node.function("h").await["state"], "failed");
    std::fs::create_dir(node.path().join("nowhere")).unwrap();
    node.write("nowhere/app.py", &code("h"));
    node.reconfigure(&format!("{toml}{other}{}", route("h"))).await;
    eventually("the mended one serves", || async { (node.get("/h").await.text() == "h").then_some(()) }).await;
    assert_eq!(node.function("g").await["refused"], Value::Null);
}
