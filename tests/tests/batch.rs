//! Batches of a queue's messages, and the order of what has a key.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{collections::HashMap, fmt::Write};

use fnbus_tests::{Node, Project, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};

/// Notes each invocation's messages; the one whose body is `bad` fails each time.
const BATCH: &str = r#"
import json, os
def handler(event, context):
    records = event["Records"]
    with open(os.environ["RAN"], "a") as file:
        file.write(json.dumps([r["body"] for r in records]) + "\n")
    failed = [r["messageId"] for r in records if r["body"] == "bad"]
    return {"batchItemFailures": [{"itemIdentifier": id} for id in failed]}
"#;

/// Notes when it begins and ends with what; fails the first time it sees what ends in `!`.
const SLOW: &str = r#"
import json, os, time
def handler(event, context):
    path = os.environ["RAN"]
    def note(what):
        with open(path, "a") as file:
            file.write(json.dumps([what, event["key"], event["n"]]) + "\n")
    note("begin")
    time.sleep(0.01)
    marker = path + "." + event["key"] + str(event["n"])
    if event.get("once") and not os.path.exists(marker):
        open(marker, "w").close()
        note("fail")
        raise ValueError("the first time")
    note("end")
"#;

fn project(code: &str, trigger: &str) -> Project {
    let project = Project::new();
    let ran = project.path().join("notes/ran").display().to_string();
    let keys = format!("concurrency = 4\nenv = {{ RAN = '{ran}' }}\nretry = {{ attempts = 2, wait = '20ms' }}");
    project.function_with("f", code, &keys).config(trigger)
}

fn ran(node: &Node) -> Vec<Value> {
    node.read("notes/ran").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn publish(node: &Node, subject: &str, bodies: &[&str]) {
    for body in bodies {
        let sent = node.fnbus(&["nats", "publish", subject, "-d", body]).await;
        assert_eq!(sent.code(), 0, "{}", sent.all());
    }
}

/// All deliveries of the function, by the body of their events.
async fn deliveries(node: &Node, many: usize) -> HashMap<String, Value> {
    let rows = eventually(&format!("{many} events ended"), || async {
        let rows = node.json(&["events", "--trigger", "t", "-n", "1000", "--json"]).await;
        let ended = rows.iter().filter(|row| row["status"] == "done" || row["status"] == "dead").count();
        (ended == many).then_some(rows)
    })
    .await;
    let shown = join_all(rows.iter().map(|row| node.show(row["id"].as_str().unwrap()))).await;
    shown
        .into_iter()
        .map(|event| (event["data"].as_str().unwrap().to_owned(), event["deliveries"][0].clone()))
        .collect()
}

#[tokio::test]
async fn messages_share_an_invocation_and_only_those_it_names_failed() {
    let queue = "[triggers.t]\nqueue = 'nats:jobs.*'\nbatch = { size = 4, window = '20s' }\nto = 'f'\n";
    let node = project(BATCH, queue).start().await;
    node.reads("t", "fnbus_in_t").await;
    publish(&node, "jobs.a", &["one", "bad", "two", "three"]).await;
    // Once tried again it waits for company, and gets it.
    eventually("the first batch ran", || async { (ran(&node).len() == 1).then_some(()) }).await;
    publish(&node, "jobs.a", &["four", "five", "six"]).await;
    let all = deliveries(&node, 7).await;
    let mut batches: Vec<Vec<&str>> = Vec::new();
    let invocations = ran(&node);
    for batch in &invocations {
        let mut bodies: Vec<&str> = batch.as_array().unwrap().iter().map(|body| body.as_str().unwrap()).collect();
        bodies.sort_unstable();
        batches.push(bodies);
    }
    assert_eq!(batches, [vec!["bad", "one", "three", "two"], vec!["bad", "five", "four", "six"]]);
    let attempts = |body: &str| all[body]["attempts"].as_array().unwrap().clone();
    assert_eq!((all["one"]["status"].clone(), attempts("one").len()), (json!("done"), 1));
    assert_eq!((all["bad"]["status"].clone(), attempts("bad").len()), (json!("dead"), 2));
    assert_eq!(attempts("bad")[1]["error"]["kind"], "Function.BatchItemFailure");
    let invocation = |body: &str| attempts(body)[0]["request_id"].clone();
    assert_eq!(invocation("one"), invocation("bad"), "an attempt each, of one invocation");
    assert_ne!(invocation("one"), invocation("four"));
}

#[tokio::test]
async fn the_output_of_a_batch_goes_on_once() {
    let node = Project::new()
        .function_with("f", "def handler(event, context): return sum(event)\n", "then = 'file:out/sums.jsonl'")
        .config("[triggers.t]\nqueue = 'nats:n'\npayload = 'body'\nbatch = { size = 3, window = '20s' }\nto = 'f'\n")
        .start()
        .await;
    node.reads("t", "fnbus_in_t").await;
    publish(&node, "n", &["1", "20", "300"]).await;
    node.lines_of("out/sums.jsonl", 1).await;
    deliveries(&node, 3).await;
    node.deliveries_are("pending", 0).await;
    let lines = node.lines_of("out/sums.jsonl", 1).await;
    let sums: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(sums.iter().map(|line| line["data"].clone()).collect::<Vec<_>>(), [json!(321)]);
}

/// What was noted, by key; panics where one of a key began before the one before it had ended.
fn orders(node: &Node) -> HashMap<String, Vec<i64>> {
    let mut done: HashMap<String, Vec<i64>> = HashMap::new();
    let mut open: HashMap<String, i64> = HashMap::new();
    for note in ran(node) {
        let (key, n) = (note[1].as_str().unwrap().to_owned(), note[2].as_i64().unwrap());
        match note[0].as_str().unwrap() {
            "begin" => assert_eq!(open.insert(key.clone(), n), None, "two of {key} ran at once"),
            "end" => {
                open.remove(&key);
                done.entry(key).or_default().push(n);
            }
            _ => assert_eq!(open.remove(&key), Some(n)),
        }
    }
    done
}

#[tokio::test]
async fn events_of_one_key_are_delivered_one_at_a_time_in_order_through_retries_and_a_kill() {
    const EACH: i64 = 12;
    let trigger = "[triggers.t]\nhttp = 'POST /t'\nmode = 'async'\npayload = 'body'\norder_by = 'data.key'\nto = 'f'\n";
    let mut node = project(SLOW, trigger).start().await;
    for n in 0..EACH {
        for key in ["a", "b", "c"] {
            let once = key == "a" && n % 4 == 1;
            node.accepted("/t", json!({ "key": key, "n": n, "once": once }).to_string()).await;
        }
    }
    node.deliveries_are("done", 3 * EACH as u64).await;
    let expected: Vec<i64> = (0..EACH).collect();
    let done = orders(&node);
    assert_eq!((&done["a"], &done["b"], &done["c"]), (&expected, &expected, &expected));

    // What was held when the node was killed goes on in order; the one that ran may run again.
    node.write("notes/ran", "");
    for n in 0..EACH {
        node.accepted("/t", json!({ "key": "k", "n": n }).to_string()).await;
    }
    eventually("some ran", || async { (ran(&node).len() > 5).then_some(()) }).await;
    node.kill();
    node.restart().await;
    node.deliveries_are("done", 4 * EACH as u64).await;
    let mut done: Vec<i64> =
        ran(&node).iter().filter(|note| note[0] == "end").map(|note| note[2].as_i64().unwrap()).collect();
    done.dedup();
    assert_eq!(done, expected);
}

#[tokio::test]
async fn a_dead_letter_lets_the_next_of_its_key_go_and_what_has_no_key_does_not_wait() {
    let trigger = "[triggers.t]\nhttp = 'POST /t'\nmode = 'async'\npayload = 'body'\norder_by = 'data.key'\nto = 'f'\n";
    let code = "def handler(event, context):\n    if event['n'] == 0: raise ValueError('no')\n    return event['n']\n";
    let node = project(code, trigger).start().await;
    let mut bodies = String::new();
    for n in 0..3 {
        let id = node.accepted("/t", json!({ "key": "a", "n": n }).to_string()).await;
        writeln!(bodies, "{id}").unwrap();
    }
    let free = node.accepted("/t", r#"{"n":7}"#).await;
    node.event_is(&free, "done").await;
    let ids: Vec<&str> = bodies.lines().collect();
    node.event_is(ids[0], "dead").await;
    node.event_is(ids[2], "done").await;
    // Given another chance, it is one of its key again.
    let redriven = node.fnbus(&["dead", "redrive", ids[0]]).await;
    assert_eq!(redriven.code(), 0, "{}", redriven.all());
    eventually("it is dead again", || async {
        let event = node.show(ids[0]).await;
        (event["deliveries"].as_array().unwrap().len() == 2 && event["status"] == "dead").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_batch_printed_is_shown_once_however_many_of_it_failed() {
    let code = "def handler(event, context):\n    print('seen', len(event['Records']))\n    raise ValueError('no')\n";
    let queue = "[triggers.t]\nqueue = 'nats:jobs.*'\nbatch = { size = 3, window = '20s' }\nto = 'f'\n";
    let node = Project::new().function_with("f", code, "retry = { attempts = 1 }").config(queue).start().await;
    node.reads("t", "fnbus_in_t").await;
    publish(&node, "jobs.a", &["1", "2", "3"]).await;
    node.deliveries_are("dead", 3).await;
    let said = node.fnbus(&["logs", "f"]).await.stdout;
    assert_eq!(said.matches("seen 3").count(), 1, "{said}");
}
