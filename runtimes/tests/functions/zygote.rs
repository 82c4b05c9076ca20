//! Python functions are loaded once and forked: what instances share, what each has of its own, and what cannot be forked.

use bus::{
    outcome::{Ending, Start},
    payload::Form,
};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::*;

const WHO: &str = "import os, random, tempfile\nloaded = os.getpid()\nchance = random.Random()\ntempfile.gettempdir()\n\
     def handler(event, context):\n    return {'loaded': loaded, 'pid': os.getpid(), 'chance': random.random(), \
     'home': os.environ['HOME'], 'temp': tempfile.gettempdir(), 'stream': context.log_stream_name, 'group': os.getpgid(0)}\n";

fn json(outcome: &bus::Outcome) -> Value {
    assert_eq!(outcome.ending, Ending::Ok, "{outcome:?}");
    serde_json::from_slice(&outcome.output).unwrap()
}

/// What two instances that run at once answer, and how each was started.
async fn two(node: &Node) -> [(Value, Start); 2] {
    let (first, second) = (node.lease().await.unwrap(), node.lease().await.unwrap());
    let asked = async |lease: runtimes::Lease| lease.invoke(invocation(Form::Json, b"{}")).await.unwrap();
    let (first, second) = tokio::join!(asked(first), asked(second));
    [(json(&first), first.start), (json(&second), second.start)]
}

fn kill(pid: &Value) {
    kill_process(Pid::from_raw(pid.as_i64().unwrap() as i32).unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn instances_share_what_was_loaded_and_nothing_else() {
    let node = Node::adopting().function(WHO);
    let [(first, cold), (second, partial)] = two(&node).await;
    assert_eq!((cold, partial), (Start::Cold, Start::Partial));
    assert_eq!(first["loaded"], second["loaded"]);
    for own in ["pid", "chance", "home", "stream"] {
        assert_ne!(first[own], second[own], "{own}");
    }
    for one in [&first, &second] {
        assert_ne!(one["loaded"], one["pid"]);
        assert_eq!(one["temp"], one["home"]);
        assert_eq!(one["group"], one["pid"], "it leads no group");
    }
}

/// The processes that were started so, or forked from one that was.
fn started_so(command: &[u8]) -> Vec<i64> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    all.filter_map(|id| id.parse().ok()).filter(|id| of_process(*id, "cmdline") == command).collect()
}

fn of_process(id: i64, file: &str) -> Vec<u8> {
    std::fs::read(format!("/proc/{id}/{file}")).unwrap_or_default()
}

#[tokio::test]
async fn the_next_instance_is_forked_before_it_is_asked_for_and_ends_with_its_zygote() {
    let node = Node::adopting().function(WHO);
    let first = json(&node.invoke("{}").await);
    let [zygote, one] = ["loaded", "pid"].map(|process| first[process].as_i64().unwrap());
    let command = of_process(zygote, "cmdline");
    // what has a mark of its own is an instance, or will be one
    let is_ahead = |process: &i64, known: &[i64]| {
        let environment = of_process(*process, "environ");
        !known.contains(process) && !environment.is_empty() && environment != of_process(zygote, "environ")
    };
    let ahead = async |known: &[i64]| until(|| started_so(&command).into_iter().find(|p| is_ahead(p, known))).await;
    let spare = ahead(&[zygote, one]).await;
    let [_, (second, start)] = two(&node).await;
    assert_eq!((second["pid"].as_i64(), start), (Some(spare), Start::Partial));
    assert_ne!(second["chance"], first["chance"]);
    let next = ahead(&[zygote, one, spare]).await;
    kill(&next.into());
    until(|| (!is_running(&next.to_string())).then_some(())).await;
    kill(&spare.into());
    until(|| (!is_running(&spare.to_string())).then_some(())).await;
    let [_, (third, _)] = two(&node).await;
    assert_eq!(third["loaded"], first["loaded"], "one that was killed while it waited is not missed");
    node.functions.shutdown(LONG).await;
    until(|| started_so(&command).is_empty().then_some(())).await;
}

#[rstest]
#[case::a_thread("threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", "a thread")]
#[case::a_connection("kept = socket.socket()", "socket:")]
#[case::a_file("kept = open('/etc/passwd')", "/etc/passwd")]
#[case::an_event_loop("kept = asyncio.new_event_loop()", "open")]
#[case::a_process("kept = subprocess.Popen(['sleep', '1000'])", "a process")]
#[tokio::test]
async fn what_cannot_be_shared_makes_each_instance_load_the_code_itself(#[case] line: &str, #[case] says: &str) {
    let code = format!(
        "import asyncio, os, socket, subprocess, threading, time\n{line}\nloaded = os.getpid()\n\
         def handler(event, context):\n    return {{'loaded': loaded, 'pid': os.getpid()}}\n"
    );
    let node = Node::adopting().function(&code);
    let lease = node.lease().await.unwrap();
    let first = lease.invoke(invocation(Form::Json, b"{}")).await.unwrap();
    assert!(first.log.contains("each instance loads the code itself") && first.log.contains(says), "{}", first.log);
    for (answer, _) in two(&node).await {
        assert_eq!(answer["loaded"], answer["pid"]);
    }
}

#[tokio::test]
async fn a_function_may_refuse_to_be_forked() {
    let mut node = Node::adopting().function_with(WHO, |f| f.zygote = false);
    for (answer, _) in two(&node).await {
        assert_eq!(answer["loaded"], answer["pid"]);
    }
    let version = node.status().version;
    node.reconfigure(|f| f.zygote = true);
    node.until(|s| s.version != version).await;
    for (answer, _) in two(&node).await {
        assert_ne!(answer["loaded"], answer["pid"]);
    }
}

#[tokio::test]
async fn the_hooks_of_the_function_run_before_and_after_the_fork_in_their_order() {
    let node = Node::adopting();
    // the package as AWS ships it keeps two lists
    node.write(
        "snapshot_restore_py.py",
        "before, after = [], []\ndef get_before_snapshot(): return before\ndef get_after_restore(): return after\n\
         def register_before_snapshot(f, *a, **k): before.append((f, a, k))\n\
         def register_after_restore(f, *a, **k): after.append((f, a, k))\n",
    );
    let code = "import os, snapshot_restore_py as s\nseen = []\nloaded = os.getpid()\n\
         def note(what): seen.append((what, os.getpid() == loaded))\n\
         for word in ('a', 'b'):\n    s.register_before_snapshot(note, 'before ' + word)\n    s.register_after_restore(note, what='after ' + word)\n\
         def handler(event, context):\n    return seen\n";
    let node = node.function(code);
    let expect = serde_json::json!([["before b", true], ["before a", true], ["after a", false], ["after b", false]]);
    for (answer, _) in two(&node).await {
        assert_eq!(answer, expect);
    }
}

#[rstest]
#[case::before("register_before_snapshot", "Runtime.BeforeSnapshotError")]
#[case::after("register_after_restore", "Runtime.AfterRestoreError")]
#[tokio::test]
async fn a_hook_that_fails_is_an_init_error(#[case] which: &str, #[case] expect: &str) {
    let node = Node::adopting();
    node.write(
        "snapshot_restore_py.py",
        "hooks = {}\ndef get_before_snapshot(): return hooks.get('register_before_snapshot', [])\n\
         def get_after_restore(): return hooks.get('register_after_restore', [])\n",
    );
    let code = format!(
        "import snapshot_restore_py as s\ndef no(): raise ValueError('not today')\n\
         s.hooks['{which}'] = [(no, (), {{}})]\ndef handler(event, context):\n    return 1\n"
    );
    let outcome = node.function(&code).invoke("1").await;
    assert_eq!((outcome.ending, kind(&outcome)), (Ending::InitError, expect), "{outcome:?}");
    assert!(message(&outcome).contains("not today"), "{outcome:?}");
}

#[tokio::test]
async fn a_zygote_that_was_killed_is_started_anew_and_its_instances_live_on() {
    let node = Node::adopting().function(WHO);
    let first = json(&node.invoke("{}").await);
    kill(&first["loaded"]);
    until(|| (!is_running(&first["loaded"].to_string())).then_some(())).await;
    let [(one, _), (other, start)] = two(&node).await;
    assert_eq!(one["pid"], first["pid"], "the instance ended with its zygote");
    assert_eq!(start, Start::Cold);
    assert_ne!(other["loaded"], one["loaded"]);
}

#[tokio::test]
async fn an_edit_ends_the_zygote_of_the_old_version_and_a_shutdown_the_last_one() {
    let node = Node::adopting().function(WHO);
    let old = json(&node.invoke("{}").await)["loaded"].to_string();
    assert!(is_running(&old));
    let version = node.status().version;
    node.write("app.py", &WHO.replace("def handler", "edited = 1\ndef handler"));
    node.until(|s| s.version != version).await;
    until(|| (!is_running(&old)).then_some(())).await;
    let new = json(&node.invoke("{}").await)["loaded"].to_string();
    node.functions.shutdown(LONG).await;
    until(|| (!is_running(&new)).then_some(())).await;
}

#[tokio::test]
async fn what_a_forked_instance_leaves_running_ends_with_it_and_not_what_others_leave() {
    // forked twice and out of the group: only its mark tells whose it is
    let code = "import os, time\ndef handler(event, context):\n    r, w = os.pipe()\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n            os.write(w, str(os.getpid()).encode())\n            time.sleep(1000)\n        os._exit(0)\n    os.wait()\n    return {'pid': os.getpid(), 'left': int(os.read(r, 20))}\n";
    let node = Node::adopting().function(code);
    let [(one, _), (other, _)] = two(&node).await;
    kill(&one["pid"]);
    until(|| (!is_running(&one["left"].to_string())).then_some(())).await;
    assert!(is_running(&other["left"].to_string()), "what another instance left was ended too");
    node.functions.shutdown(LONG).await;
    until(|| (!is_running(&other["left"].to_string())).then_some(())).await;
}

#[tokio::test]
async fn what_is_printed_while_loading_is_kept_with_the_first_attempt() {
    let node = Node::adopting().function("print('loading')\ndef handler(event, context):\n    print('running')\n");
    assert_eq!(node.invoke("1").await.log, "loading\nrunning\n");
    assert_eq!(node.invoke("1").await.log, "running\n");
}

#[tokio::test]
async fn memory_is_limited_for_each_instance_and_a_crash_is_told_as_ever() {
    let code = "import os\ndef handler(event, context):\n    if event == 'exit': os._exit(3)\n    return len(b'x' * (event << 20))\n";
    let node = Node::adopting().function_with(code, |f| f.memory = 64);
    assert_eq!(node.invoke("1").await.ending, Ending::Ok);
    assert_eq!(node.invoke("500").await.ending, Ending::Oom);
    let crashed = node.invoke("\"exit\"").await;
    assert_eq!((crashed.ending, kind(&crashed)), (Ending::Crash, "Runtime.ExitError"));
    assert!(message(&crashed).contains("exit status 3"), "{crashed:?}");
}
