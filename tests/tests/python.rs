//! Functions in Python: what they print, how many run, what they may take, and what they see of the machine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Node, Project, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};

const ROUTE: &str = "[triggers.f]\nhttp = 'POST /f'\npayload = 'body'\nto = 'f'\n\
                     [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n";

/// Says its process, when the file `go` is there.
const GATED: &str = "import os, time\ndef handler(event, context):\n    os.write(LOG, b'%d\\n' % os.getpid())\n    \
                     while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n    return os.getpid()\n\
                     LOG = os.open(os.environ['LOG'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n";

async fn gated(keys: &str) -> Node {
    let project = Project::new();
    let path = |name: &str| project.path().join(name).display().to_string();
    let keys = format!("{keys}\nenv = {{ GO = '{}', LOG = '{}' }}", path("go"), path("notes/began"));
    let node = project.function_with("f", GATED, &keys).config(ROUTE).start().await;
    node.function_ready("f").await;
    node
}

async fn function(code: &str, keys: &str) -> Node {
    let node = Project::new().function_with("f", code, keys).config(ROUTE).start().await;
    node.function_ready("f").await;
    node
}

/// The last attempt of an event that was accepted and has ended.
async fn attempt(node: &Node, status: &str) -> Value {
    let id = node.accepted("/jobs", "{}").await;
    let event = node.event_is(&id, status).await;
    event["deliveries"][0]["attempts"].as_array().unwrap().last().unwrap().clone()
}

#[tokio::test]
async fn what_a_function_prints_is_kept_with_its_attempt_and_can_be_followed() {
    let code = "import sys\nprint('loaded')\ndef handler(event, context):\n    print('out', event)\n    \
                print('err', file=sys.stderr)\n";
    let node = function(code, "").await;
    let mut followed = node.follow_logs(&["f", "--json"]).await;
    let first = attempt(&node, "done").await;
    let log = first["log"].as_str().unwrap();
    assert!(log.contains("out {}\n") && log.contains("err\n"), "{log}");
    let line: Value = serde_json::from_str(&followed.line_with("out {}").await).unwrap();
    assert_eq!((&line["function"], &line["stream"]), (&json!("f"), &json!("stdout")));
    assert_eq!(line["request_id"], first["id"], "a line says which attempt printed it");
    // It follows: what comes later is shown too.
    let second = attempt(&node, "done").await;
    loop {
        let line: Value = serde_json::from_str(&followed.line_with("err").await).unwrap();
        if line["request_id"] == second["id"] {
            assert_eq!(line["stream"], "stderr");
            break;
        }
    }
}

#[tokio::test]
async fn as_many_instances_run_as_the_cap_allows_and_no_more() {
    let node = gated("concurrency = 3").await;
    join_all((0..6).map(|_| node.accepted("/jobs", "{}"))).await;
    let began = node.lines_of("notes/began", 3).await;
    node.deliveries_are("running", 3).await;
    let pids: std::collections::BTreeSet<&String> = began.iter().collect();
    assert_eq!(pids.len(), 3, "three at once are three processes");
    let status = node.function("f").await;
    assert_eq!((&status["busy"], &status["concurrency"]), (&json!(3), &json!(3)));
    // All are busy: a caller is told so, and not kept.
    let answer = node.post("/f", "{}").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (429, Some("1")));
    node.write("go", "");
    node.deliveries_are("done", 6).await;
    assert_eq!(node.lines_of("notes/began", 6).await.len(), 6);
    let pids: std::collections::BTreeSet<String> = node.lines_of("notes/began", 6).await.into_iter().collect();
    assert_eq!(pids.len(), 3, "warm instances are used again");
}

#[tokio::test]
async fn warm_instances_are_there_before_the_first_call_and_after() {
    let node =
        function("import os\ndef handler(event, context): return os.getpid()\n", "warm = 2\nkeep_alive = '100ms'")
            .await;
    eventually("two are warm", || async { (node.function("f").await["warm"] == 2).then_some(()) }).await;
    eventually("there are both, the process they are forked from, and the next one", || async {
        let processes = node.processes();
        (processes.iter().filter(|process| process.command.contains("fnbus_runtime")).count() == 4).then_some(())
    })
    .await;
    let answered: i32 = node.post("/f", "{}").await.json();
    let status = node.function("f").await;
    assert_eq!(status["cold_starts"], 0, "the first call found a warm one: {status}");
    let victim = node.processes().into_iter().find(|process| process.pid == answered).unwrap();
    victim.kill();
    eventually("the killed one is replaced", || async {
        (!victim.is_there() && node.function("f").await["warm"] == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn idle_instances_end_after_their_time_and_the_next_call_starts_anew() {
    let node = function("import os\ndef handler(event, context): return os.getpid()\n", "keep_alive = '200ms'").await;
    let first: i32 = node.post("/f", "{}").await.json();
    eventually("no instance is left", || async {
        let status = node.function("f").await;
        let running = node.processes().iter().any(|process| process.pid == first);
        (status["warm"] == 0 && !running).then_some(())
    })
    .await;
    let second: i32 = node.post("/f", "{}").await.json();
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_function_that_takes_too_long_is_ended_with_everything_it_started() {
    let code = "import os, subprocess, time\ndef handler(event, context):\n    \
                child = subprocess.Popen(['sleep', '1000'])\n    print('started', child.pid)\n    time.sleep(1000)\n";
    let node = function(code, "timeout = '300ms'\nretry = { attempts = 1 }").await;
    let attempt = attempt(&node, "dead").await;
    assert_eq!((&attempt["outcome"], &attempt["error"]["kind"]), (&json!("timeout"), &json!("Sandbox.Timedout")));
    let log = attempt["log"].as_str().unwrap();
    let pid = log.split_whitespace().nth(1).unwrap().parse().unwrap();
    let child = fnbus_tests::Process { pid, command: String::new() };
    eventually("the grandchild is gone", || async { (!child.is_there()).then_some(()) }).await;
    assert_eq!(node.post("/f", "{}").await.status, 504);
}

#[tokio::test]
async fn a_function_over_its_memory_ends_as_oom_and_the_next_call_is_served() {
    let code = "def handler(event, context):\n    return len('x' * (event.get('mib', 0) << 20))\n";
    let node = function(code, "memory = 64\nretry = { attempts = 1 }").await;
    let id = node.accepted("/jobs", r#"{"mib": 500}"#).await;
    let event = node.event_is(&id, "dead").await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["outcome"], "oom");
    assert_eq!(node.post("/f", r#"{"mib": 1}"#).await.text(), (1 << 20).to_string());
}

#[tokio::test]
async fn a_function_sees_its_own_environment_and_secrets_and_nothing_else() {
    let project = Project::new()
        .function_with(
            "f",
            "import os\ndef handler(event, context): return dict(os.environ)\n",
            "env = { PLAIN = 'p', FROM_ENV = { secret = 'env:THE_SECRET' }, FROM_FILE = { secret = 'file:secret.txt' } }",
        )
        .file("secret.txt", "from a file\n")
        .variable("THE_SECRET", "from the environment")
        .variable("OF_THE_NODE", "not yours")
        .config(ROUTE);
    let node = project.start().await;
    let seen: Value = node.post("/f", "{}").await.json();
    assert_eq!((&seen["PLAIN"], &seen["AWS_LAMBDA_FUNCTION_NAME"]), (&json!("p"), &json!("f")));
    assert_eq!((&seen["FROM_ENV"], &seen["FROM_FILE"]), (&json!("from the environment"), &json!("from a file")));
    assert_eq!((&seen["OF_THE_NODE"], &seen["THE_SECRET"]), (&Value::Null, &Value::Null));
    assert!(!node.said().contains("from the environment"), "a secret is not printed");
}

#[tokio::test]
async fn an_event_without_data_is_empty_text_for_its_function() {
    let node = Project::new()
        .function("f", "def handler(event, context): return [event]\n")
        .config("[triggers.pings]\nevent = { type = 'ping' }\nto = 'f'\n")
        .start()
        .await;
    let id = node.json(&["emit", "ping", "--json"]).await[0]["id"].as_str().unwrap().to_owned();
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["output"], r#"[""]"#);
}
