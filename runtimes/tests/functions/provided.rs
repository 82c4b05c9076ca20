//! Programs that speak the Runtime API: its rules, and bootstraps that do not come up.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use bus::{
    Outcome,
    outcome::{Ending, Start},
    payload::Form,
};
use rstest::rstest;
use runtimes::RuntimeKind;
use tokio::task::JoinHandle;

use crate::{client::*, harness::*};

/// A bootstrap of a few lines with Python's standard library alone, as on AWS.
pub(crate) const PYTHON: &str = r#"#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"
print("loaded", flush=True)
while True:
    api.request("GET", base + "next")
    reply = api.getresponse()
    event, id = json.loads(reply.read()), reply.headers["Lambda-Runtime-Aws-Request-Id"]
    print("got", event, flush=True)
    if event == "exit":
        os._exit(7)
    result = {"pid": os.getpid(), "event": event}
    api.request("POST", base + id + "/response", json.dumps(result))
    api.getresponse().read()
    if event == "last":
        os._exit(0)
"#;

async fn invoked(played: &Played) -> (JoinHandle<Outcome>, String) {
    let node = played.node.clone();
    let running = tokio::spawn(async move { node.invoke("{\"n\": 1.10}").await });
    let told = played.next().await;
    assert_eq!(told.body, b"{\"n\": 1.10}", "the payload is not touched");
    (running, told.header("lambda-runtime-aws-request-id").unwrap().to_owned())
}

#[tokio::test]
async fn a_bootstrap_serves_many_invocations_and_is_known_by_what_it_prints() {
    let node = Node::new().of(RuntimeKind::Provided, "bootstrap", PYTHON);
    let first = node.invoke("1").await;
    assert_eq!((first.ending, first.start), (Ending::Ok, Start::Cold), "{first:?}");
    assert!(first.times.start > Duration::ZERO && first.times.init > Duration::ZERO, "{:?}", first.times);
    assert!(first.log.contains("loaded\n") && first.log.contains("got 1\n"), "{}", first.log);
    let second = node.invoke("1").await;
    assert_eq!((second.start, &second.output), (Start::Warm, &first.output), "another process answered");
    assert_eq!(second.log, "got 1\n");
}

#[tokio::test]
async fn a_bootstrap_that_ends_fails_the_invocation_it_had_and_no_other() {
    let node = Node::new().of(RuntimeKind::Provided, "bootstrap", PYTHON);
    let outcome = node.invoke("\"exit\"").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::Crash, "Runtime.ExitError"));
    assert!(message(&outcome).ends_with("exit status 7; see in its log what it printed last"), "{}", message(&outcome));
    for _ in 0..3 {
        assert_eq!(node.invoke("\"last\"").await.ending, Ending::Ok);
    }
    assert_eq!(node.invoke("1").await.ending, Ending::Ok);
}

#[tokio::test]
async fn next_says_all_that_clients_need() {
    let played = Played::new(LONG).await;
    let node = played.node.clone();
    let mut asked = invocation(Form::Json, b"{}");
    asked.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
    let id = asked.request_id.to_string();
    let running = tokio::spawn(async move { node.lease().await.unwrap().invoke(asked).await });
    let told = played.next().await;
    for (header, value) in [
        ("content-type", "application/json"),
        ("lambda-runtime-aws-request-id", &id),
        ("lambda-runtime-invocation-id", &id),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:f"),
        ("lambda-runtime-trace-id", "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"),
    ] {
        assert_eq!(told.header(header), Some(value));
    }
    let deadline: i64 = told.header("lambda-runtime-deadline-ms").unwrap().parse().unwrap();
    let left = deadline - chrono::Utc::now().timestamp_millis();
    assert!((20_000..=30_000).contains(&left), "{left} ms are left");
    // asked again while it runs, it is the same one
    assert_eq!(played.next().await.header("lambda-runtime-aws-request-id"), Some(&*id));
    let accepted = played.respond(&id, "", b"{\"x\": 1.10, \"nan\": NaN}").await;
    assert_eq!((accepted.status, accepted.body), (202, br#"{"status":"OK"}"#.to_vec()));
    assert_eq!(text(&running.await.unwrap().unwrap()), "{\"x\": 1.10, \"nan\": NaN}", "the result is not touched");
}

#[tokio::test]
async fn an_answer_at_the_wrong_time_or_for_another_invocation_is_refused() {
    let played = Played::new(LONG).await;
    assert_eq!(played.respond("x", "", b"1").await.kind(), (403, "InvalidStateTransition".into()));
    let (running, id) = invoked(&played).await;
    let echo = "Lambda-Runtime-Invocation-Id: 00000000-0000-0000-0000-000000000000\r\n";
    assert_eq!(played.respond("x", "", b"1").await.kind(), (400, "InvalidRequestID".into()));
    assert_eq!(played.respond(&id, echo, b"1").await.kind(), (410, "ErrorRuntimeInvokeTimeout".into()));
    let init_error = played.send("POST", "/2018-06-01/runtime/init/error", "", b"{}").await.unwrap();
    assert_eq!(init_error.kind(), (403, "InvalidStateTransition".into()));
    assert_eq!(played.respond(&id, &echo.replace("00000000-0000-0000-0000-000000000000", &id), b"1").await.status, 202);
    assert_eq!(text(&running.await.unwrap()), "1");
    assert_eq!(played.respond(&id, "", b"2").await.kind(), (403, "InvalidStateTransition".into()));
}

#[tokio::test]
async fn a_response_over_the_limit_is_refused_and_the_caller_told() {
    let played = Played::new(LONG).await;
    let (running, id) = invoked(&played).await;
    let refused = played.respond(&id, "", &vec![b'x'; 6 * 1024 * 1024 + 101]).await;
    assert_eq!(refused.kind(), (413, "RequestEntityTooLarge".into()));
    let outcome = running.await.unwrap();
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::TooLarge, "Function.ResponseSizeTooLarge"));
    let (running, id) = invoked(&played).await;
    assert_eq!(played.respond(&id, "", &vec![b'x'; 6 * 1024 * 1024 + 100]).await.status, 202);
    assert_eq!(running.await.unwrap().ending, Ending::Ok, "the instance lives on, and the limit itself is allowed");
}

#[tokio::test]
async fn a_streamed_response_is_put_together_and_its_trailers_are_heard() {
    const STREAMING: &str =
        "Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
    let played = Played::new(LONG).await;
    let stream = async |id: &str, chunks: &str| {
        let head = format!("POST {} HTTP/1.1\r\nHost: x\r\n{STREAMING}\r\n", response(id));
        played.raw(format!("{head}{chunks}").as_bytes(), false).await.unwrap().status
    };
    let (running, id) = invoked(&played).await;
    assert_eq!(stream(&id, "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").await, 202);
    assert_eq!(text(&running.await.unwrap()), "abcde");
    let (running, id) = invoked(&played).await;
    // {"errorMessage":"late","errorType":"Late"}
    let body = "eyJlcnJvck1lc3NhZ2UiOiJsYXRlIiwiZXJyb3JUeXBlIjoiTGF0ZSJ9";
    let trailers = format!(
        "Lambda-Runtime-Function-Error-Type: Runtime.StreamError\r\nLambda-Runtime-Function-Error-Body: {body}\r\n"
    );
    assert_eq!(stream(&id, &format!("3\r\nabc\r\n0\r\n{trailers}\r\n")).await, 202);
    let outcome = running.await.unwrap();
    assert_eq!((outcome.ending, kind(&outcome), message(&outcome)), (Ending::Error, "Late", "late"));
}

#[tokio::test]
async fn a_response_that_is_cut_short_is_an_answer_that_cannot_be_used() {
    let played = Played::new(LONG).await;
    let (running, id) = invoked(&played).await;
    let head = format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", response(&id));
    let answer = played.raw(head.as_bytes(), true).await.unwrap();
    assert_eq!(answer.kind(), (400, "TruncatedHTTPRequest".into()));
    let outcome = running.await.unwrap();
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::BadOutput, "Runtime.TruncatedResponse"));
}

#[tokio::test]
async fn an_error_of_init_is_told_with_its_own_words() {
    let played = Played::new(LONG).await;
    let node = played.node.clone();
    let waiting = tokio::spawn(async move { node.invoke("1").await });
    played.node.until(|f| f.waiting == 1).await;
    let body = br#"{"errorMessage":"no model","errorType":"Runtime.NoModel","stackTrace":[]}"#;
    let posted = played.send("POST", "/2018-06-01/runtime/init/error", "", body).await.unwrap();
    assert_eq!(posted.status, 202);
    let outcome = waiting.await.unwrap();
    assert_eq!((outcome.ending, kind(&outcome), message(&outcome)), (Ending::InitError, "Runtime.NoModel", "no model"));
    assert_eq!(&outcome.output[..], body);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_are_said_so() {
    let played = Played::new(LONG).await;
    for (method, path, status) in [
        ("GET", "/2018-06-01/runtime/nope", 404),
        ("GET", "/2020-01-01/extension/event/next", 404),
        ("POST", NEXT, 405),
        ("GET", "/2018-06-01/ping", 200),
    ] {
        assert_eq!(played.send(method, path, "", b"").await.unwrap().status, status, "{method} {path}");
    }
}

#[rstest]
#[case::not_executable("#!/bin/sh\n", 0o644, "Runtime.InvalidEntrypoint", "is not executable; run: chmod +x ")]
#[case::no_interpreter(
    "#!/opt/none/python9\n",
    0o755,
    "Runtime.InvalidEntrypoint",
    "/opt/none/python9 in its first line"
)]
#[case::windows("#!/bin/sh\r\n", 0o755, "Runtime.InvalidEntrypoint", "Unix line ends")]
#[case::ends("#!/bin/sh\necho sorry >&2\nexit 3\n", 0o755, "Runtime.ExitError", "exit status 3")]
#[tokio::test]
async fn a_bootstrap_that_does_not_come_up_says_why(
    #[case] code: &str,
    #[case] mode: u32,
    #[case] kind_: &str,
    #[case] says: &str,
) {
    let node = Node::new();
    node.write("bootstrap", code);
    fs::set_permissions(node.code().join("bootstrap"), fs::Permissions::from_mode(mode)).unwrap();
    let node = node.configured(RuntimeKind::Provided, |_| {});
    let outcome = node.invoke("1").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::InitError, kind_), "{outcome:?}");
    assert!(message(&outcome).contains(says), "{}", message(&outcome));
    assert_eq!(outcome.log.contains("sorry"), says.contains("exit"), "{}", outcome.log);
}

#[tokio::test]
async fn a_missing_bootstrap_is_looked_for_where_its_author_would_put_it() {
    let node = Node::new().configured(RuntimeKind::Provided, |_| {});
    let outcome = node.invoke("1").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::InitError, "Runtime.InvalidEntrypoint"));
    let says = format!("there is no `bootstrap` in {}", node.code().display());
    assert!(message(&outcome).starts_with(&says), "{}", message(&outcome));
}

#[tokio::test]
async fn a_bootstrap_sees_lambdas_environment_and_no_more_descriptors_than_its_own() {
    let code = "#!/bin/sh\nenv > $NOTE; ls /proc/self/fd | wc -l >> $NOTE~; mv $NOTE~ $NOTE.fds; exec sleep 1000\n";
    let node = Node::new();
    let note = node.note();
    let node = node.of_with(RuntimeKind::Provided, "bootstrap", code, |f| {
        f.env.insert("NOTE".into(), plain(&note.display().to_string()));
    });
    let fds = until(|| fs::read_to_string(node.note().with_extension("fds")).ok()).await;
    assert_eq!(fds.trim(), "4", "descriptors 0 to 2, and the one that lists them");
    let env = fs::read_to_string(&note).unwrap();
    for name in
        ["AWS_LAMBDA_RUNTIME_API=127.0.0.1:", "AWS_LAMBDA_FUNCTION_NAME=f", "_HANDLER=bootstrap", "LAMBDA_TASK_ROOT="]
    {
        assert!(env.lines().any(|line| line.starts_with(name)), "no {name} in {env}");
    }
    for name in ["AWS_EXECUTION_ENV", "CARGO", "AWS_LAMBDA_MAX_CONCURRENCY"] {
        assert!(!env.lines().any(|line| line.starts_with(name)), "{name} in {env}");
    }
}
