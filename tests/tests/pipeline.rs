//! Pipelines: steps in sequence and side by side, synchronous and not, over a crash.

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
    let ran = project.path().join("ran").display().to_string();
    for name in ["a", "b", "c", "d"] {
        project = project.function_with(name, STEP, &format!("env = {{ RAN = '{ran}' }}"));
    }
    project
        .config(&format!("[pipelines.line]\nsteps = {steps}\n"))
        .config(&format!("[triggers.go]\nhttp = 'POST /go'\nmode = '{mode}'\npayload = 'body'\nto = 'line'\n"))
}

fn ran(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.path().join("ran")).unwrap_or_default();
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
