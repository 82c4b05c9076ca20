//! Commands that cannot do what they are asked: one sentence and the next step on stderr, exit 1 for what is not
//! there, exit 2 for wrong usage, and nothing changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{
    fs,
    io::pipe,
    process::{Command, Stdio},
};

use fnbus_tests::{Node, Output, Project};
use rstest::rstest;

async fn node() -> Node {
    Project::new()
        .function("price", "def handler(event, context):\n    print('priced')\n    return 1\n")
        .config("[triggers.orders]\nhttp = 'POST /orders'\nmode = 'async'\nto = 'price'\n")
        .start()
        .await
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!((output.code(), output.stdout.as_str()), (code, ""), "{}", output.all());
    let text = output.stderr.split_whitespace().filter(|word| *word != "|").collect::<Vec<_>>().join(" ");
    for word in words {
        assert!(text.contains(word), "not said: {word}\n{}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

const UNKNOWN: &str = "01900000-0000-7000-8000-000000000000";

#[rstest]
#[case::show(&["show", UNKNOWN])]
#[case::show_json(&["show", "--json", UNKNOWN])]
#[case::no_uuid(&["show", "no/such id?#%"])]
#[case::dead_show(&["dead", "show", UNKNOWN])]
#[case::redrive(&["dead", "redrive", UNKNOWN])]
#[case::replay(&["replay", "--yes", UNKNOWN])]
#[case::dry_run(&["replay", "--dry-run", UNKNOWN])]
#[tokio::test]
async fn an_id_that_is_not_in_the_log_is_named(#[case] arguments: &[&str]) {
    let node = node().await;
    let named = format!("no event has the id `{}` in this log", arguments[arguments.len() - 1]);
    refused(&node.fnbus(arguments).await, 1, &[&named, "`fnbus events` lists the ids"]);
}

#[tokio::test]
async fn one_unknown_id_among_known_ones_changes_nothing() {
    let node = node().await;
    let id = node.accepted("/orders", "{}").await;
    node.event_is(&id, "done").await;
    let output = node.fnbus(&["replay", &id, UNKNOWN, "--yes"]).await;
    refused(&output, 1, &[&format!("no event has the id `{UNKNOWN}`")]);
    assert_eq!(node.show(&id).await["deliveries"].as_array().unwrap().len(), 1, "it was replayed all the same");
}

#[rstest]
#[case::invoke(&["invoke", "pryce"])]
#[case::invoke_strange(&["invoke", "../pryce"])]
#[case::replay_to(&["replay", "--trigger", "orders", "--to", "pryce", "--yes"])]
#[tokio::test]
async fn an_unknown_function_is_named_with_those_there_are(#[case] arguments: &[&str]) {
    let node = node().await;
    let output = node.fnbus(arguments).await;
    refused(&output, 1, &["there is no function `", "pryce`; known: price", "`fnbus functions` lists them"]);
}

#[rstest]
#[case::nothing_said(&["replay", "--yes"], "nothing says what to deliver again", "name events by id, or filter: --trigger")]
#[case::nothing_matches(&["replay", "--type", "no.such", "--yes"], "no delivery matches; nothing was done", "`fnbus events`")]
#[case::no_dead_letter(&["dead", "redrive", "--all"], "no dead letter matches; nothing was done", "`fnbus dead list`")]
#[tokio::test]
async fn a_replay_of_nothing_does_nothing_and_says_so(
    #[case] arguments: &[&str],
    #[case] said: &str,
    #[case] help: &str,
) {
    refused(&node().await.fnbus(arguments).await, 1, &[said, help]);
}

#[tokio::test]
async fn a_replay_that_nobody_can_be_asked_about_wants_a_yes() {
    let node = node().await;
    let id = node.accepted("/orders", "{}").await;
    node.event_is(&id, "done").await;
    let output = node.fnbus(&["replay", &id]).await;
    refused(
        &output,
        1,
        &["nobody can be asked here", "say --yes to go on, --dry-run to only look", "1 of them ended well already"],
    );
    assert_eq!(node.show(&id).await["deliveries"].as_array().unwrap().len(), 1);
}

#[rstest]
#[case::flag(&["events", "--no-such"], "unexpected argument '--no-such'", "--help")]
#[case::command(&["evnts"], "unrecognized subcommand 'evnts'", "similar subcommand exists: 'events'")]
#[case::nothing(&["show"], "<ID>", "--help")]
#[case::empty_id(&["show", ""], "a value is required for '<ID>'", "--help")]
#[case::empty_name(&["invoke", ""], "a value is required for '<NAME>'", "--help")]
#[case::since(&["events", "--since", "yesterday"], "invalid value 'yesterday' for '--since <TIME>'", "use 10m, 2h or 3d (ago)")]
#[case::until(&["replay", "--until", "25:00"], "invalid value '25:00' for '--until <TIME>'", "RFC 3339")]
#[case::status(&["events", "--status", "broken"], "invalid value 'broken' for '--status <STATUS>'", "use one of held, pending, running")]
#[case::limit(&["events", "-n", "many"], "invalid value 'many' for '--limit <LIMIT>'", "--help")]
#[case::grace(&["up", "--grace", "soon"], "invalid value 'soon' for '--grace <TIME>'", "--help")]
#[case::url(&["up", "--nats", "http://x"], "--nats: `http://x` is not the address of a NATS server", "begins with nats:// or tls://")]
#[case::url_with_a_login(&["up", "--nats", "amqp://me:hush@x"], "--nats: `amqp://…@x` is not", "begins with nats://")]
#[case::name(&["logs", "no such"], "invalid value 'no such' for '[NAME]'", "use 1 to 64 of")]
#[case::both(&["dead", "redrive", "x", "--all"], "cannot be used with", "--help")]
#[test]
fn wrong_usage_ends_with_2_before_anything_is_asked(
    #[case] arguments: &[&str],
    #[case] said: &str,
    #[case] help: &str,
) {
    let output = Project::new().command(arguments).output().unwrap().into();
    refused(&output, 2, &[said, help]);
    assert!(!output.all().contains("hush"), "a password was shown: {}", output.all());
}

#[rstest]
#[case(&["events"])]
#[case(&["show", UNKNOWN])]
#[case(&["invoke", "price"])]
#[case(&["emit", "order.paid"])]
#[case(&["replay", UNKNOWN])]
#[case(&["dead", "list"])]
#[case(&["logs", "-f"])]
#[case(&["functions"])]
#[case(&["triggers"])]
#[case(&["node"])]
#[test]
fn without_a_running_node_every_command_says_how_to_start_one(#[case] arguments: &[&str]) {
    let project = Project::new().file("fnbus.toml", "");
    let output = project.command(arguments).output().unwrap().into();
    let data = project.path().join(".fnbus");
    refused(
        &output,
        1,
        &[
            &format!("no fnbus is running on the data folder {}", data.display()),
            "start it with `fnbus up`",
            "--data DIR",
        ],
    );
    assert!(!data.exists(), "asking made a data folder");
}

#[tokio::test]
async fn a_config_that_went_bad_does_not_hide_the_running_node() {
    let node = node().await;
    let id = node.accepted("/orders", "{}").await;
    node.event_is(&id, "done").await;
    for bad in ["[functions.price]\nmemroy = 1\n", "[http\n", "[bus]\ndata ="] {
        fs::write(node.path().join("fnbus.toml"), bad).unwrap();
        assert_eq!(node.show(&id).await["status"], "done", "with {bad:?}");
    }
    fs::remove_file(node.path().join("fnbus.toml")).unwrap();
    refused(&node.fnbus(&["show", &id]).await, 1, &["there is no fnbus.toml", "--config names another"]);
    let data = node.data().display().to_string();
    let found = node.fnbus(&["--data", &data, "show", &id, "--json"]).await;
    assert_eq!(found.lines()[0]["id"], id.as_str(), "--data finds it without a config file");
}

#[rstest]
#[case::invoke(&["invoke", "price", "-d", "@no/such.json"])]
#[case::emit(&["emit", "order.paid", "-d", "@no/such.json"])]
#[case::emit_whole(&["emit", "@no/such.json"])]
#[tokio::test]
async fn data_in_a_file_that_is_not_there_is_named_and_nothing_is_sent(#[case] arguments: &[&str]) {
    let node = node().await;
    let output = node.fnbus(arguments).await;
    refused(&output, 1, &["the data cannot be read: no/such.json: No such file", "@FILE, or - for stdin"]);
    assert!(node.json(&["events", "--json"]).await.is_empty());
}

#[rstest]
#[case::no_event(&["emit", "-"], "{", "it is not JSON as expected here")]
#[case::no_type(&["emit", "-"], "{}", "the attribute `type` is missing")]
#[case::empty_type(&["emit", ""], "", "the attribute `type` is empty")]
#[case::line_break(&["emit", "a\nb"], "", "the attribute `type` has control characters")]
#[case::extension(&["emit", "a", "--ext", "Big=1"], "", "`Big` is not an attribute's name")]
#[tokio::test]
async fn an_event_that_is_none_is_refused_with_the_reason(
    #[case] arguments: &[&str],
    #[case] stdin: &str,
    #[case] reason: &str,
) {
    let node = node().await;
    let file = node.path().join("stdin");
    fs::write(&file, stdin).unwrap();
    let mut command = node.project().command(arguments);
    refused(&command.stdin(fs::File::open(file).unwrap()).output().unwrap().into(), 1, &[reason]);
    assert!(node.json(&["events", "--json"]).await.is_empty());
}

/// Runs it with nobody at the other end of stdout, as `fnbus … | head` does when head has gone.
fn into_a_broken_pipe(mut command: Command) -> Output {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap().into()
}

#[rstest]
#[case(&["config", "schema"])]
#[case(&["config", "print", "--default"])]
#[case(&["completions", "bash"])]
#[case(&["check"])]
#[case(&["--help"])]
#[case(&["--version"])]
#[test]
fn output_that_nobody_reads_ends_quietly(#[case] arguments: &[&str]) {
    let project = Project::new().file("fnbus.toml", "");
    let output = into_a_broken_pipe(project.command(arguments));
    assert_eq!((output.code(), output.stderr.as_str()), (0, ""));
}

#[tokio::test]
async fn answers_of_a_node_that_nobody_reads_end_quietly_and_the_node_goes_on() {
    let node = node().await;
    let id = node.accepted("/orders", "{}").await;
    node.event_is(&id, "done").await;
    let commands: [&[&str]; 12] = [
        &["events"],
        &["events", "--json"],
        &["events", "--follow"],
        &["logs"],
        &["logs", "-f", "--json"],
        &["show", &id],
        &["functions"],
        &["triggers"],
        &["node"],
        &["emit", "order.paid"],
        &["replay", &id, "--dry-run", "--json"],
        &["dead", "list", "--json"],
    ];
    for arguments in commands {
        let output = into_a_broken_pipe(node.project().command(arguments));
        assert_eq!((output.code(), output.stdout.as_str()), (0, ""), "{arguments:?}: {}", output.stderr);
        assert!(!output.stderr.contains("pipe") && !output.stderr.contains("panicked"), "{}", output.stderr);
    }
    assert_eq!(node.fnbus(&["invoke", "price"]).await.stdout, "1\n");
}

#[tokio::test]
async fn init_overwrites_nothing() {
    let project = Project::new().file("hello/app.py", "mine");
    let output = project.command(&["init"]).output().unwrap().into();
    refused(&output, 1, &["hello/app.py exists already", "nothing was written; name another folder: fnbus init DIR"]);
    assert!(!project.path().join("fnbus.toml").exists());
    assert_eq!(fs::read_to_string(project.path().join("hello/app.py")).unwrap(), "mine");
}
