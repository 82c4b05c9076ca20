//! Functions for Node.js, from end to end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Project, clients};
use serde_json::{Value, json};

const PRICE: &str = "exports.handler = async (event) => ({ item: event.pathParameters?.item })\n";

fn price() -> Project {
    Project::new()
        .file("price/index.js", PRICE)
        .config("[functions.price]\nruntime = 'node'\n[triggers.price]\nhttp = 'GET /price/{item}'\nto = 'price'\n")
        .config("[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\nto = 'price'\n")
}

#[tokio::test]
async fn a_request_is_answered_by_a_function_for_node_and_an_edit_is_live() {
    let node = price().start().await;
    let answer = node.get("/price/apple").await;
    assert_eq!((answer.status.as_u16(), answer.json::<Value>()), (200, json!({ "item": "apple" })));
    assert_eq!(node.function("price").await["runtime"], "node");
    let old = node.function_ready("price").await["version"].clone();
    node.write("price/index.js", &PRICE.replace("item:", "thing:"));
    fnbus_tests::eventually("the edit serves", || async {
        (node.function("price").await["version"] != old).then_some(())
    })
    .await;
    assert_eq!(node.get("/price/apple").await.json::<Value>(), json!({ "thing": "apple" }));
}

/// A function for Node.js and one that needs nothing but a shell, on a machine with an empty `PATH`.
fn without_path() -> Project {
    let project = price()
        .program("hello/run.sh", "#!/bin/sh\necho hello\n")
        .config("[functions.hello]\nruntime = 'command'\nhandler = './run.sh'\n")
        .config("[triggers.hello]\nhttp = 'GET /hello'\nto = 'hello'\n");
    let path = project.path().join("bin").display().to_string();
    std::fs::create_dir(&path).unwrap();
    project.variable("PATH", &path)
}

#[tokio::test]
async fn without_node_on_the_path_check_and_up_say_what_to_install_and_what_came_runs_once_it_is_there() {
    let path = std::env::var_os("PATH").unwrap();
    let mut nodes = std::env::split_paths(&path).map(|folder| folder.join("node"));
    let node = nodes.find(|file| file.is_file()).expect("these tests need Node.js on PATH");
    let project = without_path();
    let checked = project.check(&[]);
    assert_eq!(checked.code(), 0, "the file is good, this machine is not: {}", checked.all());
    let says = "`price` cannot run on this machine: no Node.js to run it with: `node` does not start (";
    assert!(checked.stderr.contains(says), "{}", checked.all());
    let bus = project.start().await;
    bus.says("`price` cannot serve: Runtime.InvalidConfiguration: no Node.js to run it with").await;
    bus.says("install Node.js 18 or newer, or set FNBUS_NODE to its path").await;
    assert_eq!(bus.function("price").await["state"], "failed");
    assert_eq!(bus.get("/hello").await.text(), "hello\n", "a function that needs no Node.js goes on");
    let id = bus.accepted("/later", "{}").await;
    bus.event_is(&id, "retrying").await;
    std::os::unix::fs::symlink(node, bus.path().join("bin/node")).unwrap();
    bus.event_is(&id, "done").await;
}

#[tokio::test]
async fn a_node_that_is_too_old_is_named_with_its_version() {
    let project = price().program("old-node", "#!/bin/sh\necho '{\"path\":\"/old/node\",\"version\":\"16.20.2\"}'\n");
    let old = project.path().join("old-node").display().to_string();
    let project = project.variable("FNBUS_NODE", &old);
    let says = format!("`{old}` is not a Node.js that works: it is version 16.20.2; install Node.js 18 or newer");
    assert!(project.check(&[]).stderr.contains(&says), "{}", project.check(&[]).all());
    let bus = project.start().await;
    bus.says(&says).await;
    assert_eq!(bus.get("/price/apple").await.status, 502);
}

#[tokio::test]
async fn without_node_the_bus_runs_keeps_what_comes_and_each_call_says_what_to_install() {
    let node = price().variable("FNBUS_NODE", "/no/such/node").start().await;
    let answer = node.get("/price/apple").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let event = node.show(answer.json::<Value>()["id"].as_str().unwrap()).await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!(attempt["outcome"], "init_error", "{event}");
    for word in ["`/no/such/node` does not start", "install Node.js 18 or newer", "FNBUS_NODE"] {
        assert!(attempt["error"]["message"].as_str().unwrap().contains(word), "{attempt}");
    }
    let id = node.accepted("/later", "{}").await;
    node.event_is(&id, "retrying").await;
}

#[tokio::test]
async fn a_newer_node_runs_in_the_memory_there_is_by_default_and_refuses_callbacks_as_aws_does() {
    let Some(clients) = clients() else { return };
    let node = Project::new()
        .variable("FNBUS_NODE", &clients.join("node/bin/node").display().to_string())
        .file("new/index.js", "exports.handler = async () => process.version;\n")
        .file("old/index.js", "exports.handler = (event, context, callback) => callback(null, 1);\n")
        .config("[functions.new]\nruntime = 'nodejs24.x'\n[functions.old]\nruntime = 'nodejs24.x'\n")
        .config("[triggers.new]\nhttp = 'GET /new'\nto = 'new'\n[triggers.old]\nhttp = 'GET /old'\nto = 'old'\n")
        .start()
        .await;
    node.function_ready("new").await;
    assert!(node.get("/new").await.text().starts_with("v24."), "{}", node.said());
    node.says("Runtime.CallbackHandlerDeprecated: index.handler takes a callback").await;
    assert_eq!(node.get("/old").await.status, 502);
}

#[tokio::test]
async fn a_newer_node_may_have_worker_threads_in_the_memory_there_is_by_default() {
    let Some(clients) = clients() else { return };
    let code = "const { Worker } = require('node:worker_threads');\n\
                exports.handler = () => new Promise((done) => new Worker(\
                'require(\"node:worker_threads\").parentPort.postMessage(process.version)', { eval: true }).on('message', done));\n";
    let newer = clients.join("node/bin/node").display().to_string();
    let node = price().file("price/index.js", code).variable("FNBUS_NODE", &newer).start().await;
    if node.enforces("more memory").await {
        let answer = node.get("/price/apple").await;
        assert!(answer.status == 200 && answer.text().starts_with('v'), "{}: {}", answer.status, answer.text());
    }
}
