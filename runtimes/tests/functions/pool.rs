//! What a pool promises: caps, queues, warmth, expiry, and that nothing it started outlives its use.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::harness::*;
use bus::{
    outcome::{Ending, Start},
    payload::Form,
};
use rstest::rstest;
use runtimes::{KeepAlive, LeaseError, policy::cost_window::Prices};

/// What goes on in the background when a call has been answered: a thread that never rests.
const BUSY: &str = "import os, threading\ndef spin():\n    while True: pass\n\
                    def handler(event, context):\n    if event: threading.Thread(target=spin, daemon=True).start()\n    \
                    return os.getpid()\n";

const PID: &str = "import os\ndef handler(event, context):\n    return os.getpid()\n";

#[tokio::test]
async fn no_more_than_the_cap_run_at_once_and_all_get_their_turn() {
    let code = "import os, time\ndef handler(event, context):\n    fd = os.open(event, os.O_CREAT | os.O_APPEND | os.O_WRONLY)\n    os.write(fd, b'+')\n    time.sleep(0.01)\n    os.write(fd, b'-')\n";
    let node = Node::new().function_with(code, |f| f.concurrency = 3);
    let path = serde_json::to_string(&node.note()).unwrap();
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (node, path) = (node.clone(), path.clone());
            tokio::spawn(async move { node.invoke(&path).await })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap().ending, Ending::Ok);
    }
    let (mut now, mut most) = (0, 0);
    for mark in fs::read(node.note()).unwrap() {
        now += if mark == b'+' { 1 } else { -1 };
        most = most.max(now);
    }
    assert_eq!(now, 0);
    assert!((2..=3).contains(&most), "{most} ran at once");
    let status = node.status();
    assert_eq!((status.invocations, status.busy, status.waiting, status.starting), (40, 0, 0, 0), "{status:?}");
    assert!(status.warm <= 3 && status.cold_starts <= 3, "{status:?}");
}

#[tokio::test]
async fn who_waits_too_long_is_told_that_all_are_busy_and_a_released_one_goes_to_who_waits() {
    let node = Node::new().function_with(PID, |f| f.concurrency = 1);
    let held = node.lease().await.unwrap();
    let busy = node.functions.lease(&name(), Duration::from_millis(20)).await;
    assert!(matches!(busy, Err(LeaseError::Busy)));
    assert_eq!(node.functions.free(&name()), Some(0));
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { node.lease().await.map(|l| l.is_cold()) }
    });
    node.until(|s| s.waiting == 1).await;
    drop(held);
    assert!(!waiting.await.unwrap().unwrap(), "an unused instance was not handed on");
    assert_eq!(node.functions.free(&name()), Some(1));
}

#[tokio::test]
async fn a_start_is_waited_for_though_it_takes_longer_than_the_wait_for_a_busy_one() {
    let code = "import time\ntime.sleep(0.3)\ndef handler(event, context):\n    return 1\n";
    let node = Node::new().function_with(code, |f| f.concurrency = 2);
    let soon = Duration::from_millis(20);
    let first = node.functions.lease(&name(), soon).await.expect("the first version is waited for");
    let second = node.functions.lease(&name(), soon).await.expect("another instance is waited for");
    assert!(second.is_cold());
    let third = node.functions.lease(&name(), soon).await;
    assert!(matches!(third, Err(LeaseError::Busy)), "no third may start");
    drop((first, second));
}

#[tokio::test]
async fn unknown_and_stopped_functions_are_told_apart() {
    let mut node = Node::new().function(PID);
    assert!(matches!(node.functions.lease(&"g".parse().unwrap(), LONG).await, Err(LeaseError::Unknown(_))));
    node.invoke("1").await;
    node.reconfigure(|f| f.concurrency = 0);
    assert!(matches!(node.lease().await, Err(LeaseError::Stopped)));
    assert_eq!(node.status().warm, 0);
    node.reconfigure(|f| f.concurrency = 1);
    assert_eq!(node.invoke("1").await.ending, Ending::Ok);
}

#[tokio::test]
async fn idle_instances_end_after_their_time_down_to_zero() {
    let node = Node::new().function_with(PID, |f| f.keep_alive = Duration::from_millis(50).into());
    let pid = text(&node.invoke("1").await).to_owned();
    node.until(|s| s.warm == 0).await;
    until(|| (!is_running(&pid)).then_some(())).await;
    assert_eq!(node.invoke("1").await.start, Start::Cold);
}

#[tokio::test]
async fn by_its_calls_an_instance_ends_in_a_pause_and_another_is_there_before_the_next_call() {
    let code = "import os, time\ntime.sleep(0.3)\ndef handler(event, context):\n    return os.getpid()\n";
    // memory is so dear, and a start so slow, that a pause is worth both
    let dear = Prices { memory: 1.0, gap: 0.5 };
    let node = Node::with(|settings| settings.prices = dear).function_with(code, |f| f.keep_alive = KeepAlive::Auto);
    let first = node.invoke("1").await;
    let pause = Duration::from_millis(1700).max(2 * (first.times.start + first.times.init));
    tokio::time::sleep(pause).await;
    let mut last = node.invoke("1").await;
    assert_eq!((last.start, &last.output), (Start::Warm, &first.output), "nothing was known of it");
    // a busy machine may come too late for a pause, and not for all of them
    let begun = Instant::now();
    loop {
        let ended = within(pause, || node.status().warm == 0).await && within(pause, || !is_running(text(&last))).await;
        let is_ahead = ended && within(pause, || node.status().warm == 1).await;
        let next = node.invoke("1").await;
        assert_eq!(next.ending, Ending::Ok);
        if is_ahead && next.start == Start::Warm && next.output != last.output {
            return;
        }
        assert!(begun.elapsed() < LONG, "it ended: {ended}, another one was there: {is_ahead}; {next:?}");
        last = next;
    }
}

/// Whether something comes to be within a time.
async fn within(time: Duration, look: impl Fn() -> bool) -> bool {
    let wait = async {
        while !look() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(time, wait).await.is_ok()
}

#[tokio::test]
async fn by_its_calls_the_last_one_of_a_function_that_is_kept_warm_stays() {
    let code = "import os, time\ntime.sleep(0.3)\ndef handler(event, context):\n    return os.getpid()\n";
    let dear = Prices { memory: 0.4, gap: 0.5 };
    let node = Node::with(|settings| settings.prices = dear);
    let node = node.function_with(code, |f| (f.keep_alive, f.warm) = (KeepAlive::Auto, 1));
    let first = node.invoke("1").await;
    tokio::time::sleep(Duration::from_millis(1700)).await;
    assert_eq!(node.invoke("1").await.output, first.output);
    // the pause would be worth an end
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((node.status().warm, is_running(text(&first))), (1, true), "it is always there");
}

#[tokio::test]
async fn warm_instances_are_there_before_anybody_calls_and_are_replaced_when_they_die() {
    let node = Node::new().function_with(PID, |f| (f.warm, f.keep_alive) = (2, Duration::ZERO.into()));
    node.until(|s| s.warm == 2).await;
    let first = node.invoke("1").await;
    assert_eq!(first.start, Start::Warm);
    let pid = rustix::process::Pid::from_raw(text(&first).parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until(|| (!is_running(text(&first))).then_some(())).await;
    let second = node.invoke("1").await;
    assert_eq!((second.ending, second.start), (Ending::Ok, Start::Warm));
    assert_ne!(second.output, first.output);
    node.until(|s| s.warm == 2).await;
}

/// Does as it is told, and notes each start of it.
const OBEYS: &str = "import os, time\nNOTE = os.environ['NOTE']\nopen(NOTE, 'a').write('started\\n')\nif os.path.exists(NOTE + '.broken'): os._exit(1)\ndef handler(event, context):\n    if event == 'crash': os._exit(1)\n    if event == 'hang': time.sleep(1000)\n    return os.getpid()\n";

fn obeys(change: impl FnOnce(&mut runtimes::FunctionConfig)) -> Node {
    let node = Node::new();
    let note = node.note().display().to_string();
    node.function_with(OBEYS, |f| {
        f.timeout = Duration::from_millis(300);
        f.env.insert("NOTE".into(), plain(&note));
        change(f);
    })
}

fn starts(node: &Node) -> usize {
    fs::read_to_string(node.note()).unwrap().lines().count()
}

#[rstest]
#[case::a_timeout("\"hang\"")]
#[case::a_crash("\"crash\"")]
#[tokio::test]
async fn the_last_instance_is_replaced_before_anybody_asks_when_its_invocation_ends_it(#[case] event: &str) {
    let node = obeys(|f| f.keep_alive = Duration::from_millis(500).into());
    node.invoke("1").await;
    assert_ne!(node.invoke(event).await.ending, Ending::Ok);
    node.until(|s| s.warm == 1).await;
    assert_eq!(starts(&node), 2);
    assert_eq!(node.invoke("1").await.start, Start::Warm);
    node.until(|s| s.warm == 0).await;
    assert_eq!((starts(&node), node.status().starting), (2, 0), "it is kept no longer than any other");
}

#[tokio::test]
async fn one_of_several_instances_is_not_replaced_before_somebody_asks() {
    let node = obeys(|f| f.concurrency = 2);
    let held = node.lease().await.unwrap();
    node.invoke("\"crash\"").await;
    assert_eq!((starts(&node), node.status().starting), (2, 0));
    drop(held);
    assert_eq!(node.invoke("1").await.start, Start::Warm, "the other one is there");
}

#[tokio::test]
async fn a_replacement_that_does_not_start_is_tried_once_and_again_when_somebody_asks() {
    let node = obeys(|_| {});
    node.invoke("1").await;
    let broken = node.note().with_extension("broken");
    fs::write(&broken, "").unwrap();
    node.invoke("\"crash\"").await;
    node.until(|s| s.errors == 2 && s.starting == 0).await;
    assert_eq!(starts(&node), 2);
    assert_eq!(node.invoke("1").await.ending, Ending::InitError);
    assert_eq!(starts(&node), 3);
    fs::remove_file(broken).unwrap();
    assert_eq!(node.invoke("1").await.ending, Ending::Ok);
}

#[tokio::test]
async fn an_instance_that_dies_between_two_calls_fails_neither() {
    let code = "import os, threading\ndef handler(event, context):\n    threading.Timer(0.01, os._exit, (0,)).start()\n    return os.getpid()\n";
    let node = Node::new().function(code);
    let first = node.invoke("1").await;
    until(|| (!is_running(text(&first))).then_some(())).await;
    assert_eq!(node.invoke("1").await.ending, Ending::Ok);
}

#[tokio::test]
async fn an_invocation_that_gets_no_instance_in_place_of_a_dead_one_has_not_run() {
    let mut node = Node::new().function(PID);
    let pid = text(&node.invoke("1").await).to_owned();
    let lease = node.lease().await.unwrap();
    let process = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    until(|| (!is_running(&pid)).then_some(())).await;
    node.reconfigure(|f| f.concurrency = 0);
    let ran = lease.invoke(invocation(Form::Json, b"1")).await;
    assert!(matches!(ran, Err(LeaseError::Stopped)), "{ran:?}");
    assert_eq!((node.status().invocations, node.status().errors), (1, 0));
}

#[tokio::test]
async fn dropping_an_invocation_kills_its_whole_group() {
    let code = "import os, subprocess, time\ndef handler(event, context):\n    child = subprocess.Popen(['sleep', '1000'])\n    open(event + '~', 'w').write(f'{os.getpid()} {child.pid}')\n    os.rename(event + '~', event)\n    time.sleep(1000)\n";
    let node = Node::new().function(code);
    let path = serde_json::to_string(&node.note()).unwrap();
    let call = node.lease().await.unwrap().invoke(invocation(Form::Json, path.as_bytes()));
    let running = tokio::spawn(call);
    let pids = until(|| fs::read_to_string(node.note()).ok()).await;
    assert!(pids.split(' ').all(is_running));
    running.abort();
    until(|| (!pids.split(' ').any(is_running)).then_some(())).await;
    assert_eq!(node.status().busy, 0);
}

#[tokio::test]
async fn a_shutdown_ends_everything_politely_first() {
    let code = "import atexit, os, signal, sys\nimport threading\ndef handler(event, context):\n    signal.signal(signal.SIGTERM, lambda *_: (open(event, 'w').write('polite'), os._exit(0)))\n    return os.getpid()\n";
    let node = Node::new().function(code);
    let outcome = node.invoke(&serde_json::to_string(&node.note()).unwrap()).await;
    node.functions.shutdown(LONG).await;
    assert_eq!(fs::read_to_string(node.note()).unwrap(), "polite");
    assert!(!is_running(text(&outcome)));
    assert!(matches!(node.lease().await, Err(LeaseError::Unknown(_))));
}

#[tokio::test]
async fn a_removed_function_finishes_what_it_runs() {
    let node = Node::new().function(
        "import time\ndef handler(event, context):\n    open(event, 'w')\n    time.sleep(0.2)\n    return 'done'\n",
    );
    let path = serde_json::to_string(&node.note()).unwrap();
    let running = tokio::spawn(node.lease().await.unwrap().invoke(invocation(Form::Json, path.as_bytes())));
    until(|| node.note().exists().then_some(())).await;
    node.functions.configure(std::collections::BTreeMap::new());
    assert_eq!(text(&running.await.unwrap().unwrap()), "\"done\"");
    assert!(node.functions.status().is_empty());
}

/// A process's state and the CPU time it has had, as the kernel has them.
fn used(pid: &str) -> (char, u64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[0].chars().next().unwrap(), fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
}

#[tokio::test]
async fn what_goes_on_in_an_idle_instance_takes_no_cpu_until_the_next_call() {
    let mut node = Node::new().function(BUSY);
    let first = node.invoke("true").await;
    let pid = text(&first).to_owned();
    let before = until(|| (used(&pid).0 == 'T').then(|| used(&pid).1)).await;
    node.until(|s| s.frozen == 1).await;
    assert!(before > 0, "the thread ran");
    for _ in 0..3 {
        let second = node.invoke("false").await;
        assert_eq!((second.ending, second.start, text(&second)), (Ending::Ok, Start::Warm, &*pid));
        let ticks = until(|| (used(&pid).0 == 'T').then(|| used(&pid).1)).await;
        assert_eq!(used(&pid), ('T', ticks), "it is stopped again");
    }
    node.reconfigure(|f| f.freeze = false);
    until(|| (used(&pid).0 != 'T').then_some(())).await;
    let ticks = used(&pid).1;
    until(|| (used(&pid).1 > ticks).then_some(())).await;
    assert_eq!(node.status().frozen, 0);
}

#[tokio::test]
async fn an_idle_instance_that_is_stopped_hears_that_the_node_ends() {
    let code = "import os, signal, sys\nNOTE = None\ndef end(*_):\n    open(NOTE, 'w').write('ended')\n    os._exit(0)\n\
                signal.signal(signal.SIGTERM, end)\n\
                def handler(event, context):\n    global NOTE\n    NOTE = event\n";
    let node = Node::new().function(code);
    node.invoke(&serde_json::to_string(&node.note()).unwrap()).await;
    node.until(|s| s.frozen == 1).await;
    node.functions.shutdown(LONG).await;
    assert_eq!(fs::read_to_string(node.note()).unwrap(), "ended");
}

#[tokio::test]
async fn for_a_call_that_is_expected_an_instance_is_started_before_and_that_is_counted() {
    let node = Node::new().function_with(PID, |f| f.keep_alive = Duration::from_millis(1).into());
    node.invoke("1").await;
    node.until(|s| s.warm == 0).await;
    node.functions.expect(&name(), Instant::now());
    let status = node.until(|s| s.warm == 1).await;
    assert_eq!((status.pre_warmed, status.pre_warmed_used), (1, 0));
    assert_eq!(node.invoke("1").await.start, Start::Warm);
    assert_eq!(node.status().pre_warmed_used, 1);
    node.until(|s| s.warm == 0).await;
}
