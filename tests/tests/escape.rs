//! Functions that try to get out of their sandbox: each is refused, and the node goes on.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::{fs, path::Path};

use fnbus_tests::{Node, Project};
use rstest::rstest;

/// Runs what it is sent, and tells how that ended.
const ANY: &str = "import ctypes, os, signal, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*words):
    return libc.syscall(*words), ctypes.get_errno()
def handler(code, context):
    scope = {'call': call, 'os': os, 'signal': signal, 'socket': socket, 'subprocess': subprocess}
    try:
        exec(code, scope)
        return repr(scope.get('said'))
    except BaseException as e:
        return type(e).__name__
";
const ROUTE: &str = "[triggers.any]\nhttp = 'POST /any'\npayload = 'body'\nto = 'any'\n";
const SANDBOX: &str = "sandbox";
const NAMESPACES: &str = "namespaces";
/// A second function, with a secret of its own.
const OTHER: &str = "import os\ndef handler(event, context): return [os.getpid(), os.environ['HOME'], __file__]\n";

/// The function `any`, and a second one with a secret, both in what is to be tried.
fn project(isolation: &str, keys: &str) -> Project {
    let is = format!("isolation = '{isolation}'");
    Project::new()
        .function_with("any", ANY, &format!("{is}\n{keys}"))
        .function_with("other", OTHER, &format!("{is}\nenv = {{ TOKEN = 'hush' }}"))
        .config(ROUTE)
        .config("[triggers.other]\nhttp = 'POST /other'\nto = 'other'\n")
}

/// The same, running; none where the kernel does not enforce it, which is said.
async fn started(isolation: &str, keys: &str) -> Option<Node> {
    let node = project(isolation, keys).start().await;
    let enforced = isolation == SANDBOX || node.enforces("seeing ").await;
    enforced.then_some(node)
}

/// Whether Python was refused something: it may not, or in namespaces there is no such thing.
fn is_refused(said: &str) -> bool {
    ["PermissionError", "FileNotFoundError", "ProcessLookupError"].contains(&said)
}

/// What became of some Python in the function.
async fn tried(node: &Node, code: &str) -> String {
    node.post("/any", serde_json::to_vec(code).unwrap()).await.text().to_owned()
}

async fn reads(node: &Node, path: &Path) -> String {
    tried(node, &format!("said = len(open({:?}, 'rb').read(1))", path.display().to_string())).await
}

/// Process id, private folder and file of the other function's instance.
async fn other(node: &Node) -> (i64, String, String) {
    node.post("/other", "{}").await.json()
}

#[rstest]
#[tokio::test]
async fn a_function_reads_nothing_of_the_bus_of_other_functions_and_of_the_host(
    #[values(SANDBOX, NAMESPACES)] isolation: &str,
) {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let Some(node) = started(isolation, "").await else { return };
    node.write("note.txt", "beside the config");
    let (_, home, code) = other(&node).await;
    let theirs = Path::new(&home).join("theirs");
    fs::write(&theirs, "x").unwrap();
    let data = node.data();
    for path in [
        data.join("fnbus.key"),
        data.join("log.db"),
        data.join("nats/server.conf"),
        Path::new(&code).to_owned(),
        theirs,
        node.path().join("other/app.py"),
        node.path().join("fnbus.toml"),
        node.path().join("note.txt"),
        outside.path().to_owned(),
    ] {
        assert!(path.is_file(), "{} is there to be read", path.display());
        let said = reads(&node, &path).await;
        assert!(is_refused(&said), "{said}: {}", path.display());
    }
    let versions = data.join("versions");
    let version = Path::new(&code).ancestors().find(|folder| folder.parent() == Some(versions.as_path())).unwrap();
    let version = version.file_name().unwrap().to_str().unwrap();
    for folder in [data.clone(), versions.clone(), data.join("tmp"), node.path().to_owned(), "/root".into()] {
        let said = tried(&node, &format!("said = os.listdir({:?})", folder.display().to_string())).await;
        // in namespaces what lies above its own folders has nothing else in it
        let seen = ["log.db", "fnbus.key", "fnbus.toml", "other", version].iter().any(|name| said.contains(name));
        assert!(is_refused(&said) || isolation == NAMESPACES && !seen, "{said}: {}", folder.display());
    }
    for file in [data.join("new"), node.path().join("new"), Path::new(&code).with_file_name("new"), "/tmp/new".into()] {
        let said = tried(&node, &format!("open({:?}, 'w')", file.display().to_string())).await;
        assert!(!file.exists() && (isolation == NAMESPACES || is_refused(&said)), "{said}: {}", file.display());
    }
    let own = "path = os.environ['HOME'] + '/mine'\nopen(path, 'w').write('1')\nsaid = open(path).read()";
    assert_eq!(tried(&node, own).await, "'1'", "its private folder is its own");
    assert_eq!(tried(&node, "said = open(os.environ['LAMBDA_TASK_ROOT'] + '/app.py').read(6)").await, "'import'");
}

#[rstest]
#[tokio::test]
async fn a_function_sees_no_memory_and_no_environment_of_others_and_signals_none(
    #[values(SANDBOX, NAMESPACES)] isolation: &str,
) {
    let Some(node) = started(isolation, "").await else { return };
    let (theirs, ..) = other(&node).await;
    let nats = node.nats_server().await.pid;
    let bus = node.process().as_raw_nonzero().get();
    let mut others = vec![bus, nats, node.warden().as_raw_nonzero().get()];
    // in namespaces it only knows the number it has there
    others.extend((isolation == SANDBOX).then_some(i32::try_from(theirs).unwrap()));
    for process in others {
        for file in ["environ", "mem", "maps"] {
            let said = reads(&node, Path::new(&format!("/proc/{process}/{file}"))).await;
            assert!(is_refused(&said), "{said}: {file} of {process}");
        }
        for what in [
            format!("os.readlink('/proc/{process}/fd/0')"),
            format!("os.kill({process}, signal.SIGKILL)"),
            format!("import resource\nresource.prlimit({process}, resource.RLIMIT_NOFILE, (1, 1))"),
        ] {
            let said = tried(&node, &what).await;
            assert!(is_refused(&said), "{said}: {what}");
        }
        assert_eq!(tried(&node, &format!("said = call(101, 16, {process}, 0, 0)")).await, "(-1, 1)", "ptrace");
    }
    // to everybody it may signal: processes of its own
    let said = tried(&node, "os.kill(-1, signal.SIGKILL)").await;
    assert_eq!(said, if isolation == SANDBOX { "None" } else { "ProcessLookupError" });
    assert_eq!(other(&node).await.0, theirs, "the other instance lives on");
    assert_eq!((node.process().as_raw_nonzero().get(), node.nats_server().await.pid), (bus, nats));
}

#[rstest]
#[tokio::test]
async fn what_no_function_needs_is_refused(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let Some(node) = started(isolation, "").await else { return };
    for what in [
        "libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)",
        "libc.umount2(b'/proc', 2)",
        "libc.chroot(b'/')",
        // a user namespace, and one of mounts
        "libc.unshare(0x10000000)",
        "libc.unshare(0x20000)",
        "libc.setns(0, 0)",
        "libc.chmod(os.environ['HOME'].encode(), 0o4755)",
        "libc.chown(os.environ['HOME'].encode(), 1234, 1234)",
        "libc.settimeofday(ctypes.create_string_buffer(16), None)",
        // to a host of virtual machines, and of packets
        "libc.socket(40, 1, 0)",
        "libc.socket(17, 3, 0)",
    ] {
        let code =
            format!("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nsaid = ({what}, ctypes.get_errno())");
        assert_eq!(tried(&node, &code).await, "(-1, 1)", "{what}");
    }
}

#[cfg(target_arch = "x86_64")]
#[rstest]
#[tokio::test]
async fn system_calls_that_get_at_the_kernel_are_refused(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let Some(node) = started(isolation, "").await else { return };
    for (name, number) in [
        ("keyctl", 250),
        ("bpf", 321),
        ("io_uring_setup", 425),
        ("perf_event_open", 298),
        ("userfaultfd", 323),
        ("pidfd_getfd", 438),
        ("open_by_handle_at", 304),
    ] {
        assert_eq!(tried(&node, &format!("said = call({number}, 0, 0, 0, 0, 0)")).await, "(-1, 1)", "{name}");
    }
    // the same calls by their second numbers, and what a filter cannot look into
    assert_eq!(tried(&node, "said = call(0x40000000 + 521, 16, 1, 0, 0)").await, "(-1, 38)", "ptrace of x32");
    assert_eq!(tried(&node, "said = call(435, 0, 0)").await, "(-1, 38)", "clone3");
}

#[rstest]
#[tokio::test]
async fn nats_and_the_control_socket_want_what_a_function_cannot_read(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let Some(node) = started(isolation, "").await else { return };
    let nats = node.json(&["node", "--json"]).await[0]["nats"].as_str().unwrap().to_owned();
    let port = nats.rsplit(':').next().unwrap();
    let greeted = format!(
        "s = socket.create_connection(('127.0.0.1', {port}))\ns.recv(9999)\n\
         s.sendall(b'CONNECT {{\"verbose\":false}}\\r\\nSUB > 1\\r\\nPING\\r\\n')\nsaid = s.recv(99)"
    );
    assert!(tried(&node, &greeted).await.contains("Authorization Violation"));
    let socket = node.data().join("fnbus.sock");
    let asked = format!(
        "s = socket.socket(socket.AF_UNIX)\ns.connect({:?})\n\
         s.sendall(b'GET /v1/nats HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')\nsaid = s.recv(99)",
        socket.display().to_string()
    );
    let answer = tried(&node, &asked).await;
    assert!(answer.contains("403 Forbidden") || isolation == NAMESPACES && is_refused(&answer), "{answer}");
}

#[rstest]
#[tokio::test]
async fn the_runtime_api_of_another_instance_does_not_answer(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let bootstrap = "#!/usr/bin/python3\nimport http.client, json, os\napi = os.environ['AWS_LAMBDA_RUNTIME_API']\n\
                     c = http.client.HTTPConnection(api)\nwhile True:\n    \
                     c.request('GET', '/2018-06-01/runtime/invocation/next')\n    r = c.getresponse()\n    r.read()\n    \
                     id = r.headers['Lambda-Runtime-Aws-Request-Id']\n    \
                     c.request('POST', f'/2018-06-01/runtime/invocation/{id}/response', json.dumps(api))\n    \
                     c.getresponse().read()\n";
    let api = format!("[functions.api]\nruntime = 'provided'\nisolation = '{isolation}'\n");
    let node = project(isolation, "")
        .program("api/bootstrap", bootstrap)
        .config(&api)
        .config("[triggers.api]\nhttp = 'POST /api'\nto = 'api'\n")
        .start()
        .await;
    if isolation == NAMESPACES && !node.enforces("seeing ").await {
        return;
    }
    let address = node.post("/api", "{}").await.text().to_owned();
    let next = format!(
        "import urllib.request\nsaid = urllib.request.urlopen('http://{address}/2018-06-01/runtime/invocation/next', timeout=5)"
    );
    let said = tried(&node, &next).await;
    assert!(["RemoteDisconnected", "ConnectionResetError", "URLError"].contains(&&*said), "{said}");
    assert_eq!(node.post("/api", "{}").await.text(), address, "it serves on");
}

#[rstest]
#[tokio::test]
async fn a_function_without_network_opens_no_connection_and_runs(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let Some(node) = started(isolation, "network = false").await else { return };
    for family in ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"] {
        assert_eq!(tried(&node, &format!("socket.socket(socket.{family})")).await, "PermissionError", "{family}");
    }
    assert_eq!(tried(&node, "said = subprocess.run(['echo', 'hi'], capture_output=True).stdout").await, "b'hi\\n'");
    let loop_of_events = "import asyncio\nasync def f(): return 1\nsaid = asyncio.run(f())";
    assert_eq!(tried(&node, loop_of_events).await, "1", "an event loop needs a pair of sockets");
}

#[rstest]
#[tokio::test]
async fn folders_are_reached_as_they_are_configured(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let keys = "folders = { read = ['in', 'list.txt'], write = 'out' }";
    let node = project(isolation, keys).file("in/a", "1").file("list.txt", "2").start().await;
    if isolation == NAMESPACES && !node.enforces("seeing ").await {
        return;
    }
    let at = |path: &str| node.path().join(path).display().to_string();
    assert_eq!(tried(&node, &format!("said = open({:?}).read()", at("in/a"))).await, "'1'");
    assert_eq!(tried(&node, &format!("said = open({:?}).read()", at("list.txt"))).await, "'2'");
    for file in ["in/b", "list.txt"] {
        let said = tried(&node, &format!("open({:?}, 'w')", at(file))).await;
        // in namespaces the file system itself is to be read alone
        assert!(is_refused(&said) || said == "OSError", "{said}: {file}");
    }
    assert_eq!(node.read("list.txt"), "2");
    assert_eq!(tried(&node, &format!("open({:?}, 'w').write('3')", at("out/b"))).await, "None");
    assert_eq!(node.read("out/b"), "3", "`out` was made");
    assert!(is_refused(&reads(&node, &node.path().join("fnbus.toml")).await));
}

#[tokio::test]
async fn a_program_in_a_sandbox_is_held_back_like_a_language() {
    let node = Project::new()
        .program("f/run.sh", "#!/bin/sh\nread -r path\ncat \"$path\" 2>&1; touch \"$HOME/mine\" && echo mine\n")
        .config("[functions.f]\nruntime = 'command'\nhandler = './run.sh'\n[triggers.f]\nhttp = 'POST /f'\npayload = 'body'\nto = 'f'\n")
        .start()
        .await;
    let said = node.post("/f", format!("{}\n", node.data().join("fnbus.key").display())).await.text().to_owned();
    assert!(said.contains("Permission denied") && said.ends_with("mine\n"), "{said}");
}

#[tokio::test]
async fn node_js_that_was_started_before_it_had_a_function_reads_its_own_code_alone() {
    let read = "const fs = require('fs');\nexports.handler = async (path) => {\n  \
                try { return fs.readFileSync(path || __filename, 'utf8').length > 0 && __filename; } catch (e) { return e.code; }\n};\n";
    let function = |name: &str| {
        format!(
            "[functions.{name}]\nruntime = 'node'\n[triggers.{name}]\nhttp = 'POST /{name}'\npayload = 'body'\nto = '{name}'\n"
        )
    };
    let node = Project::new()
        .file("any/index.js", read)
        .file("other/index.js", "exports.handler = async () => __filename;\n")
        .config(&function("any"))
        .config(&function("other"))
        .start()
        .await;
    let theirs = node.post("/other", "1").await.text().to_owned();
    let theirs = serde_json::to_vec(&theirs).unwrap();
    assert_eq!(node.post("/any", theirs.clone()).await.text(), "EACCES");
    fnbus_tests::eventually("one that waited has taken an edit", || async {
        let before = node.function("any").await["version"].clone();
        node.write("any/edit.txt", &uuid::Uuid::now_v7().to_string());
        fnbus_tests::eventually("the edit is served", || async {
            (node.function("any").await["version"] != before).then_some(())
        })
        .await;
        node.post("/any", "null").await.text().contains("/code/").then_some(())
    })
    .await;
    assert_eq!(node.post("/any", theirs).await.text(), "EACCES");
}

#[rstest]
#[tokio::test]
async fn what_eats_memory_or_floods_its_output_ends_alone(#[values(SANDBOX, NAMESPACES)] isolation: &str) {
    let Some(node) = started(isolation, "memory = 64\nretry = { attempts = 1 }").await else { return };
    assert_eq!(tried(&node, "said = len(b'x' * (1 << 33))").await, "MemoryError");
    assert_eq!(tried(&node, "for _ in range(200000): print('flood' * 20)").await, "None");
    let line = "import time\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: os.write(2, b'x' * 65536)";
    assert_eq!(tried(&node, line).await, "None", "a line without end");
    let said = tried(&node, "all = []\nwhile True: all.append(bytearray(1 << 20))").await;
    assert!(said == "MemoryError" || said.contains("oom"), "{said}");
    other(&node).await;
    let kept = node.fnbus(&["node", "--json"]).await;
    assert_eq!(kept.code(), 0, "{}", kept.all());
}

#[test]
fn check_says_what_a_sandbox_cannot_be_asked_for() {
    for (keys, says) in [
        ("runtime = 'python'\nisolation = 'process'\nnetwork = false", "has an effect in a sandbox alone"),
        ("runtime = 'python'\nisolation = 'process'\nfolders = { read = 'in' }", "has an effect in a sandbox alone"),
        ("runtime = 'provided'\nnetwork = false", "the Runtime API is asked over a connection"),
        ("runtime = 'python'\nfolders = { write = '.' }", "`.` and the data folder of fnbus are in one another"),
        ("runtime = 'python'\nfolders = { read = ['in', '.fnbus/tmp'] }", "`.fnbus/tmp` and the data folder"),
        ("runtime = 'python'\nfolders = { see = 'in' }", "see"),
    ] {
        let project = Project::new()
            .file("f/app.py", "def handler(event, context): pass\n")
            .program("f/bootstrap", "#!/bin/sh\n")
            .config(&format!("[functions.f]\n{keys}"));
        let checked = project.check(&[]);
        assert_eq!(checked.code(), 1, "{keys}");
        assert!(checked.all().replace('\n', " ").contains(says), "{keys}: {}", checked.all());
    }
}

#[test]
fn doctor_shows_what_this_machine_enforces_and_fails_when_something_is_missing() {
    let doctor = |project: &Project, arguments: &[&str]| -> fnbus_tests::Output {
        fs::write(project.path().join("fnbus.toml"), project.toml()).unwrap();
        project.command(&[&["doctor"], arguments].concat()).output().unwrap().into()
    };
    let project = Project::new().function("f", "def handler(event, context): pass\n");
    let found = doctor(&project, &["--json"]).lines().remove(0);
    assert!(found["isolation"]["landlock_abi"].as_u64().is_some_and(|abi| abi > 0), "{found}");
    assert!(found["isolation"]["parts"].as_array().unwrap().iter().all(|part| part["by"].is_string()), "{found}");
    assert_eq!(found["missing"], serde_json::json!([]), "{found}");
    let node = found["programs"].as_array().unwrap().iter().find(|program| program["name"] == "node").unwrap();
    let mut release = node["version"].as_str().unwrap().split('.').map(|number| number.parse::<u32>().unwrap());
    let keeps = (release.next().unwrap(), release.next().unwrap()) >= (22, 8);
    assert_eq!(node["keeps_compiled"], keeps, "{node}");
    let table = doctor(&project, &[]);
    assert_eq!(table.stdout.contains("; each instance compiles its code"), !keeps, "{}", table.all());
    assert!(
        table.code() == 0 && table.stdout.contains("landlock") && table.stdout.contains("nats-server"),
        "{}",
        table.all()
    );
    let project = project.variable("FNBUS_PYTHON", "/no/python");
    let missing = doctor(&project, &[]);
    assert!(missing.code() == 1 && missing.stderr.contains("missing: no Python"), "{}", missing.all());
}

#[tokio::test]
async fn a_node_that_requires_isolation_starts_where_the_kernel_enforces_it() {
    let node = project(SANDBOX, "").config("[bus]\nrequire_isolation = true\n").start().await;
    other(&node).await;
}

/// Becomes what it is told to, on a kernel without Landlock, as far as that can tell.
const OLD_KERNEL: &str = "import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# the number of the call; that of landlock_create_ruleset; there is no such call; all others are allowed
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('=HBBI', *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack('@HP', len(steps), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

#[tokio::test]
async fn what_the_kernel_does_not_enforce_is_said_and_refused_where_it_is_required() {
    let says = "files outside its own: it needs Landlock";
    let old = || project(SANDBOX, "").under(&["python3", "-c", OLD_KERNEL]);
    let required = old().config("[bus]\nrequire_isolation = true\n");
    let refused = required.fails_to_start().await;
    let said = refused.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(refused.code(), 1, "{said}");
    assert!(said.contains(says) && said.contains("take `require_isolation` out"), "{said}");
    assert!(!required.path().join(".fnbus").exists(), "something was begun");

    let node = old().start().await;
    node.says("this kernel does not hold functions back from: files outside its own").await;
    let doctor = node.fnbus(&["doctor"]).await;
    assert_eq!(doctor.code(), 1, "{}", doctor.all());
    assert!(doctor.stderr.contains(says), "{}", doctor.stderr);
    let held = doctor.stdout.lines().find(|line| line.starts_with("files outside its own")).unwrap();
    assert!(held.contains("NOT held back"), "{held}");
    // what does not need Landlock is held back all the same
    let code = "import ctypes\nsaid = ctypes.CDLL(None).unshare(0x20000)";
    assert_eq!(tried(&node, code).await, "-1");
}

#[tokio::test]
async fn an_edit_that_wants_what_is_required_and_not_enforced_is_refused_and_the_old_config_goes_on() {
    let bare = project("process", "").under(&["python3", "-c", OLD_KERNEL]);
    let node = bare.config("[bus]\nrequire_isolation = true\n").start().await;
    other(&node).await;
    let wants = node.project().toml().replacen("isolation = 'process'", "isolation = 'sandbox'", 1);
    node.configure(&format!("{wants}[triggers.more]\nhttp = 'POST /more'\nto = 'other'\n"));
    node.says("the config of before stays in force: [bus] require_isolation = true, and this kernel does not hold")
        .await;
    other(&node).await;
    assert_eq!(node.post("/more", "{}").await.status, 404, "nothing of the edit is in force");
    node.reconfigure(&format!("{}[triggers.more]\nhttp = 'POST /more'\nto = 'other'\n", node.project().toml())).await;
    assert_eq!(node.post("/more", "{}").await.status, 200);
}
