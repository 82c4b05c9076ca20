//! `isolation = "namespaces"`: a function sees itself, and of the machine what it may read.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use fnbus_tests::{
    Process, Project,
    crowd::{self, NOTES, left},
    eventually,
};
use rstest::rstest;
use serde_json::{Value, json};

const KEYS: &str = "isolation = 'namespaces'\nretry = { attempts = 1 }\n";

/// A function `f` in Python.
fn project(handler: &str, keys: &str) -> Project {
    crowd::project(handler, &format!("{KEYS}{keys}"))
}

#[tokio::test]
async fn a_function_sees_no_process_but_its_own_and_no_file_but_what_it_may_read() {
    let look = "    seen = [name for name in os.listdir('/proc') if name.isdigit()]
    open('/tmp/mine', 'w').write('x')
    lines = [open('/proc/%s/cmdline' % name).read().strip('\\0') for name in sorted(seen)]
    return {'processes': sorted(seen), 'lines': lines, 'tmp': os.listdir('/tmp'), 'there': [os.path.exists(path) for path in event],
            'task': os.listdir(os.environ['LAMBDA_TASK_ROOT'])}
";
    let node = project(look, "").function("g", "def handler(event, context): pass\n").start().await;
    if !node.enforces("seeing ").await {
        return;
    }
    let hidden = [node.path().join("fnbus.toml"), node.path().join("g/app.py"), node.data().join("fnbus.key")];
    assert!(hidden.iter().all(|path| path.exists()));
    let data = node.post("/f", json!(hidden).to_string()).await.json::<Value>();
    assert_eq!(data["processes"], json!(["1", "2"]), "it, and the one that reaps: {data}");
    assert_eq!(data["lines"][0], "fnbus", "what the one that reaps was told is not to be read: {data}");
    assert!(data["lines"][1].as_str().unwrap().contains("python"), "{data}");
    assert_eq!(data["there"], json!([false, false, false]), "{data}");
    assert_eq!(data["task"], json!(["app.py"]), "{data}");
    let tmp = data["tmp"].as_array().unwrap();
    assert!(tmp.contains(&json!("mine")) && tmp.len() <= 2, "nothing else but the project in it: {data}");
    assert!(!std::path::Path::new("/tmp/mine").exists());
}

/// As in the sandbox: what can be seen can be read at most.
#[tokio::test]
async fn a_function_writes_to_nothing_but_its_own() {
    let write = "    def opens(path):
        try:
            os.close(os.open(path, os.O_WRONLY))
            return True
        except OSError as e:
            return type(e).__name__
    home = os.environ['HOME']
    open(home + '/mine', 'w').write('x')
    files = [folder + '/' + name for folder in ['/sys/fs/cgroup', '/sys/fs/cgroup/pids', '/proc/sys/kernel'] if os.path.isdir(folder)
             for name in os.listdir(folder) if os.path.isfile(folder + '/' + name)]
    return {'home': os.listdir(home), 'opened': [path for path in files if opens(path) is True], 'tried': len(files)}
";
    let node = project(write, "").start().await;
    if !node.enforces("seeing ").await {
        return;
    }
    let data: Value = node.post("/f", "{}").await.json();
    assert_eq!((&data["home"], &data["opened"]), (&json!(["mine"]), &json!([])), "{data}");
    assert!(data["tried"].as_u64().unwrap() > 10, "{data}");
}

#[tokio::test]
async fn what_it_starts_ends_with_it_and_its_end_is_told_as_any_other() {
    let ends = "    for env in [os.environ, {}]: daemon(env, event['seconds'])
    if event['do'] == 'exit': os._exit(7)
    if event['do'] == 'kill': os.kill(os.getpid(), signal.SIGKILL)
    if event['do'] == 'hang': time.sleep(1000)
    return os.getpid()
";
    let node = project(ends, "timeout = '1s'").start().await;
    if !node.enforces("seeing ").await {
        return;
    }
    for (event, says) in [("exit", "exit status 7"), ("kill", "signal 9"), ("hang", "timed out")] {
        // nobody else sleeps so long
        let seconds = format!("1000.{}", node.http().rsplit(':').next().unwrap());
        node.accepted("/later", json!({ "do": event, "seconds": seconds }).to_string()).await;
        node.says(says).await;
        let sleeps = || {
            let all = std::fs::read_dir("/proc").unwrap().flatten();
            all.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok())
                .any(|command| command.contains(&seconds))
        };
        eventually("what it had started is gone", || async { (!sleeps()).then_some(()) }).await;
    }
}

#[rstest]
#[case::node(
    "node",
    "index.js",
    "exports.handler = async () => require('fs').readdirSync('/proc').filter(n => /^\\d+$/.test(n)).length;\n",
    ""
)]
#[case::provided(
    "provided",
    "bootstrap",
    "#!/usr/bin/python3\nimport http.client, os\nc = http.client.HTTPConnection(os.environ['AWS_LAMBDA_RUNTIME_API'])\nwhile True:\n    \
     c.request('GET', '/2018-06-01/runtime/invocation/next')\n    r = c.getresponse()\n    r.read()\n    \
     seen = len([n for n in os.listdir('/proc') if n.isdigit()])\n    \
     c.request('POST', '/2018-06-01/runtime/invocation/%s/response' % r.headers['Lambda-Runtime-Aws-Request-Id'], str(seen))\n    \
     c.getresponse().read()\n",
    ""
)]
#[case::command("command", "run", "#!/bin/sh\ncat > /dev/null; ls -d /proc/[0-9]* | wc -l\n", "handler = './run'\n")]
#[case::without_network(
    "python",
    "app.py",
    "import os\ndef handler(event, context): return len([n for n in os.listdir('/proc') if n.isdigit()])\n",
    "network = false\n"
)]
#[tokio::test]
async fn any_runtime_runs_in_namespaces(
    #[case] runtime: &str,
    #[case] file: &str,
    #[case] code: &str,
    #[case] keys: &str,
) {
    let node = Project::new()
        .program(&format!("f/{file}"), code)
        .config(&format!("[functions.f]\nruntime = '{runtime}'\n{KEYS}{keys}"))
        .config("[triggers.f]\nhttp = 'POST /f'\nto = 'f'\n")
        .start()
        .await;
    if !node.enforces("seeing ").await {
        return;
    }
    let answer = node.post("/f", "{}").await;
    let seen: usize = answer.text().trim().parse().unwrap_or(usize::MAX);
    assert!(seen < 6, "it sees processes: {}", answer.text());
}

#[tokio::test]
async fn what_is_idle_is_stopped_and_goes_on_with_the_next_call_or_ends_with_the_node() {
    let code = "    global calls\n    calls += 1\n    return calls\ncalls = 0\n";
    let node = project(code, "").start().await;
    if !node.enforces("seeing ").await {
        return;
    }
    let nats = node.nats_server().await.pid;
    for calls in ["1", "2", "3"] {
        assert_eq!(node.post("/f", "{}").await.text(), calls, "the same instance");
        eventually("all of it is stopped", || async {
            let states: Vec<String> =
                node.processes().iter().filter(|process| process.pid != nats).map(state).collect();
            (states.len() == 3 && states.iter().all(|state| state == "T")).then_some(())
        })
        .await;
        assert_eq!(node.function("f").await["frozen"], 1);
    }
    assert!(node.stop().await.success());
    node.nothing_runs().await;
}

/// A letter of the kernel's: `T`, stopped.
fn state(process: &Process) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_killed_node_leaves_nothing_of_it() {
    let node = project("    child(); session(); daemon({})\n    note()\n    time.sleep(1000)\n", "timeout = '100s'")
        .start()
        .await;
    if !node.enforces("seeing ").await {
        return;
    }
    let processes = {
        let asked = node.post("/f", "{}");
        tokio::pin!(asked);
        tokio::select! {
            answer = &mut asked => panic!("{}", answer.text()),
            // as they see themselves: what the node sees are the children of its own
            ids = node.lines_of(NOTES, 4) => assert_eq!(ids.len(), 4),
        }
        node.processes()
    };
    assert!(processes.len() >= 6, "{}", processes.len());
    node.kill();
    eventually("all are gone", || async { left(&processes).is_empty().then_some(()) }).await;
}
