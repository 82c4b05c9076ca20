//! An instance has no more than its limits, with all that it starts.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use fnbus_tests::{
    Node, Project,
    crowd::{CODE, NOTES, left, noted},
    eventually,
};
use serde_json::{Value, json};

/// A function `f`, and one beside it.
fn project(handler: &str, keys: &str) -> Project {
    let project = Project::new();
    let notes = project.path().join(NOTES).display().to_string();
    let keys = format!("env = {{ NOTES = '{notes}' }}\nretry = {{ attempts = 1 }}\n{keys}");
    project
        .function_with("f", &format!("{CODE}def handler(event, context):\n{handler}"), &keys)
        .config("[triggers.f]\nhttp = 'POST /f'\npayload = 'body'\nto = 'f'\n")
        .function("other", "def handler(event, context): return 'well'\n")
        .config("[triggers.other]\nhttp = 'POST /other'\nto = 'other'\n")
}

async fn called(node: &Node, path: &str) -> Value {
    node.post(path, "{}").await.json()
}

#[tokio::test]
async fn a_fork_bomb_is_stopped_and_disturbs_nobody() {
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
    let node = project(bomb, "processes = 20").start().await;
    if !node.enforces("more ").await {
        return;
    }
    let made = called(&node, "/f").await.as_u64().unwrap();
    assert!((1..20).contains(&made), "{made} processes beside it");
    assert_eq!(node.post("/other", "{}").await.text(), "well");
    let all = noted(&node, usize::try_from(made).unwrap()).await;
    node.write("f/app.py", "def handler(event, context): return 'new'\n");
    eventually("all are gone with their instance", || async { left(&all).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn what_an_instance_starts_counts_towards_its_memory() {
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
    let node = project(hungry, "memory = 64\ntimeout = '20s'").start().await;
    if !node.enforces("more ").await {
        return;
    }
    // each of them is well within the limit of a process, all together are not
    let event = node.post("/f", "{}").await;
    if event.status == 200 {
        assert_eq!(event.json::<Value>(), json!([9]), "one was killed");
    } else {
        assert!(event.text().contains("ran out of memory"), "{}", event.text());
    }
    assert_eq!(node.post("/other", "{}").await.text(), "well");
}

#[tokio::test]
async fn an_instance_has_no_more_time_of_the_processor_than_its_share() {
    let busy =
        "    begun = time.monotonic()\n    while time.monotonic() < begun + 1: pass\n    return time.process_time()\n";
    let node = project(busy, "cpu = 20").start().await;
    if !node.enforces("more ").await {
        return;
    }
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
