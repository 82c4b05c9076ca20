//! How fast a function answers. Run: cargo nextest run --release -p fnbus-runtimes --run-ignored only --no-capture rate

use std::time::{Duration, Instant};

use crate::{harness::*, provided::PYTHON};
use bus::{outcome::Ending, payload::Form};
use rstest::rstest;
use runtimes::RuntimeKind;

#[rstest]
#[case::python(RuntimeKind::Python, "app.py", "def handler(event, context):\n    return event\n")]
#[case::node(RuntimeKind::Node, "index.js", "exports.handler = async (event) => event\n")]
#[case::provided(RuntimeKind::Provided, "bootstrap", PYTHON)]
#[case::command(RuntimeKind::Command, "run", "#!/bin/sh\ncat\n")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn calls_of_one_instance(#[case] runtime: RuntimeKind, #[case] file: &str, #[case] code: &str) {
    let node = Node::new().of_with(runtime, file, code, |f| {
        f.concurrency = 1;
        if runtime == RuntimeKind::Command {
            f.handler = "./run".into();
        }
    });
    let payload = serde_json::json!({ "text": "x".repeat(1000), "n": 1 }).to_string();
    node.invoke(&payload).await;
    // in a task, as a worker's calls are: the test's own thread would be woken by another one
    let rounds = tokio::spawn(async move {
        for round in 0..3 {
            let (begun, mut calls) = (Instant::now(), 0);
            let mut run = Duration::ZERO;
            while begun.elapsed() < Duration::from_secs(2) {
                let lease = node.lease().await.unwrap();
                let outcome = lease.invoke(invocation(Form::Json, payload.as_bytes())).await.unwrap();
                assert_eq!(outcome.ending, Ending::Ok);
                run += outcome.times.run;
                calls += 1;
            }
            println!("{} round {round}: {} calls/s, {:?} each", runtime.as_str(), calls / 2, run / calls);
        }
    });
    rounds.await.unwrap();
}
