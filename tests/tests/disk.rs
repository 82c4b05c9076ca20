//! What the disk under the event log can do to a node: be full, fail, lose what was not synced, change what it keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{fs, path::Path};

use fnbus_tests::{Disk, Node, Project, eventually};
use serde_json::Value;

/// Writes down each of its runs, elsewhere than in the data folder.
const CODE: &str = "import os\n\ndef handler(event, context):\n    \
                    fd = os.open(os.environ['RUNS'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n    \
                    os.write(fd, (context.event_id + '\\n').encode())\n    os.close(fd)\n    return 'ran'\n";

const TRIGGERS: &str = "[triggers.call]\nhttp = 'GET /call'\nto = 'note'\n\
                        [triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'note'\n";

/// A function that notes its runs, called and delivered to.
fn noting(disk: &Disk) -> Project {
    let project = Project::new();
    let runs = project.path().join("notes/runs").display().to_string();
    project.function_with("note", CODE, &format!("env = {{ RUNS = '{runs}' }}")).config(TRIGGERS).on_disk(disk)
}

/// Posts a job; the status and what `Retry-After` says.
async fn post(node: &Node) -> (u16, Option<String>) {
    let answer = node.post("/jobs", "{}").await;
    (answer.status.as_u16(), answer.header("retry-after").map(str::to_owned))
}

/// How often each event ran, by the function's own account.
fn runs(node: &Node, id: &str) -> usize {
    node.read("notes/runs").lines().filter(|line| *line == id).count()
}

// -- full -------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn on_a_full_disk_nothing_is_accepted_calls_are_answered_and_it_goes_on_by_itself_when_there_is_space() {
    let disk = Disk::new();
    let node = noting(&disk).start().await;
    let before = node.accepted("/jobs", "{}").await;
    node.event_is(&before, "done").await;
    disk.is_full();
    assert_eq!(post(&node).await, (507, Some("30".to_owned())));
    let problem = node.post("/jobs", "{}").await;
    assert_eq!(problem.json::<Value>()["type"], "urn:fnbus:log-full");
    assert_eq!(node.get("/call").await.text(), "ran", "a synchronous call needs no log");
    assert_eq!(node.show(&before).await["status"], "done", "what is in the log can be read");
    let replay = node.fnbus(&["replay", &before, "--yes"]).await;
    assert_eq!(replay.code(), 1);
    assert!(replay.stderr.contains("no space is left for the event log"), "{}", replay.stderr);
    assert!(disk.failed() > 0);
    disk.is_fine();
    let after = node.accepted("/jobs", "{}").await;
    node.event_is(&after, "done").await;
    assert_eq!(runs(&node, &after), 1);
}

#[tokio::test]
async fn what_ends_while_the_disk_is_full_is_recorded_when_there_is_space_and_runs_once() {
    let disk = Disk::new();
    let code = CODE.replace("return 'ran'", "\n    while not os.path.exists(os.environ['GO']): pass");
    let project = noting(&disk);
    let (runs_file, go) = (project.path().join("notes/runs"), project.path().join("go"));
    let keys = format!("concurrency = 2\nenv = {{ RUNS = '{}', GO = '{}' }}", runs_file.display(), go.display());
    let slow = "[triggers.slow]\nhttp = 'POST /slow'\nmode = 'async'\nto = ['slow', 'file:out.jsonl']\n";
    let node = project.function_with("slow", &code, &keys).config(slow).start().await;
    let ids = [node.accepted("/slow", "{}").await, node.accepted("/slow", "{}").await];
    let waiting = node.accepted("/slow", "{}").await;
    node.lines_of("notes/runs", 2).await;
    disk.is_full();
    assert_eq!(post(&node).await.0, 507);
    node.write("go", "");
    node.says("an outcome could not be recorded").await;
    assert_eq!(runs(&node, &waiting), 0, "what could not be recorded is not begun");
    disk.is_fine();
    for id in ids.iter().chain([&waiting]) {
        node.event_is(id, "done").await;
        assert_eq!(runs(&node, id), 1);
    }
    assert_eq!(node.read("out.jsonl").lines().count(), 3);
}

// -- full, for a function -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_function_whose_own_folder_is_full_gets_the_error_and_is_tried_again_until_there_is_space() {
    const WRITES: &str = "import os\n\ndef handler(event, context):\n    print('before it writes')\n    \
                          with open(os.environ['TMPDIR'] + '/own', 'w') as file: file.write('x' * 100000)\n";
    let disk = Disk::new();
    let project = Project::new().config(&TRIGGERS.replace("POST /jobs'", "POST /jobs'\npayload = 'body'"));
    let own = project.path().canonicalize().unwrap().join(".fnbus/tmp");
    let env: Vec<String> = disk.variables(&own).iter().map(|(name, value)| format!("{name} = '{value}'")).collect();
    // it loads the library that spoils its disk
    let keys = format!(
        "isolation = 'process'\nretry = {{ attempts = 99, wait = '100ms', max_wait = '200ms' }}\nenv = {{ {} }}",
        env.join(", ")
    );
    let node = project.function_with("note", WRITES, &keys).start().await;
    node.function_ready("note").await;
    disk.is_full();
    assert_eq!(node.get("/call").await.status, 502);
    let id = node.accepted("/jobs", "{}").await;
    node.says("note failed: OSError: [Errno 28] No space left on device").await;
    disk.is_fine();
    let event = node.event_is(&id, "done").await;
    let first = &event["deliveries"][0]["attempts"][0];
    assert_eq!((&first["outcome"], &first["error"]["kind"]), (&"error".into(), &"OSError".into()));
    assert!(first["log"].as_str().unwrap().contains("before it writes"), "{first}");
    assert_eq!(node.get("/call").await.status, 200);
}

#[tokio::test]
async fn on_a_full_disk_no_instance_is_started_which_is_said_and_the_next_call_after_it_is_answered() {
    let disk = Disk::new();
    let project = noting(&disk);
    let toml = project.toml().replace("env =", "keep_alive = '50ms'\nzygote = false\nenv =");
    let node = project.whole_config(&toml).start().await;
    node.function_ready("note").await;
    eventually("no instance is left", || async { (node.function("note").await["warm"] == 0).then_some(()) }).await;
    disk.is_full();
    assert_eq!(node.get("/call").await.status, 502);
    node.says("`note` could not be started: no private folder can be made at").await;
    node.says("No space left on device").await;
    disk.is_fine();
    assert_eq!(node.get("/call").await.text(), "ran");
}

#[tokio::test]
async fn a_node_whose_own_words_go_to_a_full_disk_serves_on() {
    let code = "def handler(event, context):\n    print('said')\n    raise ValueError('wrong')\n";
    let project = Project::new().config(TRIGGERS).printing_to("/dev/full");
    let node = project.function_with("note", code, "retry = { attempts = 2, wait = '10ms' }").start().await;
    let id = node.accepted("/jobs", "{}").await;
    let event = node.event_is(&id, "dead").await;
    assert!(event["deliveries"][0]["attempts"][1]["log"].as_str().unwrap().contains("said"), "{event}");
    assert_eq!(node.get("/call").await.status, 502);
    assert!(node.stop().await.success());
    assert_eq!(node.said(), "", "nothing of it was kept");
}

// -- failing ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_disk_that_does_not_keep_what_is_synced_ends_the_node_and_what_was_confirmed_is_there() {
    let disk = Disk::new();
    let mut node = noting(&disk).start().await;
    let confirmed = node.accepted("/jobs", "{}").await;
    node.event_is(&confirmed, "done").await;
    disk.cannot_sync();
    let refused = node.post("/jobs", "{}").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    assert_eq!(node.ended().await.code(), Some(1));
    let said = node.said();
    for words in ["the disk did not keep what was written to the event log", "look at that disk"] {
        assert!(said.contains(words), "not said: {words}");
    }
    disk.is_fine();
    node.restart().await;
    assert_eq!(node.show(&confirmed).await["status"], "done");
    let after = node.accepted("/jobs", "{}").await;
    node.event_is(&after, "done").await;
}

#[tokio::test]
async fn a_write_that_fails_is_a_503_and_the_next_one_is_tried_anew() {
    let disk = Disk::new();
    let node = noting(&disk).start().await;
    disk.cannot_write();
    assert_eq!(post(&node).await, (503, Some("1".to_owned())));
    disk.is_fine();
    let id = node.accepted("/jobs", "{}").await;
    node.event_is(&id, "done").await;
    assert_eq!(runs(&node, &id), 1);
}

// -- changing what it keeps -------------------------------------------------------------------------------------------

/// Changes a byte of the first place where a file has `text`.
fn flip(path: &Path, text: &str) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("the text is in the file");
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Makes the pages of a log unreadable that have `text` in them, and says how many.
fn damage(log: &Path, text: &str) -> usize {
    let mut bytes = fs::read(log).unwrap();
    let pages = bytes.chunks_mut(8192).skip(1);
    let damaged = pages.filter(|page| page.windows(text.len()).any(|window| window == text.as_bytes()));
    let damaged = damaged.map(|page| page[0] = 0xff).count();
    fs::write(log, bytes).unwrap();
    damaged
}

#[tokio::test]
async fn an_event_that_the_disk_changed_is_never_delivered_or_shown_and_the_others_run() {
    let disk = Disk::new();
    let project = noting(&disk);
    let stopped = project.toml().replace("env =", "concurrency = 0\nenv =");
    let running = project.toml().to_owned();
    let mut node = project.whole_config(&stopped).start().await;
    let changed = node.accepted("/jobs", "\"a body that will be changed\"").await;
    let other = node.accepted("/jobs", "\"another one\"").await;
    assert!(node.stop().await.success());
    flip(&node.data().join("log.db"), "a body that will be changed");
    node.restart_with(&running).await;
    node.event_is(&other, "done").await;
    let event = node.event_is(&changed, "dead").await;
    assert_eq!((&event["corrupt"], &event["data"]), (&Value::Bool(true), &Value::Null));
    let delivery = &event["deliveries"][0];
    assert_eq!(delivery["reason"], "corrupt");
    assert_eq!(delivery["attempts"][0]["error"]["kind"], "Log.Corrupt");
    assert_eq!(runs(&node, &changed), 0);
    let check = node.fnbus(&["backup", "--check"]).await;
    assert_eq!(check.code(), 1);
    assert!(check.stderr.contains(&changed), "{}", check.stderr);
}

#[tokio::test]
async fn beside_a_damaged_page_nothing_is_accepted_and_no_backup_is_made_but_calls_are_answered() {
    let disk = Disk::new();
    let mut node = noting(&disk).start().await;
    let known = node.accepted("/jobs", "\"a body on a page that will be damaged\"").await;
    node.event_is(&known, "done").await;
    assert!(node.stop().await.success());
    assert!(damage(&node.data().join("log.db"), "that will be damaged") > 0);
    node.restart().await;
    assert_eq!(post(&node).await, (503, Some("1".to_owned())));
    node.says("the event log is damaged").await;
    assert_eq!(post(&node).await.0, 503);
    assert_eq!(node.get("/call").await.text(), "ran");
    assert!(node.json(&["node", "--json"]).await[0]["log_trouble"].as_str().unwrap().contains("damaged"));
    let backup = node.fnbus(&["backup", "copy.db"]).await;
    assert_eq!(backup.code(), 1);
    assert!(backup.stderr.contains("log.db is damaged"), "{}", backup.stderr);
    assert!(!node.path().join("copy.db").exists());
}

#[tokio::test]
async fn after_a_kill_a_log_with_damaged_pages_is_not_started_on() {
    let disk = Disk::new();
    let mut node = noting(&disk).start().await;
    let body = format!("\"a body on a page that will be damaged{}\"", "!".repeat(5000));
    for _ in 0..5 {
        node.accepted("/jobs", body.clone()).await;
    }
    node.deliveries_are("done", 5).await;
    assert!(node.stop().await.success());
    node.restart().await;
    node.accepted("/jobs", "{}").await;
    node.kill();
    assert!(damage(&node.data().join("log.db"), "that will be damaged") > 1);
    let refused = node.project().fails_to_start().await;
    assert_eq!(refused.code(), 1);
    for words in ["log.db is damaged", "as docs/operating.md says"] {
        assert!(refused.stderr.contains(words), "not said: {words} in {}", refused.stderr);
    }
}
