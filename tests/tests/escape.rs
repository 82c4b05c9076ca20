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
/// A second function, with a secret of its own.
const OTHER: &str = "import os\ndef handler(event, context): return [os.getpid(), os.environ['HOME'], __file__]\n";

fn project(keys: &str) -> Project {
    Project::new()
        .function_with("any", ANY, keys)
        .function_with("other", OTHER, "env = { TOKEN = 'hush' }")
        .config(ROUTE)
        .config("[triggers.other]\nhttp = 'POST /other'\nto = 'other'\n")
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

#[tokio::test]
async fn a_function_reads_nothing_of_the_bus_of_other_functions_and_of_the_host() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let node = project("").file("note.txt", "beside the config").start().await;
    let (_, home, code) = other(&node).await;
    fs::write(Path::new(&home).join("theirs"), "x").unwrap();
    let data = node.data();
    for path in [
        data.join("fnbus.key"),
        data.join("nats/server.conf"),
        Path::new(&code).to_owned(),
        Path::new(&home).join("theirs"),
        node.path().join("other/app.py"),
        node.path().join("fnbus.toml"),
        node.path().join("note.txt"),
        outside.path().to_owned(),
    ] {
        assert!(path.is_file(), "{} is there to be read", path.display());
        assert_eq!(reads(&node, &path).await, "PermissionError", "{}", path.display());
    }
    for folder in [data.clone(), data.join("versions"), data.join("tmp"), node.path().to_owned(), "/root".into()] {
        let listed = tried(&node, &format!("said = os.listdir({:?})", folder.display().to_string())).await;
        assert_eq!(listed, "PermissionError", "{}", folder.display());
    }
    for file in [data.join("new"), node.path().join("new"), Path::new(&code).with_file_name("new"), "/tmp/new".into()] {
        let written = tried(&node, &format!("open({:?}, 'w')", file.display().to_string())).await;
        assert_eq!(written, "PermissionError", "{}", file.display());
    }
    let own = "path = os.environ['HOME'] + '/mine'\nopen(path, 'w').write('1')\nsaid = open(path).read()";
    assert_eq!(tried(&node, own).await, "'1'", "its private folder is its own");
    assert_eq!(tried(&node, "said = open(os.environ['LAMBDA_TASK_ROOT'] + '/app.py').read(6)").await, "'import'");
}

#[tokio::test]
async fn a_function_sees_no_memory_and_no_environment_of_others_and_signals_none() {
    let node = project("").start().await;
    let (theirs, ..) = other(&node).await;
    let nats = node.nats_server().await.pid;
    let bus = node.process().as_raw_nonzero().get();
    for process in [bus, nats, i32::try_from(theirs).unwrap()] {
        for file in ["environ", "mem", "maps"] {
            let read = reads(&node, Path::new(&format!("/proc/{process}/{file}"))).await;
            assert_eq!(read, "PermissionError", "{file} of {process}");
        }
        assert_eq!(tried(&node, &format!("os.readlink('/proc/{process}/fd/0')")).await, "PermissionError");
        assert_eq!(tried(&node, &format!("os.kill({process}, signal.SIGKILL)")).await, "PermissionError");
        assert_eq!(tried(&node, &format!("said = call(101, 16, {process}, 0, 0)")).await, "(-1, 1)", "ptrace");
        let limited = format!("import resource\nresource.prlimit({process}, resource.RLIMIT_NOFILE, (1, 1))");
        assert_eq!(tried(&node, &limited).await, "PermissionError");
    }
    // to everybody it may signal: processes of its own
    assert_eq!(tried(&node, "os.kill(-1, signal.SIGKILL)").await, "None");
    assert_eq!(other(&node).await.0, theirs, "the other instance lives on");
    assert_eq!((node.process().as_raw_nonzero().get(), node.nats_server().await.pid), (bus, nats));
}

#[rstest]
#[case::mount("libc.mount(b'none', b'/mnt', b'tmpfs', 0, None)")]
#[case::chroot("libc.chroot(b'/')")]
#[case::a_user_namespace("libc.unshare(0x10000000)")]
#[case::a_mount_namespace("libc.unshare(0x20000)")]
#[case::setns("libc.setns(0, 0)")]
#[case::set_user_id("libc.chmod(os.environ['HOME'].encode(), 0o4755)")]
#[case::owner("libc.chown(os.environ['HOME'].encode(), 1234, 1234)")]
#[case::clock("libc.settimeofday(ctypes.create_string_buffer(16), None)")]
#[case::vsock("libc.socket(40, 1, 0)")]
#[case::packets("libc.socket(17, 3, 0)")]
#[tokio::test]
async fn what_no_function_needs_is_refused(#[case] what: &str) {
    let code = format!("import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nsaid = ({what}, ctypes.get_errno())");
    let node = Project::new().function("any", ANY).config(ROUTE).start().await;
    assert_eq!(tried(&node, &code).await, "(-1, 1)");
}

#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn system_calls_that_get_at_the_kernel_are_refused() {
    let node = Project::new().function("any", ANY).config(ROUTE).start().await;
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

#[tokio::test]
async fn nats_and_the_control_socket_want_what_a_function_cannot_read() {
    let node = project("").start().await;
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
    assert!(answer.contains("403 Forbidden"), "{answer}");
}

#[tokio::test]
async fn the_runtime_api_of_another_instance_does_not_answer() {
    let bootstrap = "#!/usr/bin/python3\nimport http.client, json, os\napi = os.environ['AWS_LAMBDA_RUNTIME_API']\n\
                     c = http.client.HTTPConnection(api)\nwhile True:\n    \
                     c.request('GET', '/2018-06-01/runtime/invocation/next')\n    r = c.getresponse()\n    r.read()\n    \
                     id = r.headers['Lambda-Runtime-Aws-Request-Id']\n    \
                     c.request('POST', f'/2018-06-01/runtime/invocation/{id}/response', json.dumps(api))\n    \
                     c.getresponse().read()\n";
    let node = project("")
        .program("api/bootstrap", bootstrap)
        .config("[functions.api]\nruntime = 'provided'\n[triggers.api]\nhttp = 'POST /api'\nto = 'api'\n")
        .start()
        .await;
    let address = node.post("/api", "{}").await.text().to_owned();
    let next = format!(
        "import urllib.request\nsaid = urllib.request.urlopen('http://{address}/2018-06-01/runtime/invocation/next', timeout=5)"
    );
    let said = tried(&node, &next).await;
    assert!(["RemoteDisconnected", "ConnectionResetError", "URLError"].contains(&&*said), "{said}");
    assert_eq!(node.post("/api", "{}").await.text(), address, "it serves on");
}

#[tokio::test]
async fn a_function_without_network_opens_no_connection_and_runs() {
    let node = project("network = false").start().await;
    for family in ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"] {
        assert_eq!(tried(&node, &format!("socket.socket(socket.{family})")).await, "PermissionError", "{family}");
    }
    assert_eq!(tried(&node, "said = subprocess.run(['echo', 'hi'], capture_output=True).stdout").await, "b'hi\\n'");
    let loop_of_events = "import asyncio\nasync def f(): return 1\nsaid = asyncio.run(f())";
    assert_eq!(tried(&node, loop_of_events).await, "1", "an event loop needs a pair of sockets");
}

#[tokio::test]
async fn folders_are_reached_as_they_are_configured() {
    let keys = "folders = { read = ['in', 'list.txt'], write = 'out' }";
    let node = project(keys).file("in/a", "1").file("list.txt", "2").start().await;
    let at = |path: &str| node.path().join(path).display().to_string();
    assert_eq!(tried(&node, &format!("said = open({:?}).read()", at("in/a"))).await, "'1'");
    assert_eq!(tried(&node, &format!("said = open({:?}).read()", at("list.txt"))).await, "'2'");
    assert_eq!(tried(&node, &format!("open({:?}, 'w')", at("in/b"))).await, "PermissionError");
    assert_eq!(tried(&node, &format!("open({:?}, 'w')", at("list.txt"))).await, "PermissionError");
    assert_eq!(tried(&node, &format!("open({:?}, 'w').write('3')", at("out/b"))).await, "None");
    assert_eq!(node.read("out/b"), "3", "`out` was made");
    assert_eq!(reads(&node, &node.path().join("fnbus.toml")).await, "PermissionError");
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
        node.post("/any", "null").await.text().ends_with("/code/index.js").then_some(())
    })
    .await;
    assert_eq!(node.post("/any", theirs).await.text(), "EACCES");
}

#[tokio::test]
async fn what_eats_memory_or_floods_its_output_ends_alone() {
    let node = project("memory = 64\nretry = { attempts = 1 }").start().await;
    assert_eq!(tried(&node, "said = len(b'x' * (1 << 33))").await, "MemoryError");
    assert_eq!(tried(&node, "for _ in range(200000): print('flood' * 20)").await, "None");
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
    let table = doctor(&project, &[]);
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
    let node = project("").config("[bus]\nrequire_isolation = true\n").start().await;
    other(&node).await;
}
