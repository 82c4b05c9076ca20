//! Keep-alive policies compared on a trace that is made, and on what a node has logged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::fs;

use fnbus_tests::{Output, Project};
use rstest::rstest;
use serde_json::Value;

/// A trace that is made and replayed in a moment.
const SMALL: &[&str] = &["bench", "pool", "--apps", "40", "--days", "2"];

fn run(project: &Project, arguments: &[&str]) -> Output {
    project.command(arguments).output().unwrap().into()
}

fn of<'a>(lines: &'a [Value], policy: &str) -> &'a Value {
    lines.iter().find(|line| line["policy"] == policy).unwrap()
}

#[test]
fn policies_are_compared_on_a_trace_from_a_seed_the_same_each_time() {
    let project = Project::new();
    let made = |more: &[&str]| run(&project, &[SMALL, &["--json"], more].concat());
    let first = made(&[]);
    let lines = first.lines();
    let policies: Vec<&str> = lines.iter().map(|line| line["policy"].as_str().unwrap()).collect();
    assert_eq!(policies, ["fixed", "hybrid", "greedy-dual", "cost-window"]);
    let (fixed, ours) = (of(&lines, "fixed"), of(&lines, "cost-window"));
    assert_eq!((&fixed["cold_ratio"], &fixed["memory_ratio"]), (&1.0.into(), &1.0.into()));
    assert!(lines.iter().all(|line| line["invocations"] == fixed["invocations"]), "{first:?}");
    assert!(ours["cold_ratio"].as_f64().unwrap() < 0.6, "{ours}");
    assert!(ours["prewarm_starts"].as_u64().unwrap() > 0 && fixed["prewarm_starts"] == 0, "{ours}");
    assert_eq!(made(&[]).stdout, first.stdout);
    assert_ne!(made(&["--seed", "7"]).stdout, first.stdout);
    assert_ne!(made(&["--drawn"]).stdout, first.stdout);
}

#[test]
fn the_trade_off_is_drawn_as_one_page_that_loads_nothing() {
    let project = Project::new();
    let page = project.path().join("pool.html");
    let output = run(&project, &[SMALL, &["--plot", page.to_str().unwrap()]].concat());
    assert_eq!(output.code(), 0, "{}", output.all());
    assert!(output.stdout.contains("cost-window") && output.stdout.lines().count() > 5, "{}", output.stdout);
    let page = fs::read_to_string(page).unwrap();
    assert_eq!(page.matches("<polyline").count(), 4, "a curve a policy");
    assert!(["http:", "https:", "src=", "<link", "@import"].iter().all(|word| !page.contains(word)));
    let nowhere = run(&project, &[SMALL, &["--plot", "no/such/folder/pool.html"]].concat());
    assert!(nowhere.code() == 1 && nowhere.stderr.contains("cannot write no/such/folder"), "{}", nowhere.all());
}

#[rstest]
#[case::no_apps(&["--apps", "0"], 2, "0 is not in 1..=10000")]
#[case::no_number(&["--days", "many"], 2, "invalid digit")]
#[case::longer_than_memory(&["--apps", "10000", "--days", "365"], 1, "ask for fewer")]
#[case::a_seed_of_the_log(&["--log", "--seed", "1"], 2, "cannot be used with")]
#[case::no_log(&["--log", "--data", "nowhere"], 1, "there is no event log")]
fn what_cannot_be_replayed_is_said(#[case] arguments: &[&str], #[case] code: i32, #[case] says: &str) {
    let output = run(&Project::new(), &[&["bench", "pool"], arguments].concat());
    assert_eq!(output.code(), code, "{}", output.all());
    assert!(output.stderr.contains(says), "{}", output.stderr);
}

#[tokio::test]
async fn the_calls_in_the_log_of_a_node_that_runs_are_replayed() {
    let node = Project::new()
        .function("f", "def handler(event, context):\n    return 1\n")
        .config("[triggers.sync]\nhttp = 'GET /sync'\nto = 'f'\n[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = ['f', 'file:out.jsonl']\n")
        .start()
        .await;
    let pool = ["bench", "pool", "--log", "--json"];
    let empty = node.fnbus(&pool).await;
    assert!(empty.code() == 1 && empty.stderr.contains("no function has been called"), "{}", empty.all());
    for _ in 0..3 {
        let id = node.accepted("/jobs", "{}").await;
        node.event_is(&id, "done").await;
    }
    assert_eq!(node.get("/sync").await.status, 200);
    // a synchronous call is logged a moment later
    fnbus_tests::eventually("the call is in the log", || async {
        let lines = node.json(&pool).await;
        (of(&lines, "fixed")["invocations"] == 4).then_some(lines)
    })
    .await
    .iter()
    .for_each(|line| assert_eq!(line["cold_starts"], 1, "each of them keeps what was called a moment ago: {line}"));
    let text = node.fnbus(&["bench", "pool", "--log"]).await;
    assert!(text.stderr.contains("4 calls of 1 functions in the event log"), "{}", text.all());
}
