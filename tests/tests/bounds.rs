//! More than a node can do or keep: whoever comes is told to come again, what was taken is done, and the node stays small.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{collections::BTreeMap, fs};

use chrono::{TimeDelta, Utc};
use fnbus_tests::{Answer, Node, Process, Project, eventually};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use hyper::Request;
use rstest::rstest;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Waits for a file before it is loaded, and notes each of its runs.
const CODE: &str = "import os, time\n\
                    while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n\
                    RUNS = os.open(os.environ['RUNS'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n\
                    def handler(event, context):\n    \
                    os.write(RUNS, (context.event_id + '\\n').encode())\n    return 'ran'\n";

/// A function `f` that waits for the file `go` before it is loaded, called and delivered to.
fn gated() -> Project {
    let project = Project::new();
    let path = |name: &str| project.path().join(name).display().to_string();
    let keys = format!("timeout = '60s'\nenv = {{ GO = '{}', RUNS = '{}' }}", path("go"), path("notes/runs"));
    project.function_with("f", CODE, &keys).config(
        "[triggers.call]\nhttp = 'POST /call'\nto = 'f'\n\
         [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n",
    )
}

/// As many connections at once as asked for, or as this process and the node may have open.
fn connections(asked: u64) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let allowed = maximum.or(current).map_or(asked, |files| files.saturating_sub(300));
    if allowed < asked {
        println!(
            "only {allowed} calls at once instead of {asked}: the limit of open files (ulimit -Hn) allows no more"
        );
    }
    usize::try_from(asked.min(allowed)).unwrap()
}

/// Calls until there is an answer: a connection that waited for the node for too long is closed unheard.
async fn call(node: &Node, body: &str) -> Answer {
    loop {
        if let Ok(answer) = node.try_send(Request::post("/call"), body.to_owned()).await {
            return answer;
        }
    }
}

/// How many answers have each status. Whoever is sent away is told when to come again.
fn statuses(answers: &[Answer]) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for answer in answers {
        *statuses.entry(answer.status.as_u16()).or_default() += 1;
        assert!([200, 429, 503].contains(&answer.status.as_u16()), "{}: {}", answer.status, answer.text());
        assert!(answer.status == 200 || answer.header("retry-after") == Some("1"), "{:?}", answer.headers);
    }
    statuses
}

/// How often the function ran, by its own account.
fn runs(node: &Node) -> usize {
    node.read("notes/runs").lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_thousand_calls_at_once_each_is_answered_and_the_node_stays_small_and_serves_on() {
    /// MiB that it may grow by: 64 KiB for each of the 8192 connections that are open at most, which take 45.
    const MORE: f64 = 512.0;
    let calls = connections(10_000);
    let node = gated().start().await;
    node.write("go", "");
    node.function_ready("f").await;
    let before = Process::peak(node.process().as_raw_nonzero().get());
    let body = format!("\"{}\"", "x".repeat(4 << 10));
    let called = join_all((0..calls).map(|_| call(&node, &body)));
    let accepted = join_all((0..50).map(|n| node.post("/jobs", n.to_string())));
    let (called, accepted) = tokio::join!(called, accepted);
    let statuses = statuses(&called);
    let grown = Process::peak(node.process().as_raw_nonzero().get()) - before;
    println!("{calls} calls at once: {statuses:?}, and the node grew from {before:.0} by {grown:.0} MiB");
    assert!(grown < MORE, "the node grew by {grown} MiB");
    assert!(statuses.get(&200).is_some_and(|answered| *answered > 0), "{statuses:?}");
    let jobs = accepted.iter().filter(|answer| answer.status == 202).count();
    eventually("what was accepted is done", || async {
        let events = node.json(&["events", "--trigger", "jobs", "--status", "done", "--json", "--limit", "1000"]).await;
        (events.len() == jobs).then_some(())
    })
    .await;
    assert_eq!(runs(&node), statuses[&200] + jobs, "what ran was answered, and what was accepted ran");
    assert_eq!(node.post("/call", "{}").await.text(), "ran");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_calls_that_wait_at_once_the_one_over_the_limit_is_told_to_come_again() {
    const LIMIT: usize = 4096;
    assert!(connections(LIMIT as u64 + 1) > LIMIT, "raise the limit of open files");
    let node = gated().start().await;
    let mut waiting = FuturesUnordered::new();
    // as many as the kernel keeps for a node that is slow to take them, and the next when it has
    for _ in 0..LIMIT / 256 {
        waiting.extend((0..256).map(|_| node.post("/call", "{}")));
        let number = waiting.len();
        let wait = eventually("they wait for the function to be loaded", || async {
            (node.function("f").await["waiting"] == number).then_some(())
        });
        tokio::select! {
            () = wait => {}
            answer = waiting.next() => panic!("one did not wait: {answer:?}"),
        }
    }
    let over = node.post("/call", "{}").await;
    assert_eq!((over.status.as_u16(), over.header("retry-after")), (429, Some("1")), "{}", over.text());
    node.write("go", "");
    let answers: Vec<Answer> = waiting.collect().await;
    let statuses = statuses(&answers);
    assert_eq!((answers.len(), statuses[&200]), (LIMIT, runs(&node)));
    assert_eq!(node.post("/call", "{}").await.text(), "ran");
}

/// A node whose log is full of what cannot end.
async fn full() -> Node {
    let project = Project::new().function("echo", "def handler(event, context): return event\n");
    fs::create_dir(project.path().join("inbox")).unwrap();
    let node = project
        .function_with("stuck", "def handler(event, context): pass\n", "concurrency = 0")
        .config("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'stuck'\n[log]\nmax_size = '1MB'\n")
        .start()
        .await;
    let body = "x".repeat(200_000);
    let full = eventually("the log is full", || async {
        let answer = node.post("/jobs", body.clone()).await;
        (answer.status != 202).then_some(answer)
    });
    let full = full.await;
    assert_eq!((full.status.as_u16(), full.header("retry-after")), (503, Some("30")), "{}", full.text());
    node
}

/// Waits until `fnbus triggers` says this of the trigger `t`.
async fn state_is(node: &Node, expected: &str) {
    eventually(&format!("the trigger says: {expected}"), || async {
        let triggers = node.json(&["triggers", "--json"]).await;
        let state = triggers.iter().find(|trigger| trigger["name"] == "t")?["state"].as_str()?.to_owned();
        (state == expected).then_some(())
    })
    .await;
}

#[rstest]
#[case::cron("cron")]
#[case::file("file")]
#[case::queue("queue")]
#[tokio::test]
async fn a_trigger_waits_while_the_log_is_full_says_so_once_and_goes_on_with_everything_when_there_is_room(
    #[case] kind: &str,
) {
    let node = full().await;
    let config = node.project().toml().to_owned();
    let at = |seconds| (Utc::now() + TimeDelta::seconds(seconds)).format("at(%Y-%m-%dT%H:%M:%S)").to_string();
    let keys = match kind {
        "cron" => format!("cron = ['{}', '{}']\nmissed = 'all'\noverlap = 'allow'", at(3), at(4)),
        "file" => "file = 'inbox/*'\nsettle = '10ms'".to_owned(),
        _ => "queue = 'nats:payments.>'".to_owned(),
    };
    let trigger = format!("\n[triggers.t]\nto = 'echo'\n{keys}\n");
    node.reconfigure(&format!("{config}{trigger}")).await;
    match kind {
        "cron" => {}
        "file" => {
            state_is(&node, "watching inbox").await;
            for file in ["inbox/a", "inbox/b"] {
                node.write(file, file);
            }
        }
        _ => {
            node.reads("t", "fnbus_in_t").await;
            for body in ["a", "b"] {
                assert_eq!(node.fnbus(&["nats", "publish", "payments.eu", "-d", body]).await.code(), 0);
            }
        }
    }
    state_is(&node, "waiting for room in the event log").await;
    let events = async || node.json(&["events", "--trigger", "t", "--json"]).await;
    assert_eq!(events().await.len(), 0);
    node.reconfigure(&format!("{}{trigger}", config.replace("concurrency = 0", "concurrency = 1"))).await;
    eventually("both are done", || async {
        let events = events().await;
        let done = events.iter().filter(|event| event["status"] == "done").count();
        (done == 2 && events.len() == 2).then_some(())
    })
    .await;
    let said = |text: &str| node.said().matches(text).count();
    assert_eq!(said("the event log takes nothing now: t waits with what it has"), 1);
    assert_eq!(said("the event log takes events again: t goes on"), 1);
}
