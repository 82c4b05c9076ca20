//! The versions of a function: kept, put into service and taken back by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::fs;

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

const ROUTE: &str = "[triggers.f]\nhttp = 'GET /f'\nto = 'f'\n";

fn answering(word: &str) -> String {
    format!("def handler(event, context):\n    return '{word}'\n")
}

async fn node(keys: &str, config: &str) -> Node {
    let node = Project::new().function_with("f", &answering("v1"), keys).config(ROUTE).config(config).start().await;
    node.function_ready("f").await;
    node
}

/// Edits the code and waits until it has been deployed.
async fn deploy(node: &Node, number: u32) {
    node.write("f/app.py", &answering(&format!("v{number}")));
    eventually("the edit is deployed", || async {
        let f = node.function("f").await;
        (f["latest"] == number && (f["pinned"] == true || f["number"] == number)).then_some(())
    })
    .await;
}

async fn versions(node: &Node) -> Vec<Value> {
    node.json(&["functions", "versions", "f", "--json"]).await
}

async fn served(node: &Node) -> String {
    node.get("/f").await.text().to_owned()
}

#[tokio::test]
async fn each_deploy_is_a_version_with_a_number_and_the_newest_serves() {
    let node = node("memory = 64", "").await;
    deploy(&node, 2).await;
    let all = versions(&node).await;
    let of = |key: &str| all.iter().map(|version| version[key].clone()).collect::<Vec<_>>();
    assert_eq!((of("version"), of("aliases")), (vec![json!(1), json!(2)], vec![json!([]), json!(["live"])]));
    assert_eq!((of("runtime"), of("memory")), (vec![json!("python"); 2], vec![json!(64); 2]));
    assert_eq!((&all[1]["id"], &all[1]["latest"]), (&node.function("f").await["version"], &json!(true)));
    // What was deployed before is the version it was.
    node.write("f/app.py", &answering("v1"));
    eventually("the first serves", || async { (node.function("f").await["number"] == 1).then_some(()) }).await;
    assert_eq!(versions(&node).await.len(), 2);
    let shown = node.fnbus(&["functions", "versions", "f"]).await.stdout;
    assert!(shown.contains("live, $LATEST") && shown.starts_with("VERSION  ID"), "{shown}");
}

#[tokio::test]
async fn a_rollback_serves_at_once_and_through_edits_and_a_kill_until_the_newest_is_promoted() {
    let mut node = node("", "").await;
    deploy(&node, 2).await;
    assert_eq!(served(&node).await, "v2");
    let moved = node.json(&["functions", "rollback", "f", "--json"]).await.remove(0);
    assert_eq!(
        moved,
        json!({ "function": "f", "alias": "live", "version": 1, "before": 2, "changed": true, "pinned": true })
    );
    assert_eq!(served(&node).await, "v1");

    deploy(&node, 3).await;
    node.says("`f` has a new version 3").await;
    node.says("version 1 keeps serving, as it is pinned: fnbus functions promote f 3").await;
    assert_eq!(served(&node).await, "v1");
    let shown = node.fnbus(&["functions"]).await.stdout;
    assert!(shown.contains("pinned; newest 3"), "{shown}");
    assert_eq!(node.json(&["node", "--json"]).await[0]["pinned"], json!({ "f": 1 }));
    let checked = node.fnbus(&["check"]).await;
    assert!(checked.stderr.contains("`f` is pinned to version 1"), "{}", checked.all());

    node.kill();
    node.restart().await;
    assert_eq!(served(&node).await, "v1");
    eventually("the newest is known", || async { (node.function("f").await["latest"] == 3).then_some(()) }).await;
    let promoted = node.fnbus(&["functions", "promote", "f"]).await;
    assert!(promoted.stderr.contains("`f` serves version 3 instead of 1, and newer ones"), "{}", promoted.all());
    assert_eq!(served(&node).await, "v3");
    deploy(&node, 4).await;
    assert_eq!(served(&node).await, "v4", "edits serve again");
}

#[tokio::test]
async fn a_version_that_was_promoted_stays_and_its_variables_come_with_it() {
    let code = "import os\ndef handler(event, context):\n    return os.environ['WORD']\n";
    let toml = |word: &str| format!("[functions.f]\nruntime = 'python'\nenv = {{ WORD = '{word}' }}\n{ROUTE}");
    let project = Project::new();
    let rest = project.toml().to_owned();
    let node = project.file("f/app.py", code).config(&toml("one")).start().await;
    node.function_ready("f").await;
    node.configure(&format!("{rest}{}", toml("two")));
    eventually("the variable is another", || async { (served(&node).await == "two").then_some(()) }).await;
    let promoted = node.json(&["functions", "promote", "f", "1", "--json"]).await.remove(0);
    assert_eq!((&promoted["version"], &promoted["pinned"]), (&json!(1), &json!(true)));
    assert_eq!(served(&node).await, "one");
    let again = node.json(&["functions", "promote", "f", "1", "--json"]).await.remove(0);
    assert_eq!(again["changed"], false);
}

#[tokio::test]
async fn what_cannot_be_put_into_service_changes_nothing_and_says_why() {
    let node = node("", "").await;
    for (arguments, says) in [
        (&["promote", "f", "7"][..], "`f` has no version `7`; it has 1"),
        (&["promote", "f", "live:"], "has no version"),
        (&["promote", "nobody"], "there is no function `nobody`"),
        (&["rollback", "f"], "`f:live` led to no version before this one"),
        (&["versions", "nobody"], "there is no function `nobody`"),
    ] {
        let output = node.fnbus(&[&["functions"], arguments].concat()).await;
        assert!(output.code() == 1 && output.stderr.contains(says), "{arguments:?}: {}", output.all());
    }
    // A version that needs something which is gone.
    let needy = format!("open('{}').close()\n{}", node.path().join("notes/need").display(), answering("v2"));
    node.write("notes/need", "");
    node.write("f/app.py", &needy);
    eventually("it serves", || async { (served(&node).await == "v2").then_some(()) }).await;
    deploy(&node, 3).await;
    fs::remove_file(node.path().join("notes/need")).unwrap();
    let output = node.fnbus(&["functions", "rollback", "f"]).await;
    assert!(output.code() == 1 && output.stderr.contains("version 2 of `f` does not start"), "{}", output.all());
    assert!(output.stderr.contains("FileNotFoundError"), "{}", output.all());
    assert_eq!((served(&node).await.as_str(), &node.function("f").await["pinned"]), ("v3", &json!(false)));
}

#[tokio::test]
async fn versions_beyond_what_is_kept_go_with_their_code_but_never_the_one_that_serves() {
    let node = node("", "[runtimes]\nkeep_versions = 2\n").await;
    deploy(&node, 2).await;
    node.json(&["functions", "promote", "f", "1", "--json"]).await;
    for number in 3..=5 {
        deploy(&node, number).await;
    }
    let kept = async |numbers: &[u64]| {
        eventually("these are kept", || async {
            let all: Vec<_> = versions(&node).await.iter().map(|v| v["version"].as_u64().unwrap()).collect();
            (all == numbers).then_some(())
        })
        .await;
    };
    // and what a rollback leads to
    kept(&[1, 2, 4, 5]).await;
    assert_eq!(served(&node).await, "v1");
    node.json(&["functions", "promote", "f", "--json"]).await;
    deploy(&node, 6).await;
    deploy(&node, 7).await;
    kept(&[6, 7]).await;
    let folders = || fs::read_dir(node.data().join("versions")).unwrap().count();
    eventually("their code is gone", || async { (folders() == 2).then_some(()) }).await;
}

#[tokio::test]
async fn a_function_reads_the_number_of_the_version_that_runs() {
    let python = "import os\ndef handler(event, c):\n    return c.function_version + os.environ['AWS_LAMBDA_FUNCTION_VERSION'] + \
                  c.log_stream_name[10:13]\n";
    let node_js = "exports.handler = async (e, c) => c.functionVersion + process.env.AWS_LAMBDA_FUNCTION_VERSION;\n";
    let node = Project::new()
        .function("f", python)
        .file("n/index.js", node_js)
        .program("c/run", "#!/bin/sh\nprintf '\"%s\"' \"$AWS_LAMBDA_FUNCTION_VERSION\"\n")
        .config(&format!(
            "{ROUTE}[functions.n]\nruntime = 'node'\n[functions.c]\nruntime = 'command'\nhandler = './run'\n"
        ))
        .start()
        .await;
    node.function_ready("f").await;
    assert_eq!(served(&node).await, "11/[1");
    node.write("f/app.py", &format!("{python}\n"));
    eventually("the second serves", || async { (served(&node).await == "22/[2").then_some(()) }).await;
    for (name, expect) in [("f:1", "\"11/[1\""), ("f:$LATEST", "\"22/[2\""), ("n", "\"11\""), ("c", "\"1\"")] {
        assert_eq!(node.fnbus(&["invoke", name]).await.stdout.trim(), expect, "{name}");
    }
    node.json(&["functions", "rollback", "f", "--json"]).await;
    assert_eq!(served(&node).await, "11/[1");
}

#[tokio::test]
async fn a_target_that_names_a_version_which_is_not_there_is_said_before_anybody_calls() {
    let project = Project::new().function_with("f", &answering("v1"), "then = 'f:99'\non_failure = 'f:2'").config(
        "[triggers.a]\nhttp = 'POST /a'\nmode = 'async'\nto = ['f:1', 'f:live', 'f:$LATEST']\n[pipelines.p]\nsteps = ['f:stable']\n",
    );
    let unknown = [
        "`then` of the function `f` goes to `f:99`, and `f` has no such version: `fnbus functions versions f` has them",
        "`on_failure` of the function `f` goes to `f:2`, and `f` has no such version",
        "the pipeline `p` goes to `f:stable`, and `f` has no such alias yet: `fnbus functions promote f VERSION --alias stable` makes it",
    ];
    let checked = project.check(&[]);
    assert!(checked.code() == 0 && unknown.iter().all(|said| checked.stderr.contains(said)), "{}", checked.all());
    assert_eq!(checked.stderr.matches("has no such").count(), 3, "{}", checked.all());
    let node = project.start().await;
    for said in unknown {
        node.says(said).await;
    }
    node.function_ready("f").await;
    deploy(&node, 2).await;
    node.json(&["functions", "promote", "f", "1", "--alias", "stable", "--json"]).await;
    let checked = node.fnbus(&["check"]).await;
    assert_eq!(checked.stderr.matches("has no such").count(), 1, "{}", checked.all());
}
