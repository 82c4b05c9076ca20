//! NATS is transport, the log is the truth: NATS may be killed, and what it stores may be lost.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::time::{Duration, Instant};

use fnbus_tests::{Nats, Node, Project, eventually};
use rustix::process::Signal;
use serde_json::json;

const GATED: &str = "import os, time\ndef handler(event, context):\n    \
                     while not os.path.exists(os.environ['GO']): time.sleep(0.01)\n    \
                     os.write(LOG, (context.event_id + '\\n').encode())\n\
                     LOG = os.open(os.environ['LOG'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n";

/// A node whose function waits for the file `go` and writes the ids of the events it ran to `ran`.
async fn gated() -> Node {
    gate(Project::new()).start().await
}

/// The same on the NATS of somebody else.
async fn gated_on(url: &str) -> Node {
    gate(Project::new().argument("--nats").argument(url)).start().await
}

fn gate(project: Project) -> Project {
    let path = |name: &str| project.path().join(name).display().to_string();
    let keys = format!("concurrency = 2\nenv = {{ GO = '{}', LOG = '{}' }}", path("go"), path("notes/ran"));
    project.function_with("f", GATED, &keys).config("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n")
}

async fn accept(node: &Node, number: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..number {
        ids.push(node.accepted("/jobs", n.to_string()).await);
    }
    ids
}

/// Each of these events ran, and none more often than its attempts say.
async fn all_ran(node: &Node, ids: &[String]) {
    node.deliveries_are("done", ids.len() as u64).await;
    let ran = node.read("notes/ran");
    for id in ids {
        assert!(ran.lines().any(|line| line == id), "{id} is done and did not run");
    }
    assert_eq!(ran.lines().count(), ids.len(), "something ran twice");
}

#[tokio::test]
async fn accepting_goes_on_without_nats_and_everything_runs_when_it_is_back() {
    let node = gated().await;
    let mut ids = accept(&node, 20).await;
    node.deliveries_are("running", 2).await;
    for _ in 0..2 {
        let server = node.nats_server().await;
        server.kill();
        ids.extend(accept(&node, 20).await);
    }
    node.write("go", "");
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn calls_are_answered_while_nats_is_away_and_what_follows_from_them_waits_for_it() {
    let mut nats = Nats::start(&["-js"]).await;
    let node = Project::new()
        .argument("--nats")
        .argument(&nats.url)
        .function_with("f", "def handler(event, context): return 'here'\n", "then = ['g']")
        .function("g", "def handler(event, context): return event\n")
        .config("[triggers.f]\nhttp = 'GET /f'\nto = 'f'\n")
        .start()
        .await;
    assert_eq!(node.get("/f").await.text(), "here");
    node.deliveries_are("done", 2).await;
    nats.kill();
    eventually("it is noticed", || async {
        (node.json(&["node", "--json"]).await[0]["nats_connected"] == false).then_some(())
    })
    .await;
    assert_eq!(node.get("/f").await.text(), "here");
    node.deliveries_are("done", 3).await;
    nats.restart();
    node.deliveries_are("done", 4).await;
}

#[tokio::test]
async fn a_store_that_is_lost_between_two_runs_costs_nothing() {
    let mut node = gated().await;
    let mut ids = accept(&node, 30).await;
    node.deliveries_are("running", 2).await;
    node.kill();
    node.nothing_runs().await;
    std::fs::remove_dir_all(node.data().join("nats/store")).unwrap();
    node.restart().await;
    ids.extend(accept(&node, 5).await);
    node.write("go", "");
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn a_store_that_is_lost_under_a_running_bus_costs_nothing() {
    let node = gated().await;
    let mut ids = accept(&node, 30).await;
    node.deliveries_are("running", 2).await;
    let server = node.nats_server().await;
    std::fs::remove_dir_all(node.data().join("nats/store")).unwrap();
    server.kill();
    ids.extend(accept(&node, 5).await);
    node.write("go", "");
    all_ran(&node, &ids).await;
}

/// Waits until all of these are in the stream.
async fn stored(nats: &Nats, messages: u64) {
    let jetstream = nats.jetstream().await;
    eventually(&format!("{messages} messages are stored"), || async {
        let stream = jetstream.get_stream("FNBUS_DELIVER").await.ok()?;
        (stream.cached_info().state.messages >= messages).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_tail_that_the_stream_lost_is_published_again_though_others_were_published_behind_it() {
    let mut nats = Nats::start(&["-js"]).await;
    let node = gated_on(&nats.url).await;
    let mut ids = accept(&node, 30).await;
    stored(&nats, 30).await;
    nats.kill();
    nats.cut("FNBUS_DELIVER");
    // enough to lie behind the end that was lost
    ids.extend(accept(&node, 30).await);
    nats.restart();
    node.says("NATS lost what was on its way").await;
    node.write("go", "");
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn what_somebody_does_to_the_stream_and_its_consumers_is_noticed_and_mended() {
    let nats = Nats::start(&["-js"]).await;
    let node = gated_on(&nats.url).await;
    let mut ids = accept(&node, 20).await;
    stored(&nats, 20).await;
    let jetstream = nats.jetstream().await;
    let stream = jetstream.get_stream("FNBUS_DELIVER").await.unwrap();
    // messages gone, the consumer gone, and a stream that would forget the rest
    stream.purge().await.unwrap();
    stream.delete_consumer("worker_python").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_age = Duration::from_secs(100);
    config.max_messages = 3;
    jetstream.update_stream(&config).await.unwrap();
    ids.extend(accept(&node, 5).await);
    node.write("go", "");
    all_ran(&node, &ids).await;
    node.says("its settings are put back").await;
    let restored = jetstream.get_stream("FNBUS_DELIVER").await.unwrap();
    assert_eq!(
        (restored.cached_info().config.max_messages, restored.cached_info().config.max_age),
        (-1, Duration::ZERO)
    );

    jetstream.delete_stream("FNBUS_DELIVER").await.unwrap();
    ids.extend(accept(&node, 5).await);
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn a_full_jetstream_holds_up_nothing_but_what_it_has_no_room_for() {
    let nats = Nats::with("jetstream { max_file_store: 4MB }").await;
    let project = gate(Project::new().argument("--nats").argument(&nats.url))
        .config("[triggers.notes]\nhttp = 'POST /notes'\nmode = 'async'\nto = 'file:out/notes.jsonl'\n");
    let node = project.start().await;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(node.accepted("/jobs", vec![b'0' + n % 10; 300_000]).await);
    }
    node.says("JetStream did not take deliveries").await;
    let note = node.accepted("/notes", "{}").await;
    node.event_is(&note, "done").await;
    node.write("go", "");
    node.deliveries_are("done", 31).await;
    assert_eq!(node.read("notes/ran").lines().count(), ids.len());
    node.says("JetStream takes deliveries again").await;
}

#[tokio::test]
async fn what_needs_no_nats_goes_on_without_it() {
    let mut nats = Nats::start(&["-js"]).await;
    let node = Project::new()
        .argument("--nats")
        .argument(&nats.url)
        .config("[triggers.notes]\nhttp = 'POST /notes'\nmode = 'async'\nto = 'file:out/notes.jsonl'\n")
        .start()
        .await;
    nats.kill();
    let id = node.accepted("/notes", "{}").await;
    node.event_is(&id, "done").await;
}

#[tokio::test]
async fn a_nats_that_stalls_is_waited_out() {
    let node = gated().await;
    let mut ids = accept(&node, 20).await;
    node.deliveries_are("running", 2).await;
    let server = node.nats_server().await;
    server.signal(Signal::STOP);
    ids.extend(accept(&node, 400).await);
    server.signal(Signal::CONT);
    node.write("go", "");
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn a_node_with_something_to_do_starts_without_nats_and_goes_on_when_it_is_there() {
    let mut nats = Nats::start(&["-js"]).await;
    let mut node = gated_on(&nats.url).await;
    let mut ids = accept(&node, 5).await;
    node.kill();
    nats.kill();
    node.restart().await;
    node.says("accepting begins without it").await;
    assert_eq!(node.json(&["node", "--json"]).await[0]["nats_connected"], false);
    ids.extend(accept(&node, 5).await);
    nats.restart();
    node.write("go", "");
    node.deliveries_are("done", 10).await;
    let ran = node.read("notes/ran");
    assert!(ids.iter().all(|id| ran.lines().any(|line| line == id)), "all of them ran");
}

#[tokio::test]
async fn a_server_of_our_own_that_does_not_end_is_killed() {
    let node = Project::new().start().await;
    node.nats_server().await.signal(Signal::STOP);
    let begun = Instant::now();
    assert!(node.stop().await.success());
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    node.nothing_runs().await;
}

#[tokio::test]
async fn a_server_of_our_own_that_ends_again_and_again_is_started_until_it_stays() {
    // its first start works, the next three do not
    const FLAKY: &str = "#!/bin/sh\necho >> starts\n[ $(wc -l < starts) -gt 1 ] && [ $(wc -l < starts) -lt 5 ] && exit 3\nexec \"$REAL\" \"$@\"\n";
    let project = Project::new();
    let folder = project.path().display().to_string();
    let real = std::env::var("NATS_SERVER").unwrap_or_else(|_| "nats-server".to_owned());
    let project = gate(project).program("flaky", &FLAKY.replace("starts", &format!("{folder}/starts")));
    let node = project.variable("NATS_SERVER", &format!("{folder}/flaky")).variable("REAL", &real).start().await;
    let mut ids = accept(&node, 5).await;
    node.nats_server().await.kill();
    ids.extend(accept(&node, 5).await);
    node.lines_of("starts", 5).await;
    node.write("go", "");
    all_ran(&node, &ids).await;
}

#[tokio::test]
async fn bodies_over_what_a_server_carries_come_whole_in_calls_and_deliveries() {
    let nats = Nats::with("max_payload: 64KB").await;
    let node = Project::new()
        .argument("--nats")
        .argument(&nats.url)
        .function("f", "def handler(event, context): return event\n")
        .config("[triggers.calls]\nhttp = 'POST /calls'\npayload = 'body'\nto = 'f'\n")
        .config("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\npayload = 'body'\nto = 'f'\n")
        .start()
        .await;
    let body = json!({ "text": "x".repeat(300_000) }).to_string();
    let answer = node.post("/calls", body.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json::<serde_json::Value>()["text"].as_str().map(str::len), Some(300_000));
    let id = node.accepted("/jobs", body).await;
    node.event_is(&id, "done").await;
}

#[tokio::test]
async fn what_waits_fills_the_log_up_to_its_bound_and_no_further() {
    let project = Project::new()
        .function_with("f", "def handler(event, context): pass\n", "concurrency = 0")
        .config("[log]\nmax_size = '2MB'\n[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n");
    let node = project.start().await;
    let refused = eventually("an event is refused", || async {
        let answer = node.post("/jobs", vec![b'1'; 100_000]).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("30")), "{}", refused.text());
    assert_eq!(refused.json::<serde_json::Value>()["type"], "urn:fnbus:backlog");
    let state = node.json(&["node", "--json"]).await.remove(0);
    assert_eq!((&state["accepting"], &state["log_max"]), (&json!(false), &json!(2_000_000)));
    assert!(state["log_used"].as_u64().unwrap() < 5_000_000, "{state}");
    node.configure(&node.project().toml().replace("concurrency = 0", "concurrency = 2"));
    node.deliveries_are("pending", 0).await;
    eventually("events are accepted again", || async { (node.post("/jobs", "1").await.status == 202).then_some(()) })
        .await;
}
