//! Aliases, parts of the calls, and versions on trial.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Answer, Node, Project, eventually};
use hyper::Request;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const ROUTES: &str = "[triggers.f]\nhttp = 'GET /f'\nto = 'f'\n\
                      [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n\
                      [triggers.stable]\nhttp = 'GET /stable'\nto = 'f:stable'\n\
                      [triggers.old]\nhttp = 'POST /old'\nmode = 'async'\nto = 'f:1'\n";

/// A function that answers with its version.
fn answering(number: u32) -> String {
    format!("def handler(event, context):\n    return 'v{number}'\n")
}

/// One that fails each time.
const FAILING: &str = "def handler(event, context):\n    raise ValueError('v2')\n";

async fn node(code: &str, keys: &str) -> Node {
    let node = Project::new().function_with("f", code, keys).config(ROUTES).start().await;
    node.function_ready("f").await;
    node
}

async fn deploy(node: &Node, number: u32, code: &str) {
    node.write("f/app.py", code);
    eventually("the edit is deployed", || async {
        let f = node.function("f").await;
        (f["latest"] == number && (f["pinned"] == true || f["number"] == number)).then_some(())
    })
    .await;
}

/// Version 1 stays, version 2 is there.
async fn held(second: &str, keys: &str) -> Node {
    let node = node(&answering(1), keys).await;
    node.json(&["functions", "promote", "f", "--pin", "--json"]).await;
    deploy(&node, 2, second).await;
    assert_eq!(node.get("/f").await.text(), "v1", "it was held");
    node
}

async fn promote(node: &Node, arguments: &[&str]) -> Value {
    node.json(&[&["functions", "promote", "f"], arguments, &["--json"]].concat()).await.remove(0)
}

async fn version(node: &Node, number: usize) -> Value {
    node.json(&["functions", "versions", "f", "--json"]).await[number - 1].clone()
}

/// Where calls go, as it is in the log.
fn on_disk(node: &Node) -> String {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let log = Connection::open_with_flags(node.data().join("log.db"), flags).unwrap();
    log.query_row("SELECT route FROM alias WHERE function = 'f' AND name = 'live'", [], |row| row.get(0)).unwrap()
}

async fn invoke(node: &Node, function: &str) -> Answer {
    node.ask_api(Request::post(format!("/2015-03-31/functions/{function}/invocations")), "{}").await
}

#[tokio::test]
async fn a_version_is_called_by_its_number_or_an_alias_from_everywhere() {
    let node = held(&answering(2), "").await;
    assert_eq!(node.get("/stable").await.status, 502, "there is no such alias yet");
    promote(&node, &["2", "--alias", "stable"]).await;
    assert_eq!(node.get("/stable").await.text(), "v2");
    for (name, expect) in [("f", "\"v1\""), ("f:2", "\"v2\""), ("f:stable", "\"v2\""), ("f:$LATEST", "\"v2\"")] {
        assert_eq!(node.fnbus(&["invoke", name]).await.stdout.trim(), expect, "{name}");
    }
    for (name, version, expect) in [
        ("f", "1", "\"v1\""),
        ("f:live", "1", "\"v1\""),
        ("f?Qualifier=2", "2", "\"v2\""),
        ("f?Qualifier=stable", "2", "\"v2\""),
        ("arn:aws:lambda:us-east-1:000000000000:function:f:stable", "2", "\"v2\""),
        ("f:$LATEST", "$LATEST", "\"v2\""),
    ] {
        let (function, query) = name.split_once('?').map_or((name, String::new()), |(f, q)| (f, format!("?{q}")));
        let path = format!("/2015-03-31/functions/{function}/invocations{query}");
        let answer = node.ask_api(Request::post(path), "{}").await;
        assert_eq!((answer.text(), answer.header("x-amz-executed-version")), (expect, Some(version)), "{name}");
    }
    for name in ["f:7", "f:nobody"] {
        assert_eq!(invoke(&node, name).await.header("x-amzn-errortype"), Some("ResourceNotFoundException"), "{name}");
        let output = node.fnbus(&["invoke", name]).await;
        assert!(output.code() == 1 && output.stderr.contains("it has 1, 2"), "{}", output.all());
    }
    // what is delivered behind goes the same way, and its retries too
    let id = node.accepted("/old", "").await;
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["deliveries"][0]["target"], "f:1");
    assert_eq!(event["deliveries"][0]["attempts"][0]["output"], "\"v1\"");
    let asked = Request::post("/2015-03-31/functions/f:2/invocations").header("x-amz-invocation-type", "Event");
    let id = node.ask_api(asked, "{}").await.header("x-amzn-requestid").unwrap().to_owned();
    assert_eq!(node.event_is(&id, "done").await["deliveries"][0]["attempts"][0]["output"], "\"v2\"");
}

#[tokio::test]
async fn a_part_of_the_calls_goes_to_another_version_until_it_is_taken_back() {
    let node = held(&answering(2), "").await;
    let moved = promote(&node, &["2", "--weight", "50%"]).await;
    assert_eq!((&moved["share"], &moved["alias"]), (&json!(0.5), &json!("live")));
    eventually("both answer", || async {
        let (one, other) = (node.get("/f").await.text().to_owned(), node.get("/f").await.text().to_owned());
        (one != other).then_some(())
    })
    .await;
    assert_eq!(version(&node, 2).await["aliases"], json!(["live 50 %"]));
    assert!(node.fnbus(&["functions"]).await.stdout.contains("2 has 50 %"));
    node.json(&["functions", "rollback", "f", "--json"]).await;
    for _ in 0..20 {
        assert_eq!(node.get("/f").await.text(), "v1");
    }
    assert_eq!(node.function("f").await["number"], 1, "it went no further back");
}

#[tokio::test]
async fn two_versions_together_run_no_more_at_once_than_the_function_may() {
    let slow = |number: u32| {
        format!(
            "import os, time\ndef handler(event, context):\n    open(os.environ['LOG'], 'a').write('+')\n    \
             time.sleep(0.01)\n    open(os.environ['LOG'], 'a').write('-')\n    return 'v{number}'\n"
        )
    };
    let project = Project::new();
    let keys = format!("concurrency = 1\nenv = {{ LOG = '{}' }}", project.path().join("notes/log").display());
    let node = project.function_with("f", &slow(1), &keys).config(ROUTES).start().await;
    node.function_ready("f").await;
    promote(&node, &["--pin"]).await;
    deploy(&node, 2, &slow(2)).await;
    promote(&node, &["2", "--weight", "50%"]).await;
    for n in 0..40 {
        node.accepted("/jobs", n.to_string()).await;
    }
    node.deliveries_are("done", 40).await;
    assert_eq!(node.read("notes/log"), "+-".repeat(40));
}

#[tokio::test]
async fn a_canary_that_does_well_serves_when_its_time_is_over() {
    let node = held(&answering(2), "").await;
    promote(&node, &["2", "--canary", "50%", "--for", "1s"]).await;
    assert!(version(&node, 2).await["note"].as_str().unwrap().starts_with("canary until"));
    eventually("it serves", || async {
        node.get("/f").await;
        (node.function("f").await["number"] == 2).then_some(())
    })
    .await;
    eventually("it is said why", || async {
        version(&node, 2).await["note"].as_str().is_some_and(|note| note.starts_with("promoted")).then_some(())
    })
    .await;
    assert_eq!(node.function("f").await["pinned"], false, "the newest is followed again");
    assert_eq!(node.get("/f").await.text(), "v2");
}

#[tokio::test]
async fn a_canary_that_fails_too_often_is_taken_back_and_it_is_said_why() {
    let node = held(FAILING, "").await;
    promote(&node, &["2", "--canary", "50%", "--for", "1h", "--max-errors", "20%", "--min-calls", "5"]).await;
    eventually("it is taken back", || async {
        node.get("/f").await;
        (node.function("f").await["shares"] == Value::Null).then_some(())
    })
    .await;
    node.says("version 2 of `f` was a canary and was rolled back").await;
    for _ in 0..10 {
        assert_eq!(node.get("/f").await.text(), "v1");
    }
    let note = version(&node, 2).await["note"].as_str().unwrap().to_owned();
    assert!(note.starts_with("rolled back") && note.contains("at most 20.0 % may"), "{note}");
}

#[tokio::test]
async fn a_trial_that_is_ended_by_hand_is_told_with_the_version() {
    let node = held(FAILING, "").await;
    promote(&node, &["2", "--canary", "100%", "--for", "1h", "--min-calls", "100"]).await;
    assert_eq!(node.get("/f").await.status, 502);
    promote(&node, &["1"]).await;
    assert_eq!(node.get("/f").await.text(), "v1");
    let note = version(&node, 2).await["note"].as_str().unwrap().to_owned();
    assert!(note.starts_with("its trial was ended") && note.ends_with("for version 1: 1 of 1 calls failed"), "{note}");
}

#[tokio::test]
async fn a_canary_goes_on_when_the_node_was_killed_in_the_middle_with_what_it_had_counted() {
    let mut node = held(FAILING, "").await;
    promote(&node, &["2", "--canary", "100%", "--for", "1h", "--min-calls", "6"]).await;
    for _ in 0..3 {
        assert_eq!(node.get("/f").await.status, 502);
    }
    let note = version(&node, 2).await["note"].clone();
    assert!(note.as_str().unwrap().ends_with("3 of 3 calls failed"), "{note}");
    eventually("they are on disk", || async { on_disk(&node).contains("\"errors\":3").then_some(()) }).await;
    node.kill();
    node.restart().await;
    node.function_ready("f").await;
    for _ in 0..3 {
        assert_eq!(node.get("/f").await.status, 502, "it still has its part");
    }
    node.says("was rolled back: 6 of 6 calls failed").await;
    eventually("it is taken back", || async { (node.get("/f").await.text() == "v1").then_some(()) }).await;
}

#[tokio::test]
async fn what_makes_no_sense_of_a_canary_is_refused() {
    let node = node(&answering(1), "").await;
    for (arguments, says) in [
        (&["1", "--canary", "10%"][..], "serves all calls already"),
        (&["--canary", "10"], "write a part from 0% to 100%"),
        (&["--canary", "110%"], "write a part from 0% to 100%"),
        (&["1", "--alias", "3"], "cannot be an alias"),
        (&["1", "--alias", "stable", "--canary", "10%"], "only `live` can have a canary"),
        (&["1", "--for", "10s"], "--canary <PART>"),
    ] {
        let output = node.fnbus(&[&["functions", "promote", "f"], arguments].concat()).await;
        assert!(output.code() != 0 && output.stderr.contains(says), "{arguments:?}: {}", output.all());
    }
}

#[tokio::test]
async fn an_alias_goes_back_and_goes_away_when_nothing_goes_there_any_more() {
    let mut node = held(&answering(2), "").await;
    node.says("the trigger `stable` goes to `f:stable`, and `f` has no such alias yet").await;
    promote(&node, &["1", "--alias", "stable"]).await;
    promote(&node, &["2", "--alias", "stable"]).await;
    let back = node.json(&["functions", "rollback", "f", "--alias", "stable", "--json"]).await.remove(0);
    assert_eq!((&back["alias"], &back["version"], &back["before"]), (&json!("stable"), &json!(1), &json!(2)));
    assert_eq!(node.get("/stable").await.text(), "v1");
    promote(&node, &["2", "--alias", "beta"]).await;
    for (arguments, says) in [
        (&["rollback", "f", "--alias", "stable"][..], "`f:stable` led to no version before"),
        (&["rollback", "f", "--alias", "nobody"], "`f` has no alias `nobody`; it has live, beta, stable"),
        (&["unalias", "f", "nobody"], "`f` has no alias `nobody`; it has live, beta, stable"),
        (&["unalias", "f", "stable"], "`f:stable` is where the trigger `stable` goes"),
        (&["unalias", "f", "live"], "promote another version instead"),
        (&["unalias", "nobody", "beta"], "there is no function `nobody`"),
    ] {
        let output = node.fnbus(&[&["functions"], arguments].concat()).await;
        assert!(output.code() == 1 && output.stderr.contains(says), "{arguments:?}: {}", output.all());
    }
    assert_eq!(node.fnbus(&["invoke", "f:beta"]).await.stdout.trim(), "\"v2\"");
    let gone = node.json(&["functions", "unalias", "f", "beta", "--json"]).await.remove(0);
    assert_eq!(gone, json!({ "function": "f", "alias": "beta", "before": 2 }));
    node.kill();
    node.restart().await;
    node.function_ready("f").await;
    let output = node.fnbus(&["invoke", "f:beta"]).await;
    assert!(output.stderr.contains("it has 1, 2, and the aliases live, stable"), "{}", output.all());
}

#[tokio::test]
async fn an_alias_stays_as_long_as_what_was_accepted_for_it_has_not_ended() {
    let node = held(FAILING, "retry = { wait = '1h', max_wait = '1h' }").await;
    promote(&node, &["2", "--alias", "beta"]).await;
    let asked = Request::post("/2015-03-31/functions/f:beta/invocations").header("x-amz-invocation-type", "Event");
    let id = node.ask_api(asked, "{}").await.header("x-amzn-requestid").unwrap().to_owned();
    node.event_is(&id, "retrying").await;
    let output = node.fnbus(&["functions", "unalias", "f", "beta"]).await;
    assert!(output.code() == 1 && output.stderr.contains("1 unended deliveries are for `f:beta`"), "{}", output.all());
}

#[tokio::test]
async fn what_became_of_a_version_before_is_said_when_it_is_tried_again() {
    let node = held(&answering(2), "").await;
    promote(&node, &["2"]).await;
    node.json(&["functions", "rollback", "f", "--json"]).await;
    let note = version(&node, 2).await["note"].as_str().unwrap().to_owned();
    assert!(note.starts_with("rolled back") && note.ends_with("by hand"), "{note}");
    let again = node.fnbus(&["functions", "promote", "f", "2", "--canary", "10%"]).await;
    assert!(again.stderr.contains(&format!("version 2 before: {note}")), "{}", again.all());
    node.says(&format!(
        "leads to version 2 ({}) for 10 % of the calls; before: {note}",
        version(&node, 2).await["id"].as_str().unwrap()
    ))
    .await;
    assert_eq!(promote(&node, &["2"]).await["note"], note.as_str());
    assert_eq!(version(&node, 2).await["note"], Value::Null, "it serves now");
}
