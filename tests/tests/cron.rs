//! Triggers by time: each slot once, whatever happens, and what was missed as configured.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use chrono::{DateTime, DurationRound, SecondsFormat, TimeDelta, Utc};
use fnbus_tests::{Node, Project, eventually};
use rstest::rstest;
use rusqlite::Connection;
use serde_json::{Value, json};

const ECHO: &str = "def handler(event, context): return event\n";
const SLOW: &str = "import time\ndef handler(event, context): time.sleep(1000)\n";

async fn node(code: &str, keys: &str) -> Node {
    Project::new().function("f", code).config(&format!("[triggers.t]\nto = 'f'\n{keys}\n")).start().await
}

/// A time that comes in a moment, as `at(…)` has it and as the slot's id.
fn soon() -> (String, String) {
    let soon = (Utc::now() + TimeDelta::seconds(2)).duration_trunc(TimeDelta::seconds(1)).unwrap();
    (soon.format("at(%Y-%m-%dT%H:%M:%S)").to_string(), id(soon))
}

fn id(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The ids of the events so far, oldest first.
async fn slots(node: &Node) -> Vec<String> {
    let events = node.json(&["events", "--trigger", "t", "--json"]).await;
    let mut ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

/// What the trigger remembers, as JSON.
fn memory(node: &Node) -> Value {
    let log = Connection::open(node.data().join("log.db")).unwrap();
    let text: String = log.query_row("SELECT value FROM mark WHERE trigger = 't'", [], |row| row.get(0)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Makes a node that does not run believe that it decided its last slot at another time.
fn last_ran(node: &Node, time: DateTime<Utc>) {
    let mut memory = memory(node);
    memory["done"] = json!(time);
    let log = Connection::open(node.data().join("log.db")).unwrap();
    log.execute("UPDATE mark SET value = ?1 WHERE trigger = 't'", [memory.to_string()]).unwrap();
}

#[tokio::test]
async fn a_time_comes_and_the_function_gets_a_scheduled_event() {
    let (at, slot) = soon();
    let node = node(ECHO, &format!("cron = '{at}'")).await;
    let event = eventually("the slot is done", || async {
        let events = node.json(&["events", "--trigger", "t", "--json"]).await;
        let id = events.first()?["id"].as_str()?.to_owned();
        let event = node.show(&id).await;
        (event["status"] == "done").then_some(event)
    })
    .await;
    assert_eq!((&event["id"], &event["type"], &event["subject"]), (&json!(slot), &json!("cron.tick"), &json!(at)));
    assert_eq!((&event["source"], &event["time"]), (&json!("/fnbus/t"), &json!(slot)));
    let got: Value = serde_json::from_str(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&got["detail-type"], &got["time"], &got["detail"]),
        (&json!("Scheduled Event"), &json!(slot), &json!({}))
    );
    assert_eq!(got["resources"], json!(["arn:aws:events:us-east-1:000000000000:rule/t"]));
}

#[tokio::test]
async fn a_slot_comes_once_through_kills_and_a_memory_that_is_behind() {
    let (at, slot) = soon();
    let mut node = node(ECHO, &format!("cron = ['{at}', '0 0 1 1 *']\nmissed = 'all'")).await;
    node.deliveries_are("done", 1).await;
    for _ in 0..2 {
        node.kill();
        last_ran(&node, Utc::now() - TimeDelta::minutes(30));
        node.restart().await;
        eventually("the slot is decided again", || async { (memory(&node)["done"] == slot).then_some(()) }).await;
    }
    assert_eq!(slots(&node).await, [slot]);
    node.deliveries_are("done", 1).await;
}

#[rstest]
#[case::the_last("missed = 'last'", 1)]
#[case::all("missed = 'all'\nmissed_within = '3h'\noverlap = 'allow'", 3)]
#[case::none("missed = 'none'", 0)]
#[tokio::test]
async fn what_was_missed_while_killed_is_made_up_for(#[case] keys: &str, #[case] number: usize) {
    // The half hour that is further away: none comes while the test runs.
    let minute = if (15..45).contains(&Utc::now().format("%M").to_string().parse::<u32>().unwrap()) { 0 } else { 30 };
    let mut node = node(ECHO, &format!("cron = '{minute} * * * *'\n{keys}")).await;
    eventually("it has begun", || async { node.json(&["triggers", "--json"]).await[0].get("next").cloned() }).await;
    node.kill();
    let now = Utc::now();
    let newest = (now - TimeDelta::minutes(minute)).duration_trunc(TimeDelta::hours(1)).unwrap();
    let newest = newest + TimeDelta::minutes(minute);
    last_ran(&node, now - TimeDelta::hours(10));
    node.restart().await;
    let mut expect: Vec<_> = (0..number).map(|hours| id(newest - TimeDelta::hours(hours as i64))).collect();
    expect.reverse();
    if number == 0 {
        node.says("cron slots were missed and are not made up for").await;
    }
    node.deliveries_are("done", number as u64).await;
    assert_eq!(slots(&node).await, expect);
}

#[tokio::test]
async fn a_slot_is_left_out_while_the_last_is_not_done() {
    let mut node = node(SLOW, "cron = '*/10 * * * *'\nmissed = 'all'").await;
    eventually("it has begun", || async { node.json(&["triggers", "--json"]).await[0].get("next").cloned() }).await;
    node.kill();
    last_ran(&node, Utc::now() - TimeDelta::minutes(45));
    node.restart().await;
    node.says("a cron slot was skipped: the last one is not done").await;
    assert_eq!(slots(&node).await.len(), 1);
}

#[tokio::test]
async fn the_next_time_is_shown_in_its_zone_and_an_edit_begins_anew() {
    let node = node(ECHO, "cron = '0 2 * * *'\ntimezone = 'Asia/Seoul'").await;
    let next = |node: Node| async move {
        let next =
            eventually("it has begun", || async { node.json(&["triggers", "--json"]).await[0].get("next").cloned() });
        let next = next.await.as_str().unwrap().to_owned();
        (node, next)
    };
    let (node, at) = next(node).await;
    assert!(at.ends_with("T02:00:00+09:00"), "{at}");
    assert!(node.fnbus(&["triggers"]).await.stdout.contains("02:00:00 +09:00"));
    node.says("by itself:").await;
    let edited = node.project().toml().replace("0 2 * * *", "* * * * *");
    node.reconfigure(&edited).await;
    eventually("the new schedule runs", || async {
        let next = node.json(&["triggers", "--json"]).await[0]["next"].as_str()?.to_owned();
        (!next.ends_with("T02:00:00+09:00")).then_some(())
    })
    .await;
    let without = node.project().toml().split("[triggers.t]").next().unwrap().to_owned();
    node.reconfigure(&without).await;
    assert_eq!(node.json(&["triggers", "--json"]).await, Vec::<Value>::new());
    let slots = slots(&node).await;
    assert!(slots.len() <= 1, "no minute from before the edit: {slots:?}");
    assert!(node.stop().await.success());
}
