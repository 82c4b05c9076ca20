//! Runtimes by the names that AWS has for them: which interpreter runs what, and until when.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::process::Command;

use fnbus_tests::{Project, eventually};
use hyper::Request;
use serde_json::{Value, json};

const PYTHON: &str = "import os\ndef handler(event, context):\n    return os.environ['AWS_EXECUTION_ENV']\n";
const NODE: &str = "exports.handler = async () => process.env.AWS_EXECUTION_ENV;\n";

/// A project whose `PATH` has nothing but interpreters, which say that they are these versions.
fn with_interpreters(mut project: Project, python: &[u32], node: Option<u32>) -> Project {
    let real = |program: &str, arguments: &[&str]| {
        let said = Command::new(program).args(arguments).output().unwrap().stdout;
        String::from_utf8(said).unwrap().trim().to_owned()
    };
    let says = |real: &str, from: &str, to: &str| {
        format!("#!/bin/sh\nPATH=/usr/bin:/bin\n'{real}' \"$@\" | sed 's/{from}/{to}/'\n")
    };
    let python3 = real("python3", &["-c", "import os, sys; print(os.path.realpath(sys.executable))"]);
    for (at, minor) in python.iter().enumerate() {
        let script = says(&python3, "\"version\": .3, [0-9]*", &format!("\"version\": [3, {minor}"));
        project = project.program(&format!("bin/python3.{minor}"), &script);
        if at == 0 {
            project = project.program("bin/python3", &script);
        }
    }
    if let Some(major) = node {
        let script =
            says(&real("node", &["-p", "process.execPath"]), "\"version\":\"[0-9]*", &format!("\"version\":\"{major}"));
        project = project.program("bin/node", &script);
    }
    let path = project.path().join("bin").display().to_string();
    project.variable("PATH", &path)
}

/// A function of a runtime, with code for any, and the route `/NAME`.
fn function(project: Project, name: &str, runtime: &str) -> Project {
    project
        .file(&format!("{name}/app.py"), PYTHON)
        .file(&format!("{name}/index.js"), NODE)
        .config(&format!("[functions.{name}]\nruntime = '{runtime}'\nretry.attempts = 1"))
        .config(&format!("[triggers.{name}]\nhttp = 'GET /{name}'\nto = '{name}'"))
        .config(&format!("[triggers.{name}-later]\nhttp = 'POST /{name}'\nmode = 'async'\nto = '{name}'"))
}

async fn row(node: &fnbus_tests::Node, name: &str) -> Value {
    let rows = node.json(&["runtimes", "--json"]).await;
    rows.into_iter().find(|row| row["name"] == name).unwrap()
}

#[tokio::test]
async fn a_runtime_by_its_name_is_run_by_that_interpreter_and_no_other() {
    let mut project = with_interpreters(Project::new(), &[11, 13], Some(22));
    for (name, runtime) in [("a", "python"), ("b", "python3.13"), ("c", "nodejs22.x"), ("d", "python3.12")] {
        project = function(project, name, runtime);
    }
    let checked = project.check(&[]);
    assert_eq!(checked.code(), 0, "{}", checked.all());
    let missing = "there is no python3.12 on this machine: install it, so that `python3.12` is on PATH, or write runtime = \"python\"";
    assert!(checked.stderr.contains(&format!("`d` cannot run on this machine: {missing}")), "{}", checked.all());

    let node = project.start().await;
    for (name, ran) in [("a", "python3.11"), ("b", "python3.13"), ("c", "nodejs22.x")] {
        assert_eq!(node.get(&format!("/{name}")).await.text(), format!("AWS_Lambda_{ran}"));
    }
    let refused = node.fnbus(&["invoke", "d"]).await;
    assert!(refused.code() == 1 && refused.stderr.contains(missing), "{}", refused.all());
    assert_eq!(node.function("b").await["runtime"], "python3.13");
    assert_eq!(node.json(&["functions", "versions", "c", "--json"]).await[0]["runtime"], "nodejs22.x");

    let python = row(&node, "python").await;
    assert_eq!((&python["identifier"], &python["functions"]), (&json!("python3.11"), &json!(["a"])));
    assert_eq!(python["deprecation_date"], "2027-06-30");
    let newer = row(&node, "python3.13").await;
    assert_eq!((&newer["path"], &newer["functions"]), (&python["path"], &json!(["b"])));
    let gone = row(&node, "python3.12").await;
    assert!(gone["missing"].as_str().unwrap().starts_with("there is no python3.12"), "{gone}");
    let own = row(&node, "provided.al2023").await;
    assert_eq!(
        (&own["path"], &own["missing"], &own["function_create_block_date"]),
        (&Value::Null, &Value::Null, &json!("2029-07-31"))
    );
    let shown = node.fnbus(&["runtimes"]).await;
    assert!(shown.stdout.starts_with("RUNTIME") && shown.stdout.contains("python3.11, /"), "{}", shown.all());
    assert!(shown.stderr.contains(missing) && shown.stderr.contains("enforce = true alone"), "{}", shown.all());
    let doctor = node.fnbus(&["doctor"]).await;
    assert!(doctor.code() == 1 && doctor.stderr.contains(missing), "{}", doctor.all());
}

#[test]
fn each_interpreter_is_asked_once_whatever_might_run_on_it() {
    let answers = |answer: &str| format!("#!/bin/sh\necho >> \"$0.asked\"\necho '{answer}'\n");
    let project = Project::new()
        .program("bin/python3", &answers("{\"path\":\"/a\",\"version\":[3,13],\"site\":[],\"own\":[]}"))
        .program("bin/node", &answers("{\"path\":\"/b\",\"version\":\"22.1.0\"}"));
    let bin = project.path().join("bin");
    let project = project.variable("PATH", &bin.display().to_string());
    let shown: fnbus_tests::Output = project.command(&["runtimes", "--json"]).output().unwrap().into();
    let found = |name: &str| shown.lines().iter().any(|row| row["name"] == name && row["missing"].is_null());
    assert!(found("python3.13") && found("nodejs22.x") && !found("python3.12"), "{}", shown.all());
    for program in ["python3", "node"] {
        let asked = std::fs::read_to_string(bin.join(format!("{program}.asked"))).unwrap().lines().count();
        // as whichever there is, and as one of a version
        assert_eq!(asked, 2, "{program}");
    }
}

#[tokio::test]
async fn the_end_of_a_runtime_is_said_and_refuses_nothing_by_itself() {
    let project = function(with_interpreters(Project::new(), &[9], Some(18)), "f", "python3.9");
    let project = function(project, "g", "node");
    let ended = "`f` runs on python3.9, which is deprecated since 2025-12-15: take a newer one";
    let checked = project.check(&[]);
    assert!(checked.code() == 0 && checked.stderr.contains(ended), "{}", checked.all());
    let hint = "`node` is nodejs18.x on this machine, which is deprecated since 2025-09-01";
    assert!(checked.stderr.contains(hint), "{}", checked.all());
    let node = project.start().await;
    node.says(ended).await;
    assert_eq!(node.get("/f").await.text(), "AWS_Lambda_python3.9");
    assert_eq!(node.get("/g").await.text(), "AWS_Lambda_nodejs18.x");
    node.says("`node` is nodejs18.x here, which is deprecated since 2025-09-01").await;
    assert_eq!(row(&node, "python3.9").await["state"], "deprecated");
    let shown = node.fnbus(&["functions"]).await.stdout;
    assert!(shown.contains("python3.9 is deprecated since 2025-12-15"), "{shown}");
}

#[tokio::test]
async fn where_it_is_enforced_what_has_ended_is_neither_made_nor_run_and_says_so_everywhere() {
    let enforce = "[runtimes]\nenforce = true\n";
    let project = function(with_interpreters(Project::new(), &[12], Some(18)), "old", "nodejs18.x");
    let first = project.toml().to_owned();
    let mut node = project.start().await;
    assert_eq!(node.get("/old").await.text(), "AWS_Lambda_nodejs18.x");

    // What is there is not run any more, and what is not there is not made.
    let more = "[functions.new]\nruntime = 'nodejs18.x'\n[triggers.new]\nhttp = 'GET /new'\nto = 'new'\n";
    std::fs::create_dir(node.path().join("new")).unwrap();
    node.write("new/index.js", NODE);
    node.stop().await;
    node.restart_with(&format!("{first}{more}{enforce}")).await;
    let checked = node.fnbus(&["check", "--json"]).await;
    assert_eq!(checked.code(), 1, "{}", checked.all());
    let problems: Vec<String> = checked.lines().iter().map(|p| p["message"].as_str().unwrap().to_owned()).collect();
    let (run, made) = ("no function of it is run since 2026-04-29", "no function is made for it since 2025-10-01");
    assert!(problems.len() == 2 && problems[0].ends_with(run) && problems[1].ends_with(made), "{problems:?}");

    for (function, says) in [("old", run), ("new", made)] {
        let answer = node.get(&format!("/{function}")).await;
        assert!(answer.status == 502 && answer.text().contains("init_error"), "{}", answer.text());
        let invoked = node.fnbus(&["invoke", function]).await;
        assert!(
            invoked.code() == 1
                && [says, "(init_error): Runtime.Deprecated"].iter().all(|said| invoked.stderr.contains(said)),
            "{}",
            invoked.all()
        );
        let asked = Request::post(format!("/2015-03-31/functions/{function}/invocations"));
        let answer = node.ask_api(asked, "{}").await;
        assert_eq!((answer.status, answer.header("x-amz-function-error")), (hyper::StatusCode::OK, Some("Unhandled")));
        assert_eq!(answer.json::<Value>()["errorType"], "Runtime.Deprecated");
        node.says(&format!("`{function}` cannot serve: Runtime.Deprecated: nodejs18.x is deprecated")).await;
    }
    node.write("old/index.js", &format!("{NODE}\n"));
    node.says("no function of it is changed since 2025-10-31: take a newer runtime").await;
    let id = node.accepted("/old", "").await;
    let event = node.event_is(&id, "dead").await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["error"]["kind"], "Runtime.Deprecated", "{event}");

    // A newer runtime is the way out.
    node.configure(&format!("{}{enforce}", first.replace("nodejs18.x", "python3.12")));
    eventually("it serves", || async { (node.get("/old").await.text() == "AWS_Lambda_python3.12").then_some(()) })
        .await;
    assert_eq!(node.fnbus(&["check"]).await.code(), 0);
}

/// A runtime of which functions are not changed today and still run; none where no runtime is at that point of its life.
fn between(project: &Project) -> Option<String> {
    std::fs::write(project.path().join("fnbus.toml"), "").unwrap();
    let mut command = project.command(&["runtimes", "--json"]);
    let rows: fnbus_tests::Output = command.env("PATH", project.path()).output().unwrap().into();
    let today = chrono::Utc::now().date_naive().to_string();
    let is_between = |row: &Value| {
        let day = |key: &str| row[key].as_str().map(str::to_owned);
        row["name"] == row["identifier"]
            && day("function_update_block_date").is_some_and(|from| from <= today)
            && day("function_invoke_block_date").is_some_and(|until| today < until)
            && row["kind"] != "provided"
    };
    let row = rows.lines().into_iter().find(is_between)?;
    Some(row["name"].as_str()?.to_owned())
}

#[tokio::test]
async fn before_it_is_run_no_more_an_edit_of_a_function_is_refused_and_the_version_that_serves_goes_on() {
    let project = Project::new();
    let Some(runtime) = between(&project) else { return };
    let number = |from: &str| runtime.strip_prefix(from).and_then(|rest| rest.trim_end_matches(".x").parse().ok());
    let python = number("python3.").unwrap_or(12);
    let project = function(with_interpreters(project, &[python], Some(number("nodejs").unwrap_or(22))), "f", &runtime);
    let first = project.toml().to_owned();
    let mut node = project.start().await;
    let answered = format!("AWS_Lambda_{runtime}");
    assert_eq!(node.get("/f").await.text(), answered);
    node.stop().await;
    node.restart_with(&format!("{first}[runtimes]\nenforce = true\n")).await;
    assert_eq!(node.get("/f").await.text(), answered, "it is run");
    node.write("f/app.py", "def handler(event, context):\n    return 'edited'\n");
    node.write("f/index.js", "exports.handler = async () => 'edited';\n");
    node.says(&format!("{runtime} is deprecated since ")).await;
    node.says("no function of it is changed since").await;
    assert_eq!(node.get("/f").await.text(), answered, "what serves goes on");
    let status = node.function("f").await;
    assert!(status["refused"].as_str().is_some_and(|says| says.contains("no function of it is changed")), "{status}");
    let id = node.accepted("/f", "").await;
    node.event_is(&id, "done").await;
}

#[tokio::test]
async fn a_function_changes_its_runtime_under_a_backlog_and_back_and_nothing_is_lost_or_run_twice() {
    let python = "import os, time\ndef handler(event, context):\n    open(os.environ['LOG'], 'a').write(f'python {event}\\n')\n    \
                  while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n    return 'python'\n";
    let node_js = "const { appendFileSync } = require('node:fs');\nexports.handler = async (event) => {\n  \
                   appendFileSync(process.env.LOG, `node ${event}\\n`);\n  return 'node';\n};\n";
    let project = Project::new();
    let notes = project.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    let table = |runtime: &str| {
        let (log, go) = (notes.join("log"), notes.join("go"));
        let env = format!("{{ LOG = '{}', GO = '{}' }}", log.display(), go.display());
        format!("[functions.f]\nruntime = '{runtime}'\nconcurrency = 1\nfolders = {{ write = 'notes' }}\nenv = {env}\n")
    };
    let rest = format!(
        "{}[triggers.f]\nhttp = 'POST /f'\nmode = 'async'\npayload = 'body'\nto = 'f'\n[triggers.g]\nhttp = 'GET /f'\nto = 'f'\n",
        project.toml()
    );
    let project = project.file("f/app.py", python).file("f/index.js", node_js);
    let node = project.whole_config(&format!("{rest}{}", table("python"))).start().await;
    node.function_ready("f").await;
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(node.accepted("/f", number.to_string()).await);
    }
    let first = node.lines_of("notes/log", 1).await.remove(0);
    let first: usize = first.strip_prefix("python ").unwrap().parse().unwrap();
    node.reconfigure(&format!("{rest}{}", table("node"))).await;
    eventually("it is deployed", || async { (node.function("f").await["number"] == 2).then_some(()) }).await;
    node.write("notes/go", "");
    node.deliveries_are("done", 8).await;
    let by = |number: usize| if number == first { "python" } else { "node" };
    let mut ran = node.lines_of("notes/log", 8).await;
    ran.sort_by_key(|line| line.chars().last());
    assert_eq!(ran, (0..8).map(|number| format!("{} {number}", by(number))).collect::<Vec<_>>());
    for (number, id) in ids.iter().enumerate() {
        let attempts = node.show(id).await["deliveries"][0]["attempts"].clone();
        let output = json!(format!("\"{}\"", by(number)));
        assert_eq!((attempts.as_array().unwrap().len(), &attempts[0]["output"]), (1, &output), "{attempts}");
    }
    let runtimes = async || {
        let all = node.json(&["functions", "versions", "f", "--json"]).await;
        all.iter().map(|version| version["runtime"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(runtimes().await, ["python", "node"]);
    node.json(&["functions", "rollback", "f", "--json"]).await;
    assert_eq!(node.get("/f").await.text(), "python");
    node.json(&["functions", "promote", "f", "--json"]).await;
    assert_eq!(node.get("/f").await.text(), "node");
    assert_eq!(runtimes().await, ["python", "node"]);
}
