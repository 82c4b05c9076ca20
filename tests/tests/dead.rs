//! Dead letters: listed, dropped, edited and redriven, and what waits behind one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::process::Command;

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

/// Notes what it got, and fails what says so as long as the file `broken` is there.
const NOTES: &str = r#"
import json, os, sys
def handler(event, context):
    print("about to look at", event["n"], file=sys.stderr)
    if event.get("fail") and (event["fail"] == "always" or os.path.exists(os.environ["BROKEN"])):
        raise ValueError("no good")
    with open(os.environ["RAN"], "a") as file:
        file.write(json.dumps([event.get("key"), event["n"]]) + "\n")
"#;

fn project(triggers: &str) -> Project {
    let project = Project::new().file("broken", "").config(triggers);
    let path = |name: &str| project.path().join(name).display().to_string();
    let env = format!("env = {{ RAN = '{}', BROKEN = '{}' }}", path("notes/ran"), path("broken"));
    project.function_with("f", NOTES, &format!("{env}\nconcurrency = 2\nretry = {{ attempts = 2, wait = '1ms' }}"))
}

const JOBS: &str = "[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n";
const BLOCKS: &str = "[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n\
                      order_by = { key = 'data.key', on_dead = 'block' }\n";

/// Accepts `{key, n}` for each n; their ids.
async fn accept(node: &Node, key: &str, numbers: std::ops::Range<i64>, failing: i64) -> Vec<String> {
    let mut ids = Vec::new();
    for n in numbers {
        let body =
            if n == failing { json!({ "key": key, "n": n, "fail": "once" }) } else { json!({ "key": key, "n": n }) };
        ids.push(node.accepted("/jobs", body.to_string()).await);
    }
    ids
}

/// The numbers that ran of a key, in the order they did.
fn ran(node: &Node, key: &str) -> Vec<i64> {
    let lines = node.read("notes/ran");
    let notes = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    notes.filter(|note| note[0] == key).map(|note| note[1].as_i64().unwrap()).collect()
}

async fn list(node: &Node, filters: &[&str]) -> Vec<Value> {
    node.json(&[&["dead", "list", "--json"], filters].concat()).await
}

/// A dead letter of `f`.
async fn letter(node: &Node, body: &str) -> String {
    let id = node.accepted("/jobs", body.to_owned()).await;
    node.event_is(&id, "dead").await;
    id
}

#[tokio::test]
async fn a_dead_letter_blocks_its_key_over_a_kill_until_it_is_redriven_and_goes_first() {
    let mut node = project(BLOCKS).start().await;
    let ids = accept(&node, "a", 0..4, 1).await;
    node.event_is(&ids[1], "dead").await;
    let others = accept(&node, "b", 0..2, -1).await;
    node.event_is(&others[1], "done").await;
    let held = node.show(&ids[3]).await["deliveries"][0].clone();
    assert_eq!(held["status"], "held");
    let redrive = format!("fnbus dead redrive {} --target f", ids[1]);
    assert!(held["waits"].as_str().unwrap().contains(&redrive), "{held:#}");
    assert_eq!((&list(&node, &[]).await[0]["blocks"], ran(&node, "a")), (&json!(2), vec![0]));

    node.kill();
    node.restart().await;
    let later = accept(&node, "a", 4..5, -1).await;
    let others = accept(&node, "b", 2..3, -1).await;
    node.event_is(&others[0], "done").await;
    assert_eq!(node.show(&later[0]).await["status"], "held");
    // as long as it is broken, it blocks again
    let words: Vec<&str> = redrive.split(' ').skip(1).collect();
    assert_eq!(node.fnbus(&words).await.code(), 0);
    eventually("it is dead again", || async {
        let event = node.show(&ids[1]).await;
        (event["deliveries"].as_array().unwrap().len() == 2 && event["status"] == "dead").then_some(())
    })
    .await;
    assert_eq!(ran(&node, "a"), [0]);
    std::fs::remove_file(node.path().join("broken")).unwrap();
    assert_eq!(node.fnbus(&words).await.code(), 0);
    node.event_is(&later[0], "done").await;
    assert_eq!(ran(&node, "a"), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn a_letter_that_was_redriven_is_told_so_and_a_target_that_there_is_not_is_named_with_its_neighbour() {
    let node = project(JOBS).start().await;
    let id = letter(&node, r#"{"n":1,"fail":"once"}"#).await;
    let line = node.fnbus(&["dead", "list"]).await.stdout;
    assert!(line.contains("  2 error  ") && !line.contains("x2"), "{line}");
    std::fs::remove_file(node.path().join("broken")).unwrap();
    assert_eq!(node.fnbus(&["dead", "redrive", &id]).await.code(), 0);
    node.event_is(&id, "done").await;
    for what in ["redrive", "drop"] {
        let again = node.fnbus(&["dead", what, &id]).await;
        let says = format!("`{id}` has no dead letter any more: it was delivered again at ");
        assert!(again.code() == 1 && again.stderr.contains(&says), "one line, whole ids: {}", again.all());
        assert!(again.stderr.contains("`fnbus show ID`"), "{}", again.all());
        let unknown = node.fnbus(&["dead", what, "--all", "--target", "ff", "--dry-run"]).await;
        assert!(unknown.stderr.contains("there is no target `ff`; did you mean `f`?"), "{}", unknown.all());
    }
    let unknown = node.fnbus(&["dead", "list", "--target", "somewhere"]).await;
    assert!(
        unknown.code() == 1 && unknown.stderr.contains("there is no target `somewhere`; known: f"),
        "{}",
        unknown.all()
    );
    assert_eq!(list(&node, &["--target", "f"]).await.len(), 0);
    assert_eq!(node.json(&["node", "--json"]).await[0]["deliveries"], json!({ "done": 1, "settled": 1 }));
}

#[tokio::test]
async fn a_dropped_letter_leaves_the_list_and_lets_its_key_go_and_the_log_has_it_still() {
    let node = project(BLOCKS).start().await;
    let ids = accept(&node, "a", 0..2, 0).await;
    node.event_is(&ids[0], "dead").await;
    let plan = node.json(&["dead", "drop", &ids[0], "--dry-run", "--json"]).await.remove(0);
    assert_eq!(
        plan,
        json!({ "letters": 1, "targets": { "f": 1 }, "reasons": { "attempts_exhausted": 1 }, "freed": 1 })
    );
    assert_eq!(list(&node, &[]).await.len(), 1, "a dry run drops nothing");
    let said = node.fnbus(&["dead", "drop", &ids[0]]).await;
    assert!(said.code() == 0 && said.stderr.contains("1 delivery behind them"), "{}", said.all());
    node.event_is(&ids[1], "done").await;
    assert!(list(&node, &[]).await.is_empty());
    let shown = node.show(&ids[0]).await;
    assert_eq!((&shown["status"], &shown["deliveries"][0]["settled"]["by"]), (&json!("dead"), &json!("drop")));
    assert!(node.fnbus(&["dead", "show", &ids[0]]).await.stdout.contains("dropped at "));
    // it is gone for good, and nothing else is a dead letter
    for (id, says) in
        [(&ids[0], "has no dead letter any more: it was dropped at "), (&ids[1], "no dead letter matches")]
    {
        for what in ["drop", "redrive"] {
            let nothing = node.fnbus(&["dead", what, id]).await;
            assert!(nothing.code() == 1 && nothing.stderr.contains(says), "{}", nothing.all());
        }
    }
    let counts = node.json(&["node", "--json"]).await[0]["deliveries"].clone();
    assert_eq!(counts, json!({ "done": 1, "settled": 1 }));
    assert_eq!(node.show(&ids[1]).await["status"], "done");
}

#[tokio::test]
async fn letters_are_dropped_in_bulk_by_filters_and_only_when_that_is_confirmed() {
    let node = project(&format!("{JOBS}[triggers.other]\nhttp = 'POST /other'\nmode = 'async'\nto = 'g'\n"))
        .function_with("g", "def handler(event, context): exit(3)\n", "retry = { attempts = 1 }")
        .start()
        .await;
    letter(&node, r#"{"n":1,"fail":"always"}"#).await;
    let other = node.accepted("/other", "{}").await;
    node.event_is(&other, "dead").await;
    let refused = node.fnbus(&["dead", "drop", "--all"]).await;
    assert!(refused.code() == 1 && refused.stderr.contains("drop dead letters for good"), "{}", refused.all());
    assert!(refused.stderr.contains("--yes"), "{}", refused.all());
    assert_eq!(node.fnbus(&["dead", "drop"]).await.code(), 2, "nothing named is not everything");
    assert_eq!(list(&node, &[]).await.len(), 2);
    let none = node.fnbus(&["dead", "drop", "--all", "--reason", "expired", "--yes"]).await;
    assert!(none.code() == 1 && none.stderr.contains("nothing was done"), "{}", none.all());
    let dropped = node.json(&["dead", "drop", "--all", "--target", "g", "--yes", "--json"]).await.remove(0);
    assert_eq!(dropped["targets"], json!({ "g": 1 }));
    let left = list(&node, &[]).await;
    assert_eq!((left.len(), &left[0]["target"]), (1, &json!("f")));
    let wrong = node.fnbus(&["dead", "list", "--reason", "bad_luck"]).await;
    assert!(wrong.code() == 2 && wrong.stderr.contains("attempts_exhausted"), "{}", wrong.all());
}

#[tokio::test]
async fn an_edited_letter_is_delivered_to_its_target_alone_and_each_event_names_the_other() {
    let node = project(&JOBS.replace("'f'", "['f', 'g']"))
        .function("g", "def handler(event, context): return 'g'\n")
        .start()
        .await;
    let id = letter(&node, r#"{"n":1,"fail":"always"}"#).await;
    let edited = node.json(&["dead", "edit", &id, "-d", r#"{"n":2}"#, "--json"]).await.remove(0);
    assert_eq!((&edited["corrects"], &edited["target"]), (&json!(id), &json!("f")));
    let new = edited["event"].as_str().unwrap();
    let event = node.event_is(new, "done").await;
    assert_eq!(event["deliveries"].as_array().unwrap().len(), 1);
    assert_eq!((&event["data"], &event["corrects"]), (&json!(r#"{"n":2}"#), &json!(id)));
    let was = node.show(&id).await;
    assert_eq!(was["data"], r#"{"n":1,"fail":"always"}"#, "what happened stays");
    for same in ["type", "source", "time", "trigger", "meta", "subject"] {
        assert_eq!(was[same], event[same], "the {same}");
    }
    assert_eq!(was["deliveries"][0]["settled"]["event"], json!(new));
    assert!(node.fnbus(&["show", &id]).await.stdout.contains(&format!("event {new} stands in for it")));
    assert!(node.fnbus(&["show", new]).await.stdout.contains(&format!("corrects     {id}")));
    assert!(list(&node, &[]).await.is_empty());
    assert_eq!(node.read("notes/ran"), "[null, 2]\n");
}

#[tokio::test]
async fn what_cannot_be_edited_says_why_and_what_to_do() {
    let node = project(&JOBS.replace("'f'", "['f', 'g']"))
        .function_with("g", "def handler(event, context): raise ValueError\n", "retry = { attempts = 1 }")
        .start()
        .await;
    let body = r#"{"n":1,"fail":"always"}"#;
    let id = letter(&node, body).await;
    for (arguments, why) in [
        (&["-d", "{}"][..], "has 2 dead letters: name one with --target f"),
        (&["--target", "f", "-d", body], "fnbus dead redrive"),
        (&["--target", "f", "-d", "{n:1}"], "the body was JSON and this is not"),
        (&["--target", "h", "-d", "{}"], "has no dead letter"),
        (&["--target", "f", "-d", "@nothing.json"], "nothing.json"),
        (&["--target", "f"], "-d"),
    ] {
        let output = node.fnbus(&[&["dead", "edit", &id], arguments].concat()).await;
        let said = output.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.code() == 1 && said.contains(why), "{arguments:?}: {}", output.all());
    }
    let unknown = node.fnbus(&["dead", "edit", "no-such-id", "-d", "{}"]).await;
    assert!(unknown.code() == 1 && unknown.stderr.contains("no-such-id"), "{}", unknown.all());
    assert_eq!(list(&node, &[]).await.len(), 2);
}

#[tokio::test]
async fn on_a_terminal_a_letter_is_edited_in_the_editor() {
    let node = project(JOBS).start().await;
    let id = letter(&node, r#"{"n":1,"fail":"always"}"#).await;
    let edit = |editor: &str| {
        let fnbus = node.project().command(&["dead", "edit", &id]);
        let command = format!("{} dead edit {id}", fnbus.get_program().display());
        // `script` is a terminal
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).current_dir(node.path()).env("EDITOR", editor).env("VISUAL", "");
        script
            .stdin(std::process::Stdio::null())
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Ok(same) = edit("true") else {
        eprintln!("there is no `script` here, and so no terminal");
        return;
    };
    assert!(same.contains("fnbus dead redrive"), "{same}");
    let refused = edit("sed -i s/1/x/").unwrap();
    assert!(refused.contains("what you wrote is in"), "{refused}");
    assert!(edit("false").unwrap().contains("nothing was done"));
    assert_eq!(list(&node, &[]).await.len(), 1);
    let edited = edit("sed -i s/always//").unwrap();
    assert!(edited.contains("stands in for"), "{edited}");
    assert!(list(&node, &[]).await.is_empty());
    eventually("it ran", || async { (node.read("notes/ran") == "[null, 1]\n").then_some(()) }).await;
}

#[tokio::test]
async fn the_list_tells_every_attempt_the_last_lines_printed_and_when_a_letter_goes() {
    let node = project(JOBS).config("[log]\nkeep = '1h'\nkeep_dead = '3d'\n").start().await;
    let id = letter(&node, r#"{"n":7,"fail":"always"}"#).await;
    let letter = list(&node, &[]).await.remove(0);
    let outcomes: Vec<_> =
        letter["history"].as_array().unwrap().iter().map(|attempt| attempt["outcome"].as_str()).collect();
    assert_eq!(
        (&letter["event"], &letter["attempts"], outcomes),
        (&json!(id), &json!(2), vec![Some("error"), Some("error")])
    );
    assert!(letter["log"].as_str().unwrap().contains("about to look at 7"), "{letter:#}");
    let at = |key: &str| letter[key].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(at("expires") - at("died"), chrono::Duration::days(3));
    let table = node.fnbus(&["dead", "list"]).await;
    for part in ["EXPIRES", "  2 error  ", "ValueError: no good", "attempts exhausted"] {
        assert!(table.stdout.contains(part), "{part}: {}", table.all());
    }
    let text = node.fnbus(&["dead", "show", &id]).await.stdout;
    assert_eq!(text.matches("about to look at 7").count(), 2, "{text}");
    let bounded = node.fnbus(&["dead", "list", "-n", "0"]).await;
    assert!(bounded.stderr.contains("no dead letter"), "{}", bounded.all());
}

#[tokio::test]
async fn many_letters_are_summed_up_by_reason_and_redriven_in_bulk() {
    let node = project(JOBS).start().await;
    for n in 0..11 {
        node.accepted("/jobs", json!({ "n": n, "fail": "once" }).to_string()).await;
    }
    node.deliveries_are("dead", 11).await;
    let table = node.fnbus(&["dead", "list", "-n", "3"]).await;
    assert!(table.stderr.contains("11 dead letters, the newest 3 shown: 11 attempts exhausted"), "{}", table.all());
    std::fs::remove_file(node.path().join("broken")).unwrap();
    let filters = ["--all", "--target", "f", "--reason", "attempts_exhausted", "--since", "1h", "--json"];
    let redriven = node.json(&[&["dead", "redrive"], &filters[..]].concat()).await.remove(0);
    assert_eq!(redriven["plan"]["deliveries"], 11);
    node.deliveries_are("done", 11).await;
    assert!(list(&node, &[]).await.is_empty());
}

#[tokio::test]
async fn the_letter_of_a_pipeline_is_the_whole_of_it_and_a_redrive_begins_a_new_run() {
    let node = project("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'line'\n")
        .config("[pipelines.line]\nsteps = ['g', 'f']\n")
        .function("g", "def handler(event, context): return event\n")
        .start()
        .await;
    let id = letter(&node, r#"{"n":1,"fail":"once"}"#).await;
    let letters = list(&node, &["--reason", "step_failed", "--target", "line"]).await;
    assert_eq!((letters.len(), &letters[0]["event"]), (1, &json!(id)));
    assert_eq!(list(&node, &[]).await.len(), 1, "a step is no letter");
    std::fs::remove_file(node.path().join("broken")).unwrap();
    let redriven = node.json(&["dead", "redrive", "--all", "--reason", "step_failed", "--json"]).await.remove(0);
    assert_eq!(redriven["plan"]["targets"], json!({ "line": 1 }));
    node.event_is(&id, "done").await;
    let runs = node.json(&["runs", "list", "--json"]).await;
    assert_eq!(runs.iter().map(|run| &run["status"]).collect::<Vec<_>>(), ["dead", "done"]);
}
