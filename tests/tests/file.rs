//! Triggers by files: each finished file once, whenever it came and however.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    time::{Duration, SystemTime},
};

use fnbus_tests::{Node, Project, eventually};
use rstest::rstest;
use serde_json::{Value, json};

const ECHO: &str = "def handler(event, context): return event\n";

async fn node(file: &str, keys: &str) -> Node {
    let project = Project::new().function("f", ECHO);
    fs::create_dir(project.path().join("inbox")).unwrap();
    let node = project.config(&format!("[triggers.t]\nto = 'f'\nfile = '{file}'\n{keys}\n")).start().await;
    watching(&node).await;
    node
}

async fn watching(node: &Node) {
    let state = || async { node.json(&["triggers", "--json"]).await[0]["state"].as_str().map(str::to_owned) };
    eventually("it watches", || async { state().await.filter(|state| state.starts_with("watching")) }).await;
}

/// Type and subject of the events so far, oldest first.
async fn told(node: &Node) -> Vec<(String, String)> {
    let events = node.json(&["events", "--trigger", "t", "--json", "--limit", "1000"]).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut told = Vec::new();
    for event in events {
        let whole = node.show(event["id"].as_str().unwrap()).await;
        told.push((text(&whole["type"]), text(&whole["subject"])));
    }
    told
}

/// Waits until so many events are there, and gives them.
async fn told_are(node: &Node, number: usize) -> Vec<(String, String)> {
    eventually(&format!("{number} events are there"), || async {
        let told = told(node).await;
        (told.len() >= number).then_some(told)
    })
    .await
}

fn of(kind: &str, subject: &str) -> (String, String) {
    (format!("file.{kind}"), subject.to_owned())
}

/// What the function got in its only attempt.
async fn got(node: &Node, number: usize) -> Value {
    let event = eventually("an event is done", || async {
        let id = node.json(&["events", "--trigger", "t", "--json"]).await.get(number)?["id"].as_str()?.to_owned();
        let event = node.show(&id).await;
        (event["status"] == "done").then_some(event)
    })
    .await;
    serde_json::from_str(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_file_that_comes_is_told_once_with_its_path() {
    let node = node("inbox/*.csv", "").await;
    node.write("inbox/a b.csv", "id\n1\n");
    node.write("inbox/other.txt", "x");
    let record = got(&node, 0).await["Records"][0].clone();
    assert_eq!(record["eventName"], "ObjectCreated:Put");
    assert_eq!((&record["s3"]["object"]["key"], &record["s3"]["object"]["size"]), (&json!("inbox/a+b.csv"), &json!(5)));
    let path = node.path().join("inbox/a b.csv");
    assert_eq!(record["fnbus"], json!({ "change": "created", "path": path }));
    assert_eq!(told(&node).await, [of("created", "inbox/a b.csv")]);
}

#[tokio::test]
async fn a_file_is_told_when_its_writer_is_done_and_not_before() {
    let node = node("inbox/*", "payload = 'body'\nsettle = '50ms'").await;
    let mut slow = fs::File::create(node.path().join("inbox/slow.json")).unwrap();
    slow.write_all(b"[1,").unwrap();
    node.write("inbox/quick.json", "2");
    assert_eq!(told_are(&node, 1).await, [of("created", "inbox/quick.json")]);
    slow.write_all(b"2]").unwrap();
    drop(slow);
    assert_eq!(told_are(&node, 2).await[1], of("created", "inbox/slow.json"));
    assert_eq!(got(&node, 1).await, json!([1, 2]), "the body is the whole file");
}

#[tokio::test]
async fn what_happened_while_it_was_killed_is_told_after_the_start_and_nothing_twice() {
    let mut node = node("inbox/**/*.csv", "on = ['created', 'modified', 'removed']").await;
    for name in ["kept", "changed", "gone"] {
        node.write(&format!("inbox/{name}.csv"), "1");
    }
    told_are(&node, 3).await;
    node.kill();
    node.write("inbox/changed.csv", "12");
    fs::remove_file(node.path().join("inbox/gone.csv")).unwrap();
    fs::create_dir(node.path().join("inbox/deep")).unwrap();
    node.write("inbox/deep/new.csv", "1");
    node.restart().await;
    let mut told = told_are(&node, 6).await.split_off(3);
    told.sort();
    let expect =
        [of("created", "inbox/deep/new.csv"), of("modified", "inbox/changed.csv"), of("removed", "inbox/gone.csv")];
    assert_eq!(told, expect);
    node.kill();
    node.restart().await;
    node.write("inbox/last.csv", "1");
    assert_eq!(told_are(&node, 7).await[6..], [of("created", "inbox/last.csv")]);
}

#[tokio::test]
async fn files_from_before_the_first_start_are_not_new() {
    let project = Project::new().function("f", ECHO).file("inbox/old.csv", "1");
    let node = project.config("[triggers.t]\nto = 'f'\nfile = 'inbox/*.csv'\n").start().await;
    watching(&node).await;
    node.write("inbox/new.csv", "1");
    assert_eq!(told_are(&node, 1).await, [of("created", "inbox/new.csv")]);
    // nor are those that an edit makes the trigger mean
    node.write("inbox/old.txt", "1");
    let edited = node.project().toml().replace("'inbox/*.csv'", "['inbox/*.csv', 'inbox/*.txt']");
    node.reconfigure(&edited).await;
    eventually("it watches for both", || async {
        let trigger = node.json(&["triggers", "--json"]).await.remove(0);
        let watching = trigger["state"].as_str().is_some_and(|state| state.starts_with("watching"));
        (watching && trigger["on"].to_string().contains("*.txt")).then_some(())
    })
    .await;
    node.write("inbox/new.txt", "1");
    assert_eq!(told_are(&node, 2).await[1], of("created", "inbox/new.txt"));
}

#[tokio::test]
async fn renames_and_replacements_are_told_as_what_they_are() {
    let node = node("inbox/*", "on = ['created', 'renamed', 'modified', 'removed']").await;
    let path = |name: &str| node.path().join("inbox").join(name);
    node.write("outside", "1");
    fs::rename(node.path().join("outside"), path("a")).unwrap();
    told_are(&node, 1).await;
    fs::rename(path("a"), path("b")).unwrap();
    assert_eq!(told_are(&node, 2).await[1], of("renamed", "inbox/b"));
    assert_eq!(got(&node, 1).await["Records"][0]["fnbus"]["from"], json!(path("a")));
    // a new file in the place of an old one
    node.write("outside", "2");
    fs::rename(node.path().join("outside"), path("b")).unwrap();
    assert_eq!(told_are(&node, 3).await[2], of("created", "inbox/b"));
    // a file that went and came back is told again
    fs::rename(path("b"), node.path().join("outside")).unwrap();
    assert_eq!(told_are(&node, 4).await[3], of("removed", "inbox/b"));
    fs::rename(node.path().join("outside"), path("b")).unwrap();
    assert_eq!(told_are(&node, 5).await[4], of("created", "inbox/b"));
    fs::File::options()
        .append(true)
        .open(path("b"))
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(9))
        .unwrap();
    assert_eq!(told_are(&node, 6).await[5], of("modified", "inbox/b"));
}

#[tokio::test]
async fn links_pipes_and_hidden_files_are_no_files() {
    let node = node("inbox/*", "payload = 'body'").await;
    let path = |name: &str| node.path().join("inbox").join(name);
    node.write("secret", "x");
    symlink(node.path().join("secret"), path("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    node.write("inbox/.hidden", "x");
    fs::create_dir(path("folder")).unwrap();
    node.write("inbox/zz", "1");
    assert_eq!(told_are(&node, 1).await, [of("created", "inbox/zz")]);
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_back_is_watched_again_and_its_old_files_are_not_new() {
    let node = node("inbox/*", "on = ['created', 'removed']").await;
    node.write("inbox/a", "1");
    told_are(&node, 1).await;
    let (inbox, away) = (node.path().join("inbox"), node.path().join("away"));
    fs::rename(&inbox, &away).unwrap();
    node.says("the watched folder is not there; it is waited for").await;
    assert!(node.fnbus(&["triggers"]).await.stdout.contains("waiting for the folder inbox"));
    fs::rename(&away, &inbox).unwrap();
    watching(&node).await;
    node.write("inbox/b", "1");
    assert_eq!(told_are(&node, 2).await, [of("created", "inbox/a"), of("created", "inbox/b")]);
    fs::remove_dir_all(&inbox).unwrap();
    fs::create_dir(&inbox).unwrap();
    node.write("inbox/a", "1");
    let mut told = told_are(&node, 4).await.split_off(2);
    told.sort();
    assert_eq!(told, [of("created", "inbox/a"), of("removed", "inbox/b")]);
}

#[tokio::test]
async fn a_storm_of_files_is_told_one_by_one_each_once() {
    const FILES: usize = 3000;
    let project = Project::new().function("f", ECHO);
    fs::create_dir(project.path().join("inbox")).unwrap();
    let mut node = project.config("[triggers.t]\nto = 'f'\nfile = 'inbox/**/*.csv'\n").start().await;
    watching(&node).await;
    for number in 0..FILES {
        let folder = format!("inbox/{}", number % 10);
        fs::create_dir_all(node.path().join(&folder)).unwrap();
        node.write(&format!("{folder}/{number}.csv"), "1");
        // vanishes before, while or after it is told
        node.write(&format!("{folder}/brief.csv"), "1");
        fs::remove_file(node.path().join(format!("{folder}/brief.csv"))).unwrap();
        if number == FILES / 2 {
            node.kill();
            node.restart().await;
        }
    }
    let events = || async {
        let node = node.json(&["node", "--json"]).await[0].clone();
        node["deliveries"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>()
    };
    eventually("each file is told", || async { (events().await >= FILES as u64).then_some(()) }).await;
    let log = rusqlite::Connection::open(node.data().join("log.db")).unwrap();
    let (all, distinct): (usize, usize) = log
        .query_row(
            "SELECT count(*), count(DISTINCT subject) FROM event WHERE trigger = 't' AND subject NOT LIKE '%brief%'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .unwrap();
    assert_eq!((all, distinct), (FILES, FILES));
}

#[tokio::test]
async fn a_file_that_is_too_large_to_take_along_is_said() {
    let node = node("inbox/*", "payload = 'body'").await;
    fs::File::create(node.path().join("inbox/large")).unwrap().set_len(7 << 20).unwrap();
    node.says("the file is larger than the 6 MiB").await;
    node.write("inbox/small", "1");
    assert_eq!(told_are(&node, 1).await, [of("created", "inbox/small")]);
}

#[rstest]
#[case::facts("lambda")]
#[case::content("body")]
#[tokio::test]
async fn a_file_that_goes_between_its_event_and_its_delivery_is_delivered_as_it_was(#[case] payload: &str) {
    let stopped = Project::new().function_with("f", ECHO, "concurrency = 0");
    fs::create_dir(stopped.path().join("inbox")).unwrap();
    let keys = format!("to = 'f'\nfile = 'inbox/*'\npayload = '{payload}'");
    let node = stopped.config(&format!("[triggers.t]\n{keys}\n")).start().await;
    watching(&node).await;
    node.write("inbox/a.json", "[1]");
    assert_eq!(told_are(&node, 1).await, [of("created", "inbox/a.json")]);
    fs::remove_file(node.path().join("inbox/a.json")).unwrap();
    node.reconfigure(&node.project().toml().replace("concurrency = 0", "concurrency = 1")).await;
    let got = got(&node, 0).await;
    if payload == "body" {
        assert_eq!(got, json!([1]));
    } else {
        let object = &got["Records"][0]["s3"]["object"];
        assert_eq!((&object["key"], &object["size"]), (&json!("inbox/a.json"), &json!(3)));
    }
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_said_once_holds_up_no_other_and_is_told_when_it_may() {
    const BY: &[&str] =
        &["setpriv", "--inh-caps=-dac_override,-dac_read_search", "--bounding-set=-dac_override,-dac_read_search"];
    let mut project = Project::new().function("f", ECHO);
    if rustix::process::getuid().is_root() {
        // To root every file is readable, unless it gives that right up.
        let gives_up = std::process::Command::new(BY[0]).args(&BY[1..]).arg("true").status();
        if !gives_up.is_ok_and(|status| status.success()) {
            eprintln!("not tested: root cannot give up the right to read everything here");
            return;
        }
        project = project.under(BY);
    }
    fs::create_dir(project.path().join("inbox")).unwrap();
    let node = project.config("[triggers.t]\nto = 'f'\nfile = 'inbox/*'\npayload = 'body'\n").start().await;
    watching(&node).await;
    node.write("secret.json", "[1]");
    node.project().mode("secret.json", 0);
    fs::rename(node.path().join("secret.json"), node.path().join("inbox/secret.json")).unwrap();
    node.says("the file cannot be read and is not delivered until it can; let the user that runs fnbus read it").await;
    node.says("Permission denied").await;
    node.write("inbox/open.json", "2");
    assert_eq!(told_are(&node, 1).await, [of("created", "inbox/open.json")]);
    assert_eq!(node.said().matches("the file cannot be read").count(), 1);
    node.project().mode("inbox/secret.json", 0o600);
    assert_eq!(told_are(&node, 2).await[1], of("created", "inbox/secret.json"));
    assert_eq!(got(&node, 1).await, json!([1]));
}
