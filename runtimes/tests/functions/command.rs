//! Commands: the event on stdin, the result on stdout, the verdict in the exit code.

use std::{fs, time::Duration};

use bus::{
    outcome::{Ending, Start},
    payload::Form,
};
use rstest::rstest;
use runtimes::{FunctionConfig, RuntimeKind};

use crate::harness::*;

fn command(handler: &str, script: &str) -> Node {
    command_with(handler, script, |_| {})
}

fn command_with(handler: &str, script: &str, change: impl FnOnce(&mut FunctionConfig)) -> Node {
    Node::new().of_with(RuntimeKind::Command, "run.sh", &format!("#!/bin/sh\n{script}\n"), |f| {
        f.handler = handler.into();
        change(f);
    })
}

#[tokio::test]
async fn the_event_comes_on_stdin_and_what_is_printed_is_the_result() {
    let node = command("./run.sh --daily 'two words'", "echo \"$# $2\" >&2; echo \"about to\" >&2; cat");
    let outcome = node.invoke_as(Form::Bytes, b"\xff\x00 {\"n\": 1.10}").await;
    assert_eq!((outcome.ending, &outcome.output[..]), (Ending::Ok, &b"\xff\x00 {\"n\": 1.10}"[..]), "{outcome:?}");
    assert_eq!(outcome.log, "2 two words\nabout to\n");
    assert_eq!(outcome.start, Start::Cold);
    assert!(outcome.times.start > Duration::ZERO);
}

#[tokio::test]
async fn each_invocation_has_its_own_process_and_nothing_is_left_in_between() {
    let node = command("run.sh", "echo $$");
    let (first, second) = (node.invoke("1").await, node.invoke("1").await);
    assert_ne!(first.output, second.output);
    let status = node.status();
    assert_eq!((status.warm, status.busy, status.cold_starts, status.invocations), (0, 0, 2, 2), "{status:?}");
}

#[tokio::test]
async fn no_more_run_at_once_than_the_cap() {
    let node = Node::new();
    let note = node.note().display().to_string();
    let node = node.of_with(
        RuntimeKind::Command,
        "run.sh",
        &format!("#!/bin/sh\necho + >> {note}\nsleep 0.05\necho - >> {note}\n"),
        |f| {
            (f.handler, f.concurrency) = ("run.sh".into(), 2);
        },
    );
    let calls = (0..10).map(|_| {
        let node = node.clone();
        tokio::spawn(async move { node.invoke("1").await.ending })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), Ending::Ok);
    }
    let (mut now, mut most) = (0, 0);
    for mark in fs::read_to_string(node.note()).unwrap().lines() {
        now += if mark == "+" { 1 } else { -1 };
        most = most.max(now);
    }
    assert!((1..=2).contains(&most), "{most} ran at once");
}

#[tokio::test]
async fn a_program_of_the_path_serves_when_the_code_has_none_of_its_name() {
    let node = command("sh -c 'echo \"$1 $AWS_LAMBDA_FUNCTION_NAME\"' sh word", "");
    assert_eq!(text(&node.invoke("1").await), "word f\n");
    let node = Node::new().of_with(RuntimeKind::Command, "sh", "#!/bin/sh\necho mine\n", |f| f.handler = "sh".into());
    assert_eq!(text(&node.invoke("1").await), "mine\n", "the code comes first");
}

#[tokio::test]
async fn an_event_nobody_reads_is_fine_and_a_large_one_arrives_whole() {
    let large = format!("\"{}\"", "x".repeat(3_000_000));
    assert_eq!(text(&command("run.sh", "exec 0<&-; sleep 0.05; echo done").invoke(&large).await), "done\n");
    assert_eq!(command("run.sh", "cat").invoke(&large).await.output.len(), large.len());
    assert_eq!(text(&command("run.sh", "wc -c").invoke_as(Form::Unknown, b"").await).trim(), "0");
}

#[tokio::test]
async fn an_exit_code_is_an_error_with_the_last_words() {
    let outcome = command("run.sh", "echo half; echo first >&2; echo 'no such customer' >&2; exit 4").invoke("1").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Error, "Runtime.ExitError"));
    assert_eq!(message(&outcome), "exit status 4: no such customer");
    assert!(text(&outcome).contains("no such customer"), "{}", text(&outcome));
    assert_eq!(message(&command("run.sh", "exit 1").invoke("1").await), "exit status 1");
}

#[tokio::test]
async fn a_signal_is_a_crash() {
    let outcome = command_with("run.sh", "kill -9 $$", |f| f.memory = 2048).invoke("1").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Crash, "Runtime.ExitError"));
    assert!(message(&outcome).ends_with("signal 9; see in its log what it printed last"), "{}", message(&outcome));
}

#[rstest]
#[case::at_once("head -c 7000000 /dev/zero")]
#[case::without_end("cat /dev/zero")]
#[tokio::test]
async fn a_result_over_the_limit_ends_the_command(#[case] script: &str) {
    let outcome = command("run.sh", script).invoke("1").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::TooLarge, "Function.ResponseSizeTooLarge"));
}

#[rstest]
#[case::dies_of_term("echo begun >&2; sleep 60")]
#[case::ignores_term("trap '' TERM; echo begun >&2; while true; do sleep 0.1; done")]
#[tokio::test]
async fn a_command_over_its_timeout_is_stopped(#[case] script: &str) {
    let node = command_with("run.sh", script, |f| f.timeout = Duration::from_millis(300));
    let outcome = node.invoke("1").await;
    assert_eq!((outcome.ending, outcome.log.as_str()), (Ending::Timeout, "begun\n"));
    assert_eq!(message(&outcome), "Task timed out after 0.30 seconds; raise its `timeout`, or make it faster");
}

#[tokio::test]
async fn what_it_left_running_holds_up_nobody_and_is_ended() {
    let node = command("run.sh", "sleep 1000 & echo $!");
    let outcome = node.invoke("1").await;
    assert_eq!(outcome.ending, Ending::Ok);
    let pid = text(&outcome).trim().to_owned();
    until(|| (!is_running(&pid)).then_some(())).await;
}

#[tokio::test]
async fn it_knows_its_invocation_by_the_environment() {
    let node = command("run.sh", "env");
    let mut asked = invocation(Form::Json, b"{}");
    asked.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let id = asked.request_id;
    let outcome = node.lease().await.unwrap().invoke(asked).await.unwrap();
    let env = text(&outcome);
    for line in [
        &format!("AWS_LAMBDA_REQUEST_ID={id}"),
        "FNBUS_EVENT_ID=event-1",
        "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "AWS_LAMBDA_FUNCTION_NAME=f",
        "TZ=:UTC",
    ] {
        assert!(env.lines().any(|l| l == line), "no {line} in {env}");
    }
    let deadline = env.lines().find_map(|line| line.strip_prefix("AWS_LAMBDA_DEADLINE_MS=")).unwrap();
    let left = deadline.parse::<i64>().unwrap() - chrono::Utc::now().timestamp_millis();
    assert!((20_000..=30_000).contains(&left), "{left} ms are left");
    assert!(!env.contains("CARGO"), "{env}");
}

#[rstest]
#[case::not_there("./gone.sh", "there is no `gone.sh` in ")]
#[case::nowhere("no-such-program-here", "and none on PATH")]
#[case::not_executable("app.txt", "is not executable; run: chmod +x ")]
#[case::an_open_quote("sh -c 'x", "a quote that is not closed")]
#[tokio::test]
async fn a_command_that_cannot_be_run_says_why(#[case] handler: &str, #[case] says: &str) {
    let node = Node::new();
    node.write("app.txt", "text");
    let node = node.configured(RuntimeKind::Command, |f| f.handler = handler.into());
    let outcome = node.invoke("1").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::InitError, "Runtime.InvalidEntrypoint"), "{outcome:?}");
    assert!(message(&outcome).contains(says), "{}", message(&outcome));
}
