//! Programs that speak the Runtime API, from end to end.

use fnbus_tests::Project;
use serde_json::Value;

const CONFIG: &str = "[functions.f]\nruntime = 'provided'\nretry = { attempts = 1 }\n\
                      [triggers.f]\nhttp = 'POST /f'\npayload = 'body'\nto = 'f'\n";

const BOOTSTRAP: &str = r#"#!/usr/bin/env python3
import http.client, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"
while True:
    api.request("GET", base + "next")
    reply = api.getresponse()
    event, id = reply.read(), reply.headers["Lambda-Runtime-Aws-Request-Id"]
    api.request("POST", base + id + "/response", event)
    api.getresponse().read()
"#;

fn project(bootstrap: &str, mode: u32) -> Project {
    let project = Project::new().file("f/bootstrap", bootstrap).config(CONFIG);
    project.mode("f/bootstrap", mode);
    project
}

#[tokio::test]
async fn a_bootstrap_answers_requests_and_its_bytes_are_not_touched() {
    let node = project(BOOTSTRAP, 0o755).start().await;
    assert_eq!(node.post("/f", "[1]").await.text(), "[1]");
    let invoked = node.fnbus(&["invoke", "f", "-d", "{\"price\": 1.10}"]).await;
    assert_eq!(invoked.stdout.trim_end(), "{\"price\": 1.10}");
    node.kill();
    node.nothing_runs().await;
}

#[tokio::test]
async fn a_bootstrap_that_is_not_executable_is_found_by_check_and_mended_while_the_bus_runs() {
    let project = project(BOOTSTRAP, 0o644);
    let checked = project.check(&[]);
    assert_eq!(checked.code(), 1, "{}", checked.all());
    for words in ["the handler of `f` is not executable", "run: chmod +x "] {
        assert!(checked.all().contains(words), "{}", checked.all());
    }
    project.mode("f/bootstrap", 0o755);
    let node = project.start().await;
    let old = node.function_ready("f").await["version"].clone();
    node.project().mode("f/bootstrap", 0o644);
    let refused = fnbus_tests::eventually("the change is refused", || async {
        let function = node.function("f").await;
        function["refused"].as_str().map(str::to_owned)
    })
    .await;
    assert!(refused.contains("is not executable; run: chmod +x"), "{refused}");
    assert_eq!(node.function("f").await["version"], old);
    assert_eq!(node.post("/f", "1").await.text(), "1", "the version before still serves");
}

#[tokio::test]
async fn a_bootstrap_that_ends_at_once_says_so_in_each_attempt() {
    let node = project("#!/bin/sh\necho 'no licence' >&2\nexit 3\n", 0o755).start().await;
    let answer = node.post("/f", "1").await;
    assert_eq!(answer.status, 502);
    let event = node.show(answer.json::<Value>()["id"].as_str().unwrap()).await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["outcome"], &attempt["error"]["kind"]), (&"init_error".into(), &"Runtime.ExitError".into()));
    assert!(attempt["log"].as_str().unwrap().contains("no licence"), "{attempt}");
}

#[tokio::test]
async fn a_bootstrap_whose_interpreter_is_missing_names_it_and_runs_what_came_when_it_is_mended() {
    let bootstrap = BOOTSTRAP.replace("/usr/bin/env python3", "/opt/none/python9");
    let later = "[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\npayload = 'body'\nto = 'f'\n";
    let node = project(&bootstrap, 0o755).config(later).start().await;
    let says = "names /opt/none/python9 in its first line, which is not there; install it, or correct the line";
    node.says(says).await;
    let id = node.accepted("/later", "[1]").await;
    let event = node.event_is(&id, "dead").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!(
        (&attempt["outcome"], &attempt["error"]["kind"]),
        (&"init_error".into(), &"Runtime.InvalidEntrypoint".into())
    );
    assert!(attempt["error"]["message"].as_str().unwrap().contains(says), "{attempt}");
    node.write("f/bootstrap", BOOTSTRAP);
    node.function_ready("f").await;
    assert_eq!(node.fnbus(&["dead", "redrive", &id]).await.code(), 0);
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["deliveries"][1]["attempts"][0]["output"], "[1]");
}
