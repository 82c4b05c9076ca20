//! NATS is transport, the log is the truth: NATS may be killed, and what it stores may be lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project};

const GATED: &str = "import os, time\ndef handler(event, context):\n    \
                     while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n    \
                     os.write(LOG, (context.event_id + '\\n').encode())\n\
                     LOG = os.open(os.environ['LOG'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n";

/// A node whose function waits for the file `go` and writes the ids of the events it ran to `ran`.
async fn gated() -> Node {
    let project = Project::new();
    let path = |name: &str| project.path().join(name).display().to_string();
    let keys = format!("concurrency = 2\nenv = {{ GO = '{}', LOG = '{}' }}", path("go"), path("ran"));
    project
        .function_with("f", GATED, &keys)
        .config("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n")
        .start()
        .await
}

async fn accept(node: &Node, number: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..number {
        ids.push(node.accepted("/jobs", n.to_string()).await);
    }
    ids
}

/// Each of these events ran, and none more often than its attempts say.
async fn all_ran(node: &Node, ids: &[String]) {
    node.deliveries_are("done", ids.len() as u64).await;
    let ran = node.read("ran");
    for id in ids {
        assert!(ran.lines().any(|line| line == id), "{id} is done and did not run");
    }
    assert_eq!(ran.lines().count(), ids.len(), "something ran twice");
}

#[tokio::test]
async fn accepting_goes_on_without_nats_and_everything_runs_when_it_is_back() {
    let node = gated().await;
    let mut ids = accept(&node, 20).await;
    node.deliveries_are("running", 2).await;
    for _ in 0..2 {
        let server = node.nats_server().await;
        server.kill();
        ids.extend(accept(&node, 20).await);
    }
    node.write("go", "");
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn calls_are_refused_while_nats_is_away_and_answered_when_it_is_back() {
    let node = Project::new()
        .function("f", "def handler(event, context): return 'here'\n")
        .config("[triggers.f]\nhttp = 'GET /f'\nto = 'f'\n")
        .start()
        .await;
    assert_eq!(node.get("/f").await.text(), "here");
    node.nats_server().await.kill();
    fnbus_tests::eventually("it answers again", || async {
        let answer = node.get("/f").await;
        assert!(matches!(answer.status.as_u16(), 200 | 502..=504), "{}: {}", answer.status, answer.text());
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_lost_between_two_runs_costs_nothing() {
    let mut node = gated().await;
    let mut ids = accept(&node, 30).await;
    node.deliveries_are("running", 2).await;
    node.kill();
    node.nothing_runs().await;
    std::fs::remove_dir_all(node.data().join("nats/store")).unwrap();
    node.restart().await;
    ids.extend(accept(&node, 5).await);
    node.write("go", "");
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn a_store_that_is_lost_under_a_running_bus_costs_nothing() {
    let node = gated().await;
    let mut ids = accept(&node, 30).await;
    node.deliveries_are("running", 2).await;
    let server = node.nats_server().await;
    std::fs::remove_dir_all(node.data().join("nats/store")).unwrap();
    server.kill();
    ids.extend(accept(&node, 5).await);
    node.write("go", "");
    all_ran(&node, &ids).await;
}
