//! Commands, from end to end.

use fnbus_tests::{Node, Project};
use serde_json::json;

async fn command(handler: &str, script: &str) -> Node {
    Project::new()
        .program("f/report.sh", &format!("#!/bin/sh\n{script}\n"))
        .config(&format!("[functions.f]\nruntime = 'command'\nhandler = \"{handler}\"\nretry = {{ attempts = 1 }}"))
        .config("[triggers.f]\nhttp = 'POST /f'\npayload = 'body'\nto = 'f'\n")
        .config("[triggers.later]\nhttp = 'POST /later'\npayload = 'body'\nmode = 'async'\nto = 'f'\n")
        .start()
        .await
}

#[tokio::test]
async fn a_command_answers_with_what_it_prints() {
    let node = command("./report.sh --daily", "echo \"working\" >&2; printf '%s ' \"$1\"; cat").await;
    assert_eq!(node.post("/f", "{\"n\":1}").await.text(), "--daily {\"n\":1}");
    let id = node.accepted("/later", "7").await;
    let event = node.event_is(&id, "done").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&attempt["output"], &attempt["log"]), (&json!("--daily 7"), &json!("working\n")));
    assert_eq!(node.function("f").await["warm"], 0);
}

#[tokio::test]
async fn a_command_that_fails_is_a_dead_letter_with_its_last_words() {
    let node = command("./report.sh", "echo 'no such customer' >&2; exit 4").await;
    let id = node.accepted("/later", "7").await;
    let event = node.event_is(&id, "dead").await;
    let error = &event["deliveries"][0]["attempts"][0]["error"];
    assert_eq!(error, &json!({ "kind": "Runtime.ExitError", "message": "exit status 4: no such customer" }));
}

#[tokio::test]
async fn a_running_command_ends_with_the_bus_and_is_run_again() {
    let mut node = command("./report.sh", "[ -e \"$HOME/../../../go\" ] || exec sleep 1000").await;
    let id = node.accepted("/later", "7").await;
    node.event_is(&id, "running").await;
    node.kill();
    node.nothing_runs().await;
    node.write(".fnbus/go", "");
    node.restart().await;
    node.event_is(&id, "done").await;
}

#[test]
fn check_finds_what_is_wrong_with_a_command() {
    for (keys, says) in [
        ("", "[functions.f] has no `handler`"),
        ("handler = './gone.sh'", "there is no ./gone.sh in `f`"),
        ("handler = 'no-such-program-here -x'", "there is no `no-such-program-here` in `f` and none on PATH"),
        ("handler = 'no-such-program-here -x'", "install `no-such-program-here`, put it into the folder"),
        ("handler = \"sh -c 'x\"", "is not a handler"),
        ("handler = 'true'\nwarm = 1", "has no effect on a command"),
    ] {
        let project =
            Project::new().file("f/readme", "").config(&format!("[functions.f]\nruntime = 'command'\n{keys}"));
        let checked = project.check(&[]);
        assert_eq!(checked.code(), 1, "{keys}: {}", checked.all());
        assert!(checked.all().contains(says), "{keys}: {}", checked.all());
    }
    let fine = Project::new().file("f/readme", "").config("[functions.f]\nruntime = 'command'\nhandler = 'true'");
    assert_eq!(fine.check(&[]).code(), 0, "{}", fine.check(&[]).all());
}
