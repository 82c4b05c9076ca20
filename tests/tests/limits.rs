//! An instance has no more than its limits, with all that it starts.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use fnbus_tests::{
    Node, Project,
    crowd::{self, left, noted},
    eventually,
};
use rstest::rstest;
use serde_json::{Value, json};

const SANDBOX: &str = "sandbox";
const NAMESPACES: &str = "namespaces";

/// A function `f`, and one beside it.
fn project(handler: &str, keys: &str) -> Project {
    crowd::project(handler, &format!("retry = {{ attempts = 1 }}\n{keys}"))
        .function("other", "def handler(event, context): return 'well'\n")
        .config("[triggers.other]\nhttp = 'POST /other'\nto = 'other'\n")
}

/// Whether this machine holds a function to its limits in this way.
async fn enforces(node: &Node, isolation: &str) -> bool {
    node.enforces("more ").await && (isolation == SANDBOX || node.enforces("seeing ").await)
}

/// The same, running in its isolation; none where this machine does not enforce it.
async fn started(handler: &str, isolation: &str, keys: &str) -> Option<Node> {
    let node = project(handler, &format!("isolation = '{isolation}'\n{keys}")).start().await;
    enforces(&node, isolation).await.then_some(node)
}

async fn called(node: &Node, path: &str) -> Value {
    node.post(path, "{}").await.json()
}

#[rstest]
#[tokio::test]
async fn a_fork_bomb_is_stopped_and_disturbs_nobody(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let bomb = "    made = 0
    try:
        while made < 1000:
            pid = os.fork()
            if pid == 0:
                time.sleep(1000)
                os._exit(0)
            note(pid)
            made += 1
    except BlockingIOError:
        return made
";
    let Some(node) = started(bomb, isolation, "processes = 20").await else { return };
    let made = called(&node, "/f").await.as_u64().unwrap();
    assert!((1..20).contains(&made), "{made} processes beside it");
    assert_eq!(node.post("/other", "{}").await.text(), "well");
    if isolation == NAMESPACES {
        // they are numbered otherwise there, and end with its first process
        return;
    }
    let all = noted(&node, usize::try_from(made).unwrap()).await;
    node.write("f/app.py", "def handler(event, context): return 'new'\n");
    eventually("all are gone with their instance", || async { left(&all).is_empty().then_some(()) }).await;
}

/// What a call ended as: its outcome, its error and its log, in the log of the node and as `fnbus invoke` says it.
async fn ended(node: &Node, body: &str) -> (String, Value, String) {
    let id = node.accepted("/later", body.to_owned()).await;
    let event = node.event_is(&id, "dead").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    let [outcome, log] = ["outcome", "log"].map(|key| attempt[key].as_str().unwrap_or_default().to_owned());
    let invoked = node.fnbus(&["invoke", "f", "-d", body]).await;
    let next = attempt["error"]["message"].as_str().unwrap().rsplit("; ").next().unwrap();
    assert!(invoked.code() == 1 && invoked.stderr.contains(next), "{next}: {}", invoked.all());
    (outcome, attempt["error"].clone(), log)
}

#[rstest]
#[case::a_language_raises(
    "python",
    "app.py",
    "import os, time\ndef handler(event, context):\n    while True:\n        if os.fork() == 0: time.sleep(1000)\n",
    "error"
)]
#[case::a_language_ends(
    "python",
    "app.py",
    "import os, time\ndef handler(event, context):\n    \
    try:\n        while True:\n            if os.fork() == 0: time.sleep(1000)\n    except OSError: os._exit(3)\n",
    "crash"
)]
#[case::a_shell(
    "command",
    "run",
    "#!/bin/sh\ncat > /dev/null\nsleep 0.3\nn=0; while [ $n -lt 50 ]; do sleep 1000 & n=$((n+1)); done; exit 4\n",
    "error"
)]
#[tokio::test]
async fn who_reached_its_limit_of_processes_is_told_so(
    #[values(SANDBOX, NAMESPACES)] isolation: &str,
    #[case] runtime: &str,
    #[case] file: &str,
    #[case] code: &str,
    #[case] outcome: &str,
) {
    let handler = if runtime == "command" { "handler = './run'\n" } else { "" };
    let node = Project::new()
        .program(&format!("f/{file}"), code)
        .config(&format!("[functions.f]\nruntime = '{runtime}'\n{handler}isolation = '{isolation}'"))
        .config("processes = 12\nretry = { attempts = 1 }\n[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\nto = 'f'\n")
        .start()
        .await;
    if !enforces(&node, isolation).await {
        return;
    }
    let (ended, error, log) = ended(&node, "{}").await;
    let says = "the instance reached its limit of 12 processes and threads: raise `processes`";
    assert_eq!(ended, outcome, "{error}");
    assert!(error["message"].as_str().unwrap().ends_with(says), "{error}");
    assert_eq!(log.contains(says), runtime == "python" && outcome == "error", "where the answer cannot say it: {log}");
}

/// Writes a mebibyte again and again.
const FILLS: &str = "    home = os.environ['TMPDIR']
    files = []
    while True:
        time.sleep(0.005)
        if event == 'one': files = files or [open(home + '/one', 'wb')]
        if event == 'many': files = [open('%s/%d' % (home, time.monotonic_ns()), 'wb')]
        if event == 'nameless': files = files or [tempfile.TemporaryFile()]
        if event == 'empty':
            time.sleep(0.02)
            for n in range(200): open('%s/%d' % (home, time.monotonic_ns()), 'w').close()
            continue
        if event == 'beside': files = files or [open(os.path.dirname(home) + '/beside', 'wb')]
        if event == 'tmp': files = files or [open('/tmp/one', 'wb')]
        files[-1].write(b'x' * (1 << 20))
        files[-1].flush()
";

/// How many bytes lie in a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { entry.metadata().map_or(0, |m| m.len()) })
        .sum()
}

#[rstest]
#[case::one_file(SANDBOX, "one")]
#[case::many_files(SANDBOX, "many")]
#[case::a_file_without_a_name(SANDBOX, "nameless")]
#[case::empty_files(SANDBOX, "empty")]
#[case::what_its_siblings_reach(SANDBOX, "beside")]
#[case::in_no_sandbox("process", "one")]
#[case::one_file_in_namespaces(NAMESPACES, "one")]
#[case::empty_files_in_namespaces(NAMESPACES, "empty")]
#[case::tmp_in_namespaces(NAMESPACES, "tmp")]
#[tokio::test]
async fn who_fills_its_files_is_told_so_and_disturbs_nobody(#[case] isolation: &str, #[case] how: &str) {
    // a thousand files are four mebibytes
    let most = if how == "empty" { 4 } else { 16 };
    let keys = format!("ephemeral_storage = {most}\ntimeout = '60s'\nisolation = '{isolation}'");
    let node = Project::new()
        .function_with("f", &format!("import os, tempfile, time\ndef handler(event, context):\n{FILLS}"), &format!("{keys}\nretry = {{ attempts = 1 }}"))
        .function("other", "import os\ndef handler(event, context):\n    open(os.environ['TMPDIR'] + '/x', 'a').write('x')\n    return os.getpid()\n")
        .config("[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\npayload = 'body'\nto = 'f'\n")
        .config("[triggers.other]\nhttp = 'POST /other'\nto = 'other'\n")
        .start()
        .await;
    if isolation == NAMESPACES && !node.enforces("seeing ").await {
        return;
    }
    let before = node.post("/other", "{}").await.text().to_owned();
    // what lies beside the private folders goes with the process that instances are forked from
    let (outcome, error, log) = ended(&node, &format!("\"{how}\"")).await;
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("raise ") && message.contains("`ephemeral_storage`"), "{message}");
    if isolation == NAMESPACES {
        assert_eq!((&*outcome, &error["kind"]), ("error", &json!("OSError")), "{error}");
        assert!(message.contains("No space left on device") && log.contains("`ephemeral_storage`"), "{error} {log}");
    } else {
        assert_eq!((&*outcome, &error["kind"]), ("crash", &json!("Runtime.OutOfStorage")), "{error}");
        node.says(&format!("an instance of `f` has more than {most} MiB of files and is ended")).await;
    }
    assert_eq!(node.post("/other", "{}").await.text(), before, "the other one was disturbed");
    eventually("what it wrote is gone", || async { (bytes(&node.data().join("tmp")) < 1 << 20).then_some(()) }).await;
}

#[rstest]
#[tokio::test]
async fn what_an_instance_starts_counts_towards_its_memory(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let hungry = "    ready, wrote = os.pipe()
    pids = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            kept = b'x' * (60 << 20)
            os.write(wrote, b'x')
            time.sleep(1000)
        pids.append(pid)
    os.close(wrote)
    killed = []
    while not killed:
        for pid in pids:
            ended, status = os.waitpid(pid, os.WNOHANG)
            killed += [status] if ended else []
        time.sleep(0.01)
    return killed
";
    let keys = "memory = 64\nephemeral_storage = 1\ntimeout = '20s'";
    let Some(node) = started(hungry, isolation, keys).await else { return };
    // each of them is well within the limit of a process, all together are not
    let event = node.post("/f", "{}").await;
    if event.status == 200 {
        let killed: Vec<i32> = event.json();
        assert!(killed.iter().all(|status| *status == 9), "{killed:?} instead of SIGKILL");
    } else {
        assert!(event.text().contains("ran out of memory"), "{}", event.text());
    }
    assert_eq!(node.post("/other", "{}").await.text(), "well");
}

#[rstest]
#[tokio::test]
async fn an_instance_has_no_more_time_of_the_processor_than_its_share(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let busy =
        "    begun = time.monotonic()\n    while time.monotonic() < begun + 1: pass\n    return time.process_time()\n";
    let Some(node) = started(busy, isolation, "cpu = 20").await else { return };
    // its group may be new when the first call comes
    called(&node, "/f").await;
    let used = [called(&node, "/f").await, called(&node, "/f").await].map(|used| used.as_f64().unwrap());
    assert!(used[1] - used[0] < 0.6, "seconds of CPU in one: {used:?}");
}

#[tokio::test]
async fn what_hides_from_its_instance_ends_with_it() {
    let node = project("    for _ in range(3): daemon({})\n    os._exit(1)\n", "").start().await;
    if !node.enforces("more ").await {
        return;
    }
    node.post("/f", "{}").await;
    let all = noted(&node, 3).await;
    eventually("they are gone, without mark, parent and group", || async { left(&all).is_empty().then_some(()) }).await;
}

/// The folders of a process' control groups that a node made.
fn groups(process: &Value) -> Vec<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap();
    let ours = groups.lines().filter_map(|line| line.rsplit_once(':').map(|(_, path)| path.to_owned()));
    let ours: Vec<_> = ours.filter(|path| path.contains("/fnbus-")).collect();
    let mounts: Vec<_> = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()).collect();
    let mounts = mounts.iter().map(PathBuf::as_path).chain([Path::new("/sys/fs/cgroup")]);
    let places = mounts.flat_map(|mount| ours.iter().map(move |path| mount.join(path.trim_start_matches('/'))));
    places.filter(|folder| folder.is_dir()).collect()
}

#[tokio::test]
async fn a_node_that_ends_leaves_no_control_group_and_one_that_is_killed_until_the_next_starts() {
    let mut node = project("    return os.getpid()\n", "").start().await;
    if !node.enforces("more ").await {
        return;
    }
    let process = called(&node, "/f").await;
    let first =
        eventually("it is in its group", || async { Some(groups(&process)).filter(|found| !found.is_empty()) }).await;
    node.kill();
    node.ended().await;
    node.restart().await;
    assert!(first.iter().all(|folder| !folder.exists()), "{first:?}");
    let process = called(&node, "/f").await;
    let next =
        eventually("it is in its group", || async { Some(groups(&process)).filter(|found| !found.is_empty()) }).await;
    assert_eq!(node.stop().await.code(), Some(0));
    assert!(next.iter().all(|folder| !folder.exists()), "{next:?}");
}
