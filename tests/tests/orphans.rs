//! No process of a function outlives its instance or its node, whatever it does and however they end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};

use fnbus_tests::{
    Node, Process,
    crowd::{TEN, left, noted, project},
    eventually,
};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::json;

/// What is promised.
const SOON: Duration = Duration::from_secs(2);

/// Fifty processes of five instances, all at work.
async fn crowded() -> (Node, Vec<Process>) {
    let node = project(TEN, "concurrency = 5\ntimeout = '100s'").start().await;
    for n in 0..5 {
        node.accepted("/later", n.to_string()).await;
    }
    let mut all = noted(&node, 50).await;
    all.push(node.nats_server().await);
    assert!(all.iter().all(Process::is_there));
    (node, all)
}

async fn all_end(all: &[Process]) {
    eventually("all are gone", || async { left(all).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_node_that_is_killed_leaves_no_process_of_fifty() {
    let (node, all) = crowded().await;
    let killed = Instant::now();
    kill_process(node.process(), Signal::KILL).unwrap();
    let status = node.ended().await;
    assert!(killed.elapsed() < SOON, "it took {:?}", killed.elapsed());
    assert_eq!(left(&all), [] as [i32; 0], "of the killed node these are left");
    assert_eq!(status.signal(), Some(9), "its warden ends as it did: {status}");
    let said = node.said();
    assert!(said.contains(") was ended by SIGKILL; what it left running is ended now"), "{said}");
    assert!(said.contains("`fnbus up` goes on with it"), "{said}");
}

#[tokio::test]
async fn when_the_warden_is_killed_the_node_ends_with_all_it_has() {
    let (node, mut all) = crowded().await;
    all.push(Process::of_id(node.process().as_raw_nonzero().get()));
    let killed = Instant::now();
    node.kill_warden();
    all_end(&all).await;
    assert!(killed.elapsed() < SOON, "it took {:?}", killed.elapsed());
}

#[tokio::test]
async fn what_is_left_when_both_are_killed_at_once_ends_with_the_next_start() {
    let handler = "    daemon(os.environ)\n    return 'yes'\n";
    let mut node = project(handler, "").start().await;
    let id = node.accepted("/later", "1").await;
    node.event_is(&id, "done").await;
    let left = noted(&node, 1).await;
    let itself = node.process();
    // it cannot see that its warden ends
    kill_process(itself, Signal::STOP).unwrap();
    eventually("it has stopped", || async {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", itself.as_raw_nonzero())).unwrap();
        stat.contains(") T ").then_some(())
    })
    .await;
    node.kill_warden();
    kill_process(itself, Signal::KILL).unwrap();
    all_end(&[Process::of_id(itself.as_raw_nonzero().get())]).await;
    assert!(left[0].is_there(), "nobody is there to end it");
    node.restart().await;
    all_end(&left).await;
    node.says("an earlier run had left processes of functions").await;
}

#[rstest]
#[case::a_timeout("time.sleep(1000)")]
#[case::a_crash("os._exit(1)")]
#[case::a_new_version("print('edited')")]
#[tokio::test]
async fn what_left_its_group_ends_with_its_instance_and_nobody_waits_for_it(#[case] then: &str) {
    let handler = format!("    session(); daemon(os.environ)\n    {then}\n    return 'well'\n");
    let node = project(&handler, "timeout = '300ms'\nretry = { attempts = 1 }").start().await;
    let id = node.accepted("/later", "1").await;
    let all = noted(&node, 2).await;
    let event = eventually("it has ended", || async {
        let event = node.show(&id).await;
        (event["status"] == "dead" || event["status"] == "done").then_some(event)
    })
    .await;
    if event["status"] == "done" {
        assert_eq!(left(&all).len(), 2, "they live as long as their instance");
        node.write("f/app.py", "def handler(event, context): return 'new'\n");
    }
    all_end(&all).await;
}

#[tokio::test]
async fn what_a_living_instance_left_goes_on_and_is_no_zombie_when_it_has_ended() {
    let handler = "    daemon(os.environ, '0.05' if event == 1 else '1000')\n    if event == 3: os._exit(1)\n    return os.getpid()\n";
    let node = project(handler, "concurrency = 2\nretry = { attempts = 1 }")
        .function_with(
            "g",
            "import time\ndef handler(event, context): time.sleep(1000)\n",
            "timeout = '100ms'\nretry = { attempts = 1 }",
        )
        .config("[triggers.g]\nhttp = 'POST /g'\nmode = 'async'\nto = 'g'\n")
        .start()
        .await;
    for n in [1, 2] {
        let id = node.accepted("/later", n.to_string()).await;
        node.event_is(&id, "done").await;
    }
    let all = noted(&node, 2).await;
    eventually("the short one is reaped", || async {
        (!fs::exists(format!("/proc/{}", all[0].pid)).unwrap()).then_some(())
    })
    .await;
    // another instance ends meanwhile
    let id = node.accepted("/g", "").await;
    node.event_is(&id, "dead").await;
    assert!(all[1].is_there(), "its instance lives");
    let id = node.accepted("/later", "3").await;
    node.event_is(&id, "dead").await;
    all_end(&all).await;
}

#[tokio::test]
async fn a_function_that_is_killed_in_the_middle_is_tried_again_on_another_instance_and_disturbs_nobody() {
    let handler = "    note()\n    while not os.path.exists(os.environ['NOTES'] + '.go'): time.sleep(0.01)\n    return os.getpid()\n";
    let node = project(handler, "concurrency = 2\nretry = { attempts = 3, wait = '10ms' }").start().await;
    let first = node.accepted("/later", "1").await;
    let victim = noted(&node, 1).await.remove(0);
    let other = node.accepted("/later", "2").await;
    noted(&node, 2).await;
    victim.kill();
    noted(&node, 3).await;
    node.write("notes/ids.go", "");
    let event = node.event_is(&first, "done").await;
    let attempts = &event["deliveries"][0]["attempts"];
    let ends = |n: usize| (attempts[n]["n"].clone(), attempts[n]["outcome"].clone());
    assert_eq!([ends(0), ends(1)], [(json!(1), json!("crash")), (json!(2), json!("ok"))]);
    assert_ne!(attempts[1]["output"], json!(victim.pid.to_string()));
    let event = node.event_is(&other, "done").await;
    assert_eq!(event["deliveries"][0]["attempts"].as_array().unwrap().len(), 1, "another one was disturbed");
}

// -- signals and codes ----------------------------------------------------------------------------------------------

/// A node that leads its own process group, as one that was started in a terminal, with a call in flight.
async fn in_a_terminal() -> (Node, String) {
    let handler = "    note()\n    while not os.path.exists(os.environ['NOTES'] + '.go'): time.sleep(0.01)\n";
    let node = project(handler, "").under(&["setsid"]).start().await;
    let id = node.accepted("/later", "1").await;
    noted(&node, 1).await;
    node.event_is(&id, "running").await;
    (node, id)
}

/// What Ctrl-C does: the whole group is told.
fn interrupt(group: Pid) {
    kill_process_group(group, Signal::INT).unwrap();
}

#[tokio::test]
async fn an_interrupt_from_the_terminal_reaches_both_and_counts_once() {
    let (mut node, id) = in_a_terminal().await;
    interrupt(node.warden());
    node.says("draining").await;
    eventually("new connections are refused", || async {
        node.try_send(hyper::Request::get("/f"), "").await.is_err().then_some(())
    })
    .await;
    node.write("notes/ids.go", "");
    assert_eq!(node.ended().await.code(), Some(0));
    node.restart().await;
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["deliveries"][0]["attempts"].as_array().unwrap().len(), 1, "it was drained");
}

#[tokio::test]
async fn a_second_interrupt_from_the_terminal_ends_it_now() {
    let (node, _) = in_a_terminal().await;
    interrupt(node.warden());
    node.says("draining").await;
    interrupt(node.warden());
    assert_eq!(node.ended().await.code(), Some(130));
    node.nothing_runs().await;
}

#[rstest]
#[case::term(Signal::TERM, Some(0), None)]
#[case::hang_up(Signal::HUP, None, Some(1))]
#[tokio::test]
async fn a_signal_to_what_was_started_ends_the_node_and_its_end_is_told(
    #[case] signal: Signal,
    #[case] code: Option<i32>,
    #[case] by: Option<i32>,
) {
    let node = project("    return 1\n", "").start().await;
    node.signal(signal);
    let status = node.ended().await;
    assert_eq!((status.code(), status.signal()), (code, by), "{status}");
    node.nothing_runs().await;
}

#[tokio::test]
async fn children_of_whoever_became_fnbus_are_not_its_own() {
    let project = project("    return 1\n", "");
    let note = project.path().join("foreign").display().to_string();
    let shell = format!("[ \"$2\" != up ] || {{ sleep 1000 > /dev/null 2>&1 & echo $! > {note}; }}; exec \"$@\"");
    let node = project.under(&["sh", "-c", &shell, "sh"]).start().await;
    let ids = node.lines_of("foreign", 1).await;
    let all: Vec<Process> = ids.iter().map(|id| Process::of_id(id.parse().unwrap())).collect();
    assert_eq!(node.stop().await.code(), Some(0));
    assert!(all[0].is_there(), "it was there before");
    all.iter().filter(|process| process.is_there()).for_each(Process::kill);
}

#[tokio::test]
async fn the_node_is_named_by_its_own_process_and_a_signal_to_it_drains_too() {
    let node = project("    return 1\n", "").start().await;
    let itself = node.process().as_raw_nonzero().get();
    assert_eq!(node.json(&["node", "--json"]).await[0]["pid"], itself);
    assert_eq!(fs::read_to_string(node.data().join("lock")).unwrap().trim(), itself.to_string());
    kill_process(node.process(), Signal::TERM).unwrap();
    assert_eq!(node.ended().await.code(), Some(0));
}
