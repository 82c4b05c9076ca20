//! Pipelines: steps in sequence and side by side, synchronous and not, over a crash.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

/// Adds its name to the list it gets, and writes a line of its own in `ran`.
const STEP: &str = r#"
import os
def handler(event, context):
    with open(os.environ["RAN"], "a") as file:
        file.write(context.function_name + "\n")
    done = event if isinstance(event, list) else []
    return done + [context.function_name]
"#;

fn shop(steps: &str, mode: &str) -> Project {
    let mut project = Project::new();
    let ran = project.path().join("notes/ran").display().to_string();
    for name in ["a", "b", "c", "d"] {
        project = project.function_with(name, STEP, &format!("env = {{ RAN = '{ran}' }}"));
    }
    project
        .config(&format!("[pipelines.line]\nsteps = {steps}\n"))
        .config(&format!("[triggers.go]\nhttp = 'POST /go'\nmode = '{mode}'\npayload = 'body'\nto = 'line'\n"))
}

fn ran(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.path().join("notes/ran")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_synchronous_request_is_answered_by_the_last_step() {
    let node = shop("['a', { run = 'b' }, 'c']", "sync").start().await;
    let answer = node.post("/go", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.json::<Value>()), (200, json!(["a", "b", "c"])));
}

#[tokio::test]
async fn branches_run_side_by_side_and_their_outputs_are_joined_in_order() {
    let node = shop("['a', { parallel = ['b', ['c', 'd']] }, { run = 'a' }]", "sync").start().await;
    let answer = node.post("/go", "{}").await;
    assert_eq!(answer.json::<Value>(), json!([["a", "b"], ["a", "c", "d"], "a"]));
}

#[tokio::test]
async fn an_asynchronous_run_ends_the_delivery_it_began_with() {
    let node = shop("['a', 'b']", "async").start().await;
    let id = node.accepted("/go", "{}").await;
    let event = node.event_is(&id, "done").await;
    let deliveries = event["deliveries"].as_array().unwrap();
    let line = deliveries.iter().find(|delivery| delivery["target"] == "line").unwrap();
    assert_eq!(line["attempts"][0]["output"], r#"["a","b"]"#);
}

#[tokio::test]
async fn a_step_that_is_given_up_ends_the_run_and_the_pipeline_is_the_dead_letter() {
    let node = shop("['a', { run = 'b', retry = { attempts = 2, wait = '10ms' } }, 'c']", "async")
        .file("b/app.py", "def handler(event, context):\n    raise ValueError('no stock')\n")
        .start()
        .await;
    let id = node.accepted("/go", "{}").await;
    node.event_is(&id, "dead").await;
    let letters = node.json(&["dead", "list", "--json"]).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["target"], &letters[0]["reason"]), (&json!("line"), &json!("step_failed")));
    assert_eq!(letters[0]["error"]["message"], "step `b` failed: no stock");
    assert_eq!(ran(&node), ["a"]);
}

#[tokio::test]
async fn runs_survive_kills_between_any_two_steps_and_each_goes_through_once() {
    let mut node = shop("['a', { parallel = ['b', 'c'] }, 'd']", "async").start().await;
    let mut ids = Vec::new();
    for round in 0..4 {
        for _ in 0..5 {
            ids.push(node.accepted("/go", "{}").await);
        }
        // Killed when that much has run: each round somewhere else.
        eventually("some steps ran", || async { (ran(&node).len() > round * 7).then_some(()) }).await;
        node.kill();
        node.restart().await;
    }
    for id in &ids {
        let event = node.event_is(id, "done").await;
        let line = event["deliveries"].as_array().unwrap().iter().find(|d| d["target"] == "line").unwrap().clone();
        assert_eq!(line["attempts"].as_array().unwrap().last().unwrap()["output"], r#"[["a","b"],["a","c"],"d"]"#);
    }
    // What follows on the bus follows exactly once: one event for each pair of steps, however often a step ran.
    let steps = node.json(&["events", "--type", "pipeline.step", "-n", "1000", "--json"]).await;
    assert_eq!(steps.len(), ids.len() * 2);
}

/// The delivery of an event to one target.
fn to<'a>(event: &'a Value, target: &str) -> &'a Value {
    event["deliveries"].as_array().unwrap().iter().find(|delivery| delivery["target"] == target).unwrap()
}

/// Waits until a run is at one step, which waits, and gives the event of the run and that step.
async fn waits_at(node: &Node, id: &str, step: &str) -> (Value, Value) {
    eventually(&format!("the run waits at {step}"), || async {
        let event = node.show(id).await;
        let at = to(&event, "line")["steps"].as_array()?.first()?.clone();
        (at["step"] == step && at["waits"].is_string()).then_some((event, at))
    })
    .await
}

#[tokio::test]
async fn a_run_whose_next_function_is_taken_out_of_the_config_waits_for_it_and_says_so() {
    let stopped = |toml: &str| toml.replace("[functions.b]\n", "[functions.b]\nconcurrency = 0\n");
    let mut node = shop("['a', 'b', 'c']", "async").start().await;
    let whole = node.project().toml().to_owned();
    node.reconfigure(&stopped(&whole)).await;
    let id = node.accepted("/go", "{}").await;
    let (_, at) = waits_at(&node, &id, "b").await;
    assert!(at["waits"].as_str().unwrap().starts_with("`b` is stopped: its `concurrency` is 0"), "{at}");
    // Neither the function nor a step that names it is there any more.
    let b = whole.split("[functions.").find(|table| table.starts_with("b]")).unwrap();
    let without = whole.replace(&format!("[functions.{b}"), "").replace("['a', 'b', 'c']", "['a', 'c']");
    node.reconfigure(&without).await;
    node.says("`b` is not in the config and deliveries wait for it: they stay in the log").await;
    let gone = "there is no function `b` in the config; it goes on when there is one again";
    for _ in 0..2 {
        let (event, at) = waits_at(&node, &id, "b").await;
        assert_eq!(
            (&event["status"], &at["status"], &at["waits"]),
            (&json!("running"), &json!("pending"), &json!(gone))
        );
        let shown = node.fnbus(&["show", &id]).await.stdout;
        let step = at["event"].as_str().unwrap();
        assert!(shown.contains(&format!("at step b, pending: {gone} (fnbus show {step})")), "{shown}");
        assert!(node.fnbus(&["show", step]).await.stdout.contains(&format!("waits: {gone}")));
        // It is not the pipeline that is stopped.
        let other = node.accepted("/go", "{}").await;
        let event = node.event_is(&other, "done").await;
        assert_eq!(to(&event, "line")["attempts"][0]["output"], r#"["a","c"]"#);
        node.kill();
        node.restart().await;
    }
    node.reconfigure(&whole).await;
    let event = node.event_is(&id, "done").await;
    assert_eq!(to(&event, "line")["attempts"][0]["output"], r#"["a","b","c"]"#, "it goes on as it began");
    assert!(to(&event, "line")["steps"].is_null(), "{event:#}");
}

#[tokio::test]
async fn a_step_that_became_too_old_before_it_could_begin_ends_its_run_where_it_can_be_seen() {
    let node = shop("['a', 'b']", "async").start().await;
    let old = "[functions.b]\nretry = { max_age = '500ms' }\n";
    let stopped = node.project().toml().replace("[functions.b]\n", &format!("{old}concurrency = 0\n"));
    node.reconfigure(&stopped).await;
    let id = node.accepted("/go", "{}").await;
    let (_, at) = waits_at(&node, &id, "b").await;
    let step = node.show(at["event"].as_str().unwrap()).await;
    let born: chrono::DateTime<chrono::Utc> = step["time"].as_str().unwrap().parse().unwrap();
    let old_enough = chrono::TimeDelta::milliseconds(600);
    eventually("the step is too old", || async { (chrono::Utc::now() - born > old_enough).then_some(()) }).await;
    node.reconfigure(&stopped.replace("concurrency = 0\n", "")).await;
    node.event_is(&id, "dead").await;
    let letter = node.json(&["dead", "list", "--json"]).await.remove(0);
    assert_eq!((&letter["target"], &letter["reason"]), (&json!("line"), &json!("step_failed")));
    let says = "step `b` failed: it was older than `retry.max_age` before an attempt could begin";
    assert_eq!(letter["error"], json!({ "kind": "Runtime.Expired", "message": says }));
    assert_eq!(ran(&node), ["a"]);
    node.reconfigure(node.project().toml()).await;
    assert_eq!(node.fnbus(&["dead", "redrive", &id]).await.code(), 0);
    node.event_is(&id, "done").await;
    assert_eq!(ran(&node), ["a", "a", "b"], "the run began anew, its steps did not run by themselves");
}
