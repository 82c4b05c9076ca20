//! Pipelines and their runs as the command line tells of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

const ECHO: &str = "def handler(event, context):\n    print('got', event)\n    return event\n";
/// Waits for a file, so that a test decides when it goes on.
const WAIT: &str = "import os, time\ndef handler(event, context):\n    while not os.path.exists(os.environ['GO']):\n        \
                    time.sleep(0.01)\n    return event\n";
const FAIL: &str = "def handler(event, context):\n    raise ValueError('no stock')\n";

fn shop() -> Project {
    let project = Project::new();
    let go = project.path().join("go").display().to_string();
    project
        .function("check", ECHO)
        .function_with("wait", WAIT, &format!("env = {{ GO = '{go}' }}"))
        .function_with("fail", FAIL, "retry = { attempts = 1 }")
        .config("[pipelines.line]\nsteps = ['check', { parallel = ['wait', ['check', 'check']] }]\n")
        .config("[pipelines.broken]\nsteps = ['check', 'fail', 'check']\n")
        .config("[triggers.line]\nhttp = 'POST /line'\nmode = 'async'\npayload = 'body'\nto = 'line'\n")
        .config("[triggers.broken]\nhttp = 'POST /broken'\nmode = 'async'\npayload = 'body'\nto = 'broken'\n")
}

async fn pipeline(node: &Node, name: &str) -> Value {
    let all = node.json(&["pipelines", "--json"]).await;
    all.into_iter().find(|pipeline| pipeline["name"] == name).unwrap()
}

#[tokio::test]
async fn a_run_is_shown_step_by_step_while_it_runs_and_when_it_is_done() {
    let node = shop().start().await;
    let event = node.accepted("/line", r#"{"n":1}"#).await;
    let run = eventually("it waits for one step", || async {
        let run = node.json(&["runs", "list", "--json"]).await.pop()?;
        (run["at"] == json!(["parallel/0/wait"])).then_some(run)
    })
    .await;
    assert_eq!((&run["pipeline"], &run["status"], &run["event"]), (&json!("line"), &json!("running"), &json!(event)));
    assert_eq!(pipeline(&node, "line").await["steps"], "check -> (wait | check -> check)");
    assert_eq!(pipeline(&node, "line").await["runs"], json!({ "running": 1, "done": 0, "dead": 0 }));
    node.write("go", "");
    node.event_is(&event, "done").await;
    let id = run["id"].as_str().unwrap();
    let shown = node.json(&["runs", "show", id, "--json"]).await.remove(0);
    let steps: Vec<&str> =
        shown["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["check", "parallel/0/wait", "parallel/1/check", "parallel/1/check-2"]);
    assert_eq!((&shown["status"], &shown["output"]), (&json!("done"), &json!(r#"[{"n":1},{"n":1}]"#)));
    // The id of the event names it as well, and a person reads the same.
    let text = node.fnbus(&["runs", "show", &event]).await.stdout;
    assert!(text.contains(id) && text.contains("parallel/0/wait  done  -> wait"), "{text}");
    assert!(text.contains("| got {'n': 1}") && text.contains("= [{\"n\":1},{\"n\":1}]"), "{text}");
    assert!(node.fnbus(&["runs", "list"]).await.stdout.contains("done"));
    assert_eq!(pipeline(&node, "line").await["runs"]["done"], 1);
}

#[tokio::test]
async fn a_run_that_failed_says_where_and_runs_are_chosen_by_pipeline_and_status() {
    let node = shop().start().await;
    node.write("go", "");
    let (good, bad) = (node.accepted("/line", "{}").await, node.accepted("/broken", "{}").await);
    node.event_is(&good, "done").await;
    node.event_is(&bad, "dead").await;
    let dead = node.json(&["runs", "list", "--status", "dead", "--json"]).await;
    assert_eq!((dead.len(), &dead[0]["event"]), (1, &json!(bad)));
    let of_line = node.json(&["runs", "list", "--pipeline", "line", "--json"]).await;
    assert_eq!((of_line.len(), &of_line[0]["event"]), (1, &json!(good)));
    let shown = node.json(&["runs", "show", &bad, "--json"]).await.remove(0);
    assert_eq!(shown["error"]["message"], "step `fail` failed: no stock");
    assert_eq!(shown["steps"].as_array().unwrap().len(), 2);
    // A redrive is another run, and the newest of an event is shown.
    assert_eq!(node.fnbus(&["dead", "redrive", &bad]).await.code(), 0);
    eventually("two runs", || async {
        (node.json(&["runs", "list", "--pipeline", "broken", "--json"]).await.len() == 2).then_some(())
    })
    .await;
    assert_ne!(node.json(&["runs", "show", &bad, "--json"]).await[0]["id"], shown["id"]);
}

#[tokio::test]
async fn what_is_no_run_is_said() {
    let node = shop().start().await;
    let output = node.fnbus(&["runs", "show", "nothing"]).await;
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("no run has the id `nothing`"), "{}", output.stderr);
    let output = node.fnbus(&["runs", "list", "--pipeline", "check"]).await;
    assert!(output.code() == 1 && output.stderr.contains("`check` is a function"), "{}", output.stderr);
    assert_eq!(node.fnbus(&["runs", "list", "--status", "lost"]).await.code(), 2);
    assert!(node.fnbus(&["runs", "list"]).await.stderr.contains("no runs"));
}

#[tokio::test]
async fn a_pipeline_is_invoked_by_hand_like_a_function() {
    let node = shop().start().await;
    node.write("go", "");
    let output = node.fnbus(&["invoke", "line", "-d", r#"{"n":1}"#]).await;
    assert_eq!((output.code(), output.stdout.trim()), (0, r#"[{"n":1},{"n":1}]"#), "{}", output.stderr);
    let failed = node.fnbus(&["invoke", "broken", "-d", "{}"]).await;
    assert!(failed.code() == 1 && failed.stderr.contains("step `fail` failed: no stock"), "{}", failed.all());
    let unknown = node.fnbus(&["invoke", "lines"]).await;
    assert!(unknown.stderr.contains("known: broken, check, fail, line, wait"), "{}", unknown.stderr);
}
