//! Too few descriptors: who comes waits, nothing that was accepted is lost, and it goes on when there are some.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Project, eventually};
use tokio::net::TcpStream;

const CODE: &str = "import resource\n\ndef handler(event, context):\n    \
                    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n";

fn limited(limit: &str) -> Project {
    let triggers = "[triggers.call]\nhttp = 'GET /call'\nto = 'limit'\n\
                    [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'limit'\n";
    let project = Project::new().function_with("limit", CODE, "concurrency = 1").config(triggers);
    project.under(&["sh", "-c", &format!("{limit}; exec \"$@\""), "sh"])
}

#[tokio::test]
async fn connections_beyond_the_limit_of_open_files_wait_and_are_served_when_others_go() {
    let node = limited("ulimit -n 80").start().await;
    node.function_ready("limit").await;
    let before = node.accepted("/jobs", "{}").await;
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(TcpStream::connect(node.http()).await.unwrap());
    }
    node.says("no connection can be accepted").await;
    drop(held);
    let after = node.accepted("/jobs", "{}").await;
    for id in [before, after] {
        node.event_is(&id, "done").await;
    }
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
