//! How many files a node and its functions may open.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const CODE: &str = "import resource\n\ndef handler(event, context):\n    \
                    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n";

fn limited(limit: &str) -> Project {
    let triggers = "[triggers.call]\nhttp = 'GET /call'\nto = 'limit'\n";
    let project = Project::new().function_with("limit", CODE, "concurrency = 1").config(triggers);
    project.under(&["sh", "-c", &format!("{limit}; exec \"$@\""), "sh"])
}

#[tokio::test]
async fn a_node_takes_as_many_open_files_as_it_may_and_functions_as_many_as_it_was_given() {
    let node = limited("ulimit -Sn 200").start().await;
    let limits = eventually("the node runs", || async {
        std::fs::read_to_string(format!("/proc/{}/limits", node.process().as_raw_nonzero())).ok()
    });
    let limits = limits.await;
    let files: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().collect();
    assert_eq!(files[3], files[4], "the soft limit is the hard one");
    assert_eq!(node.get("/call").await.text(), "200");
}

/// Lets the node open nothing any more; gives what it was allowed before.
fn exhaust(node: &Node) -> Rlimit {
    // the hard limit, which both have, stays: it cannot be raised again
    let none = Rlimit { current: Some(0), ..getrlimit(Resource::Nofile) };
    prlimit(Some(node.process()), Resource::Nofile, none).unwrap()
}

fn restore(node: &Node, limit: Rlimit) {
    prlimit(Some(node.process()), Resource::Nofile, limit).unwrap();
}

fn outcomes(event: &Value) -> Vec<&Value> {
    let attempts = event["deliveries"][0]["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| &attempt["outcome"]).collect()
}

/// Asks on a connection that is there already; the head of the answer.
async fn ask(connection: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut chunk) = (String::new(), [0; 4096]);
    while !answer.contains("\r\n\r\n") {
        let read = connection.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the connection was closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    answer
}

/// Waits, and the first time ends its process.
const CRASHES_ONCE: &str = "import os, time\nGO = os.environ['GO']\ndef handler(event, context):\n    \
                            if os.path.exists(GO): return 'again'\n    \
                            while not os.path.exists(GO): time.sleep(0.01)\n    os._exit(1)\n";

#[tokio::test]
async fn an_instance_that_cannot_be_started_for_want_of_descriptors_costs_no_attempt() {
    let project = Project::new();
    let keys = format!(
        "concurrency = 1\nretry = {{ attempts = 2, wait = '10ms' }}\nenv = {{ GO = '{}' }}",
        project.path().join("go").display()
    );
    let triggers = "[triggers.call]\nhttp = 'GET /call'\nto = 'f'\n\
                    [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n";
    let node = project.function_with("f", CRASHES_ONCE, &keys).config(triggers).start().await;
    let id = node.accepted("/jobs", "{}").await;
    node.deliveries_are("running", 1).await;
    let mut connection = TcpStream::connect(node.http()).await.unwrap();
    ask(&mut connection, "/nothing").await;

    let before = exhaust(&node);
    node.write("go", "");
    node.says_again("there is no room for another instance of `f`", 2).await;
    let answer = ask(&mut connection, "/call").await.to_lowercase();
    assert!(answer.starts_with("http/1.1 429") && answer.contains("\r\nretry-after:"), "{answer}");
    restore(&node, before);
    let event = node.event_is(&id, "done").await;
    assert_eq!(outcomes(&event), ["crash", "ok"]);
    assert_eq!(node.get("/call").await.text(), "again");
}

#[tokio::test]
async fn a_command_that_cannot_be_started_for_want_of_descriptors_costs_no_attempt() {
    let config = "[functions.f]\nruntime = 'command'\nhandler = './run.sh'\nconcurrency = 1\nretry = { attempts = 1 }\n\
                  [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n";
    let run = "#!/bin/sh\nwhile [ ! -e \"$FNBUS_PROJECT/go\" ]; do sleep 0.01; done\n";
    let node = Project::new().program("f/run.sh", run).config(config).start().await;
    node.accepted("/jobs", "1").await;
    node.deliveries_are("running", 1).await;
    let id = node.accepted("/jobs", "2").await;

    let before = exhaust(&node);
    node.write("go", "");
    node.says("deliveries to `f` could not be run and wait").await;
    restore(&node, before);
    let event = node.event_is(&id, "done").await;
    assert_eq!(outcomes(&event), ["ok"]);
    assert_eq!(event["deliveries"][0]["attempts"][0]["n"], 1);
    node.deliveries_are("done", 2).await;
}

#[tokio::test]
async fn an_edit_that_cannot_be_read_for_want_of_descriptors_serves_when_there_are_some() {
    let code = |word: &str| format!("def handler(event, context):\n    return '{word}'\n");
    let triggers = "[triggers.call]\nhttp = 'GET /call'\nto = 'f'\n";
    let node = Project::new().function("f", &code("before")).config(triggers).start().await;
    assert_eq!(node.get("/call").await.text(), "before");
    let before = exhaust(&node);
    node.write("f/app.py", &code("after"));
    node.says("there is no room for another instance of `f`: its code cannot be copied").await;
    restore(&node, before);
    eventually("the edit serves", || async { (node.get("/call").await.text() == "after").then_some(()) }).await;
}
