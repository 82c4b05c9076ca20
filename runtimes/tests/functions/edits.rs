//! Edits of code: live when they work, without effect when they do not.

use std::{fs, time::Duration};

use crate::harness::*;
use bus::presence::FunctionState as State;
use bus::{outcome::Ending, payload::Form};

fn returning(value: &str) -> String {
    format!("def handler(event, context):\n    return {value}\n")
}

#[tokio::test]
async fn an_edit_is_live_and_ends_the_idle_instances_of_the_old_version() {
    let node = Node::new().function(&returning("1"));
    assert_eq!(text(&node.invoke("0").await), "1");
    let old = node.status().version;
    let edited = std::time::Instant::now();
    node.write("app.py", &returning("2"));
    let status = node.until(|s| s.version != old).await;
    println!("live after {:?}", edited.elapsed());
    assert_eq!(status.warm, 1, "the instance that showed that it works serves");
    assert_eq!(text(&node.invoke("0").await), "2");
}

#[tokio::test]
async fn a_broken_edit_changes_nothing_and_says_why_until_it_is_mended() {
    let node = Node::new().function(&returning("1"));
    assert_eq!(text(&node.invoke("0").await), "1");
    node.write("app.py", "def handler(:\n");
    let status = node.until(|s| s.refused.is_some()).await;
    assert!(status.refused.unwrap().contains("app.py:1"));
    assert_eq!(status.state, State::Ready);
    assert_eq!(text(&node.invoke("0").await), "1");
    node.write("app.py", &returning("1"));
    node.until(|s| s.refused.is_none()).await;
}

#[tokio::test]
async fn what_runs_finishes_on_the_version_it_began_with() {
    let code = "import os, time\nX = 1\ndef handler(event, context):\n    open(event + '.begun', 'w')\n    while not os.path.exists(event): time.sleep(0.005)\n    import late\n    return [X, late.X]\n";
    let node = Node::new();
    node.write("late.py", "X = 1\n");
    let node = node.function(code);
    let path = serde_json::to_string(&node.note()).unwrap();
    let lease = node.lease().await.unwrap();
    let old = lease.version();
    let running = tokio::spawn(lease.invoke(invocation(Form::Json, path.as_bytes())));
    until(|| node.note().with_extension("begun").exists().then_some(())).await;
    node.write("late.py", "X = 2\n");
    node.until(|s| s.version.as_deref() != Some(&*old)).await;
    fs::write(node.note(), "").unwrap();
    let outcome = running.await.unwrap().unwrap();
    assert_eq!((text(&outcome), &outcome.version), ("[1,1]", &old));
    assert_eq!(text(&node.invoke(&path).await), "[1,2]");
}

#[tokio::test]
async fn a_missing_folder_is_a_failure_that_ends_when_it_appears() {
    let node = Node::new().function_with("", |f| f.timeout = Duration::from_secs(5));
    fs::remove_dir_all(node.code()).unwrap();
    let outcome = node.invoke("0").await;
    assert_eq!(outcome.ending, Ending::InitError, "{outcome:?}");
    node.write("app.py", &returning("3"));
    node.until(|s| s.state == State::Ready).await;
    assert_eq!(text(&node.invoke("0").await), "3");
}

#[tokio::test]
async fn a_call_to_a_failed_function_tries_again() {
    let node = Node::with(|s| s.watch = false).function("import nothing_like_it\n");
    assert_eq!(node.invoke("0").await.ending, Ending::InitError);
    assert!(matches!(node.status().state, State::Failed { .. }));
    node.write("app.py", &returning("4"));
    assert_eq!(text(&node.invoke("0").await), "4");
}

#[tokio::test]
async fn limits_apply_to_living_instances_and_an_environment_makes_a_version() {
    let mut node = Node::new().function("import os\ndef handler(e, c): return [os.getpid(), os.environ.get('X')]\n");
    let first = node.invoke("0").await;
    node.reconfigure(|f| (f.concurrency, f.warm) = (7, 1));
    assert_eq!(node.functions.concurrency(&name()), Some(7));
    assert_eq!(node.invoke("0").await.output, first.output, "the instance was replaced");
    node.reconfigure(|f| drop(f.env.insert("X".into(), plain("y"))));
    node.until(|s| s.version.as_deref() != Some(&*first.version)).await;
    assert!(text(&node.invoke("0").await).ends_with("\"y\"]"));
}
