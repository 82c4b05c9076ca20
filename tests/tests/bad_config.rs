//! A config that cannot be run: `fnbus check` and `fnbus up` say everything that is wrong with it, where, and what to
//! do; nothing is started and nothing is written.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Output, Project};
use rstest::rstest;
use serde_json::Value;

const PRICE: &str = "[functions.price]\nruntime = 'python'\n";

/// A project with one function on the disk, `price`.
fn project(toml: &str) -> Project {
    Project::new().file("price/app.py", "def handler(event, context): pass\n").whole_config(toml)
}

/// What both commands say, and the problems one by one.
struct Refused {
    text: String,
    problems: Vec<Value>,
}

impl Refused {
    /// The file and line of each problem, as an editor opens them.
    fn places(&self) -> Vec<String> {
        self.problems.iter().map(|p| format!("{}:{}", p["file"].as_str().unwrap(), p["line"])).collect()
    }

    fn messages(&self) -> Vec<&str> {
        self.problems.iter().map(|p| p["message"].as_str().unwrap()).collect()
    }

    fn advice(&self) -> Vec<&str> {
        self.problems.iter().map(|p| p["advice"].as_str().unwrap_or("")).collect()
    }
}

async fn refused(project: &Project) -> Refused {
    let checked = project.check(&[]);
    assert_eq!((checked.code(), checked.stdout.as_str()), (1, ""), "{}", checked.all());
    let json = project.check(&["--json"]);
    assert_eq!((json.code(), json.stderr.as_str()), (1, ""), "programs read stdout alone");
    let up = project.fails_to_start().await;
    assert_eq!((up.code(), &up.stderr), (1, &checked.stderr), "`up` says what `check` says");
    assert!(!project.path().join(".fnbus").exists(), "a data folder was made although nothing could start");
    Refused { problems: json.lines(), text: checked.stderr }
}

#[tokio::test]
async fn broken_toml_is_shown_where_it_breaks() {
    let refused = refused(&project("[http]\nlisten = \"127.0.0.1:0\n[functions.price]\n")).await;
    assert_eq!(refused.places(), ["fnbus.toml:2"]);
    assert!(refused.messages()[0].contains("invalid basic string"), "{}", refused.text);
    assert!(refused.text.contains("fnbus.toml:2:22") && refused.text.contains("1 problem in"), "{}", refused.text);
}

#[tokio::test]
async fn unknown_keys_are_reported_all_at_once_each_with_its_line_and_what_was_meant() {
    let toml = "[http]\nlisen = '127.0.0.1:0'\n[functions.price]\nruntime = 'python'\nmemroy = 64\n\
                [triggers.price]\nhttp = 'GET /price'\nto = 'price'\nmod = 'async'\n[buss]\n";
    let refused = refused(&project(toml)).await;
    assert_eq!(refused.places(), ["fnbus.toml:2", "fnbus.toml:5", "fnbus.toml:9", "fnbus.toml:10"], "{}", refused.text);
    for (advice, meant) in refused.advice().iter().zip(["listen", "memory", "mode", "bus"]) {
        assert!(advice.starts_with(&format!("did you mean `{meant}`?")), "{advice}");
    }
    assert!(refused.text.contains("`memroy` in [functions.price] is not a known key"), "{}", refused.text);
    assert!(refused.text.trim_end().ends_with("4 problems in fnbus.toml"), "{}", refused.text);
}

#[tokio::test]
async fn a_target_that_does_not_exist_is_named_with_the_one_that_may_be_meant() {
    let toml = format!("{PRICE}[triggers.price]\nhttp = 'GET /price'\nto = 'pryce'\n");
    let refused = refused(&project(&toml)).await;
    assert_eq!(refused.places(), ["fnbus.toml:5"]);
    assert_eq!(refused.messages(), ["there is no function `pryce`"]);
    assert_eq!(refused.advice(), ["did you mean `price`?"]);
}

#[tokio::test]
async fn a_function_and_a_pipeline_cannot_have_one_name() {
    let refused = refused(&project(&format!("{PRICE}[pipelines.price]\nsteps = ['price']\n"))).await;
    assert!(refused.messages().contains(&"`price` is a function and a pipeline"), "{}", refused.text);
    assert!(refused.text.contains("rename the function or this"), "{}", refused.text);
    assert_eq!(refused.places()[0], "fnbus.toml:3", "{}", refused.text);
}

#[tokio::test]
async fn two_routes_that_take_the_same_requests_collide() {
    let toml = format!(
        "{PRICE}[triggers.a]\nhttp = 'GET /orders/{{id}}'\nto = 'price'\n\
         [triggers.b]\nhttp = ['POST /orders', 'GET /orders/{{name}}']\nto = 'price'\n"
    );
    let refused = refused(&project(&toml)).await;
    assert_eq!(refused.places(), ["fnbus.toml:7"]);
    assert_eq!(refused.messages(), ["`GET /orders/{name}` takes the requests of a route of `a`"]);
    assert_eq!(refused.advice(), ["change the method or the path of one of them"]);
}

#[rstest]
#[case::size_word("[http]\nmax_body = 'lots'\n", "`lots` is not a size", "write \"6MB\"")]
#[case::size_without_unit("[http]\nmax_body = 6\n", "`max_body` is a size and needs a unit", "write \"6MB\"")]
#[case::duration_word("[log]\nkeep = 'ages'\n", "`ages` is not a duration", "or \"7d\"")]
#[case::duration_without_unit("[log]\nkeep = 7\n", "`keep` is a duration and needs a unit", "write \"7ms\" or \"7s\"")]
#[case::empty_path("[bus]\ndata = ''\n", "`data` must be a path", "")]
#[case::namespace_with_a_space("[bus]\nnamespace = 'my shop'\n", "`my shop` is not a name: use 1 to 64 of A-Z", "")]
#[case::namespace_with_wildcards("[bus]\nnamespace = 'shop.>'\n", "`shop.>` is not a name: use 1 to 64 of A-Z", "")]
#[case::address("[http]\nlisten = ':8080'\n", "`:8080` is not an address with a port", "write \"0.0.0.0:8080\"")]
#[case::nats_address(
    "[bus]\nnats = 'localhost'\n",
    "`localhost` is not the address of a NATS server: write nats://host:port",
    "write \"nats://127.0.0.1:4222\""
)]
#[case::port("[bus]\nnats_port = 70000\n", "`nats_port` must be from 1 to 65535", "")]
#[tokio::test]
async fn a_value_that_cannot_be_read_is_said_with_one_that_can(
    #[case] toml: &str,
    #[case] message: &str,
    #[case] advice: &str,
) {
    let refused = refused(&project(toml)).await;
    assert_eq!(refused.places(), ["fnbus.toml:2"], "{}", refused.text);
    assert!(refused.messages()[0].starts_with(message), "{}", refused.text);
    assert!(refused.advice()[0].contains(advice), "{}", refused.text);
}

#[rstest]
#[case::route(
    "http = '/orders'",
    "`/orders` is not a route; write a method and a path, such as `POST /orders/{region}`"
)]
#[case::route_variable(
    "http = 'GET /orders/{id'",
    "the segment `{id` is neither a fixed text nor one variable; write `{name}` alone"
)]
#[case::both_kinds("http = 'GET /o'\nevent = { type = 'o' }", "[triggers.o] has two kinds, `http` and `event`")]
#[case::no_schedule("cron = '0 2 * *'", "`0 2 * *` has 4 fields, and a cron expression has 5")]
#[case::no_hour("cron = '0 24 * * *'", "`0 24 * * *` is not a cron expression: the hour `24` is not one: use 0 to 23")]
#[case::no_such_day("cron = '0 0 30 2 *'", "`0 0 30 2 *` never comes")]
#[case::no_zone("cron = '0 2 * * *'\ntimezone = 'Asia/Soul'", "`Asia/Soul` is not a time zone")]
#[case::no_glob("file = 'inbox/{a'", "`inbox/{a` is not a pattern of files: ")]
#[case::a_folder("file = 'inbox/'", "`inbox/` names a folder")]
#[case::other_broker("queue = 'kafka://host/orders'", "queues of `kafka` are not available in this version")]
#[case::own_subject(
    "queue = 'nats:fnbus.deliver.>'",
    "`nats:fnbus.deliver.>` cannot be read: subjects under the bus' own"
)]
#[case::batch("queue = 'nats:jobs'\nbatch = { size = 0 }", "`size` must be from 1 to 1000")]
#[tokio::test]
async fn a_trigger_that_cannot_be_bound_is_said(#[case] kind: &str, #[case] message: &str) {
    let refused = refused(&project(&format!("{PRICE}[triggers.o]\n{kind}\nto = 'price'\n"))).await;
    assert_eq!(refused.problems.len(), 1, "{}", refused.text);
    assert!(refused.messages()[0].starts_with(message), "{}", refused.text);
}

#[rstest]
#[case::no_folder(
    "",
    "[functions.refund]",
    "the folder `refund` with the code of `refund` does not exist",
    "make the folder"
)]
#[case::named_folder(
    "code = 'src/pay'",
    "code =",
    "the folder `src/pay` with the code of `refund` does not exist",
    "or set `code`"
)]
#[case::no_archive(
    "code = 'pay.zip'",
    "code =",
    "the zip file `pay.zip` with the code of `refund` does not exist",
    "make the zip file"
)]
#[case::no_handler(
    "code = 'price'\nhandler = 'main.run'",
    "handler =",
    "the handler of `refund` is missing: there is no main.py",
    "add the file"
)]
#[case::malformed_handler("code = 'price'\nhandler = 'app'", "handler =", "`app` is not a handler", "app.handler")]
#[case::a_file(
    "code = 'price/app.py'",
    "code =",
    "`price/app.py`, the code of `refund`, is not a folder",
    "name the folder"
)]
#[tokio::test]
async fn code_that_is_not_there_is_said_before_anything_runs(
    #[case] keys: &str,
    #[case] at: &str,
    #[case] message: &str,
    #[case] advice: &str,
) {
    let toml = format!("{PRICE}[functions.refund]\nruntime = 'python'\n{keys}\n");
    let refused = refused(&project(&toml)).await;
    let line = toml.lines().position(|line| line.starts_with(at)).unwrap() + 1;
    assert_eq!(refused.places(), [format!("fnbus.toml:{line}")], "{}", refused.text);
    assert!(refused.messages()[0].starts_with(message), "{}", refused.text);
    assert!(refused.text.contains(advice), "{}", refused.text);
}

#[rstest]
#[case::a_fraction_of_a_core("cpu = 0.5", "`cpu` must be a whole number", "write 50 for half of one")]
#[case::percent_as_text("cpu = '20%'", "`cpu` must be a whole number", "it is percent of one core")]
#[case::no_core("cpu = 0", "`cpu` must be from 1 to 100000", "it is percent of one core")]
#[case::hardly_a_process("processes = 2", "`processes` must be from 8 to 1048576", "write 8 or more")]
#[case::much_memory("memory = 2000000", "`memory` must be from 16 to 1048576", "write 1048576 or less")]
#[case::a_number_as_text("processes = '20'", "`processes` must be a whole number", "write it without quotes: 20")]
#[tokio::test]
async fn a_limit_that_is_none_is_told_with_what_to_write(
    #[case] key: &str,
    #[case] message: &str,
    #[case] advice: &str,
) {
    let refused =
        refused(&project(&format!("{PRICE}[functions.refund]\nruntime = 'python'\ncode = 'price'\n{key}\n"))).await;
    assert_eq!(refused.problems.len(), 1, "{}", refused.text);
    assert!(refused.messages()[0].starts_with(message) && refused.text.contains(advice), "{}", refused.text);
}

#[tokio::test]
async fn without_a_config_file_every_command_says_how_to_make_one() {
    let project = Project::new();
    for arguments in [&["up"][..], &["check"], &["events"], &["show", "x"]] {
        let output = Output::from(project.command(arguments).output().unwrap());
        assert_eq!((output.code(), output.stdout.as_str()), (1, ""), "{arguments:?}");
        assert!(output.stderr.contains("there is no fnbus.toml"), "{arguments:?}: {}", output.stderr);
        assert!(output.stderr.contains("`fnbus init` makes one"), "{arguments:?}: {}", output.stderr);
    }
    assert_eq!(std::fs::read_dir(project.path()).unwrap().count(), 0, "something was written");
}

#[tokio::test]
async fn a_config_file_that_is_no_text_is_said() {
    let project = Project::new();
    std::fs::write(project.path().join("fnbus.toml"), b"\xff\xfe\x00").unwrap();
    let output = Output::from(project.command(&["check"]).output().unwrap());
    assert_eq!(output.code(), 1);
    assert!(output.stderr.contains("cannot read fnbus.toml"), "{}", output.stderr);
    assert!(output.stderr.contains("UTF-8"), "{}", output.stderr);
}
