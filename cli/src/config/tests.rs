//! One test per way of being wrong: what is reported, as it is shown.

mod schema;
mod triggers;

use std::fs;

use insta::assert_snapshot;

use super::*;
use crate::terminal::shown_plain;

/// A project with the code of `price` and `notify` and nothing in `empty`.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["price", "notify", "empty"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    for name in ["price", "notify"] {
        fs::write(folder.path().join(name).join("app.py"), "").unwrap();
    }
    folder
}

impl Config {
    /// A config without any problem.
    pub(super) fn parse(text: &str, base: &Path) -> Result<Self, Vec<Problem>> {
        match Self::parse_apart(text, base)? {
            (config, code) if code.is_empty() => Ok(config),
            (_, code) => Err(code),
        }
    }
}

/// What is said of a text.
fn report(text: &str) -> String {
    let folder = project();
    match Config::parse(text, folder.path()) {
        Ok(_) => "no problems".to_owned(),
        Err(problems) => Report::new(Path::new("fnbus.toml"), text.to_owned(), problems).shown(shown_plain),
    }
}

/// Messages and advice alone.
fn said(text: &str) -> Vec<(String, String)> {
    let problems = Config::parse(text, project().path()).err().unwrap_or_default();
    problems.into_iter().map(|p| (p.message, p.advice.unwrap_or_default())).collect()
}

const EXAMPLE: &str = r#"
timezone = "Asia/Seoul"
[bus]
namespace = "shop"
data = ".fnbus"
# nats = "nats://…"
[http]
listen = "127.0.0.1:8080"
[log]
keep = "7d"
max_size = "5GB"

[functions.price]
runtime = "python"
env = { CURRENCY = "KRW", TOKEN = { secret = "env:PRICE_TOKEN" }, KEY = { secret = "file:keys/price" } }
timeout = "10s"
memory = 256
concurrency = 20
warm = 1
retry = { attempts = 3, wait = "1s", max_wait = "5m", max_age = "6h" }

[functions.notify]
runtime = "python"

[triggers.orders]
http = "POST /orders/{region}"
mode = "async"
payload = "body"
to = ["price", "notify"]

[triggers.quote]
http = ["GET /quote", "POST /quote"]
timeout = "3s"
max_body = "1MB"
log = "errors"
to = "price"

[triggers.priced]
event = { type = ["order.priced"], source = "/shop/price" }
to = "notify"
"#;

#[test]
fn the_example_of_the_design_is_accepted() {
    let folder = project();
    let config = Config::parse(EXAMPLE, folder.path()).unwrap();
    assert_eq!(config.bus.data, folder.path().join(".fnbus"));
    let price = &config.functions["price"];
    assert_eq!(price.code, folder.path().join("price"));
    assert_eq!((price.handler.as_str(), price.warm, price.concurrency), ("app.handler", 1, 20));
    assert_eq!(price.env["KEY"], runtimes::config::EnvValue::SecretFile(folder.path().join("keys/price")));
    assert_eq!(config.triggers["orders"].to.len(), 2);
    assert_eq!(config.functions.len() + config.triggers.len(), 5);
}

#[test]
fn how_long_an_instance_stays_is_a_time_or_follows_from_its_calls() {
    let folder = project();
    let text = |keep: &str| format!("[functions.price]\nruntime = \"python\"\nkeep_alive = {keep}\n");
    let read = |keep| Config::parse(&text(keep), folder.path()).unwrap().functions["price"].keep_alive;
    assert_eq!(read("\"auto\""), runtimes::KeepAlive::Auto);
    assert_eq!(read("\"90s\""), runtimes::KeepAlive::For(std::time::Duration::from_secs(90)));
    let said = said(&text("\"automatic\""));
    assert_eq!(said[0].0, "`keep_alive` cannot be `automatic`");
    assert_eq!(said[0].1, "write \"auto\", or a time such as \"30s\"");
}

#[test]
fn broken_toml() {
    assert_snapshot!(report("[bus\nnamespace = shop\n\n[http]\nlisten = \"127.0.0.1:8080\n"));
}

#[test]
fn unknown_keys_in_several_tables() {
    assert_snapshot!(report(
        r#"
timezon = "UTC"
[bus]
name = "shop"
[functions.price]
runtime = "python"
memroy = 128
then = ["nats:orders.priced"]
retry = { attempt = 3 }
[triggers.orders]
http = "POST /orders"
too = "price"
to = "price"
"#
    ));
}

#[test]
fn invalid_sizes_and_durations() {
    assert_snapshot!(report(
        r#"
[log]
keep = 7
max_size = "lots"
[http]
max_body = 6
[functions.price]
runtime = "python"
timeout = "0s"
keep_alive = "-1m"
retry = { wait = "10m", max_age = "soon" }
"#
    ));
}

#[test]
fn an_invalid_path_and_an_invalid_route() {
    assert_snapshot!(report(
        r#"
[bus]
data = ""
[functions.price]
runtime = "python"
[triggers.orders]
http = ["orders", "GET /orders"]
to = "price"
"#
    ));
}

#[test]
fn invalid_names() {
    assert_snapshot!(report(
        r#"
[bus]
namespace = "my shop"
[functions."price.v2"]
runtime = "python"
memory = 1
[triggers.orders]
http = "GET /orders"
to = "no such"
"#
    ));
}

#[test]
fn an_invalid_url_and_an_invalid_address() {
    assert_snapshot!(report("[bus]\nnats = \"http://127.0.0.1:4222\"\n[http]\nlisten = \":8080\"\n"));
}

#[test]
fn addresses_of_brokers_and_what_is_secret_in_them() {
    let urls = ["amqp://me:hush@host:5672", "me:hush@host:4222", "nats://", "nats://me:hush@host:x"];
    let all: Vec<String> = urls.iter().map(|url| report(&format!("[bus]\nnats = \"{url}\"\n"))).collect();
    assert!(!all.concat().contains("hush"), "{}", all.concat());
    assert_snapshot!(all.join("\n---\n"));
}

#[test]
fn wrong_types() {
    assert_snapshot!(report(
        r#"
bus = "shop"
timezone = 9
[functions.price]
runtime = ["python"]
memory = "256"
env = { RETRIES = 3, DEBUG = true, TOKEN = { secret = "hunter2" }, "A-B" = "x" }
[triggers.orders]
http = 8080
to = { name = "price" }
"#
    ));
}

#[test]
fn words_that_are_not_there() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "ruby"
isolation = "container"
[triggers.orders]
http = "GET /orders"
mode = "asynch"
payload = "raw"
to = "price"
"#
    ));
}

#[test]
#[cfg(not(feature = "wasm"))]
fn what_this_binary_was_built_without() {
    let (message, advice) = said("[functions.price]\nruntime = \"wasm\"\nhandler = \"app.py\"").remove(0);
    assert_eq!(message, "`runtime` cannot be `wasm`: this fnbus was built without wasm");
    assert_eq!(advice, "build it with `--features wasm`, or take one that has it");
}

#[test]
fn a_target_that_does_not_exist() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
timeout = 3          # a function with a problem still exists
[triggers.orders]
http = "GET /orders"
mode = "async"
to = ["price", "prise", "checkout"]
[triggers.other]
event = { type = "x" }
to = "nats:orders"
"#
    ));
}

#[test]
fn a_function_and_a_pipeline_of_one_name() {
    assert_snapshot!(report(
        "[functions.price]\nruntime = \"python\"\n[pipelines.price]\nsteps = [\"price\", { run = \"price\" }]\n"
    ));
}

#[test]
fn pipelines() {
    assert_snapshot!(report(
        r#"
[functions.price]
runtime = "python"
[pipelines.unknown]
steps = ["price", { parallel = ["pryce", ["price", "refund"]] }]
[pipelines.itself]
steps = ["price", "itself"]
[pipelines.one]
steps = [{ run = "two" }]
[pipelines.two]
steps = [{ parallel = ["price", ["one"]] }]
[pipelines.empty]
steps = []
[pipelines.no_branch]
steps = [{ parallel = [] }]
[pipelines.empty_branch]
steps = [{ parallel = ["price", []] }]
[pipelines.neither]
steps = [{ retry = { attempts = 2 } }, 5]
[pipelines.none]
"#
    ));
}

#[test]
fn steps_that_cannot_be_run() {
    let advice = |text: &str| said(text).into_iter().map(|(message, _)| message).collect::<Vec<_>>();
    assert_eq!(
        advice("[pipelines.a]\nsteps = [\"x\"]\n[pipelines.b]\nsteps = []"),
        ["there is no function `x`", "`steps` must not be empty"]
    );
    assert_eq!(
        advice(
            "[pipelines.a]\nsteps = [{ run = \"b\", parallel = [\"b\"] }, { retry = {} }]\n[pipelines.b]\nsteps = [\"a\"]"
        ),
        ["a step is either `run` or `parallel`", "a step is either `run` or `parallel`"]
    );
}

#[test]
fn a_pipeline_that_calls_itself() {
    let text = "[pipelines.a]\nsteps = [\"b\"]\n[pipelines.b]\nsteps = [{ parallel = [[\"a\"]] }]";
    let said: Vec<_> = said(text).into_iter().map(|(message, _)| message).collect();
    assert_eq!(
        said,
        ["the pipeline `a` calls itself and would never end", "the pipeline `b` calls itself and would never end"]
    );
}

#[test]
fn a_pipeline_compiles_to_states_with_names_of_their_own() {
    let text = "[pipelines.p]\nsteps = [\"file:a\", { run = \"file:b\", retry = { attempts = 5 } }, \
                { parallel = [\"nats:x.y\", [\"file:c\", \"file:d\"]] }]";
    let config = Config::parse(text, std::path::Path::new("/")).unwrap();
    let machine = &config.pipelines.values().next().unwrap().machine;
    assert_eq!(machine.states.keys().collect::<Vec<_>>(), ["file", "file-2", "parallel"]);
    assert_eq!(machine.start, "file");
    assert_eq!(machine.targets().len(), 5);
}

#[test]
fn code_that_is_not_there() {
    assert_snapshot!(report(
        r#"
[functions.refund]
runtime = "python"
[functions.empty]
runtime = "python"
[functions.price]
runtime = "python"
handler = "main.run"
[functions.notify]
runtime = "python"
code = "notify/app.py"
"#
    ));
}

#[test]
fn whatever_stands_there_is_reported_inside_the_file() {
    const VALUES: [&str; 12] =
        ["0", "-1", "0xffff_ffff_ffff", "1.5", "true", "\"\"", "\"é:ü\"", "[]", "[1]", "{}", "{ a = 1 }", "1979-05-27"];
    let folder = project();
    let lines: Vec<_> = EXAMPLE.lines().collect();
    for (n, line) in lines.iter().enumerate() {
        let key = line.split_once(" = ").map(|(key, _)| key);
        let others = VALUES.iter().filter_map(|value| Some(format!("{} = {value}", key?)));
        for other in others.chain([String::new(), "[[functions]]".to_owned(), "[triggers.\"ü\".x]".to_owned()]) {
            let text = [&lines[..n], &[other.as_str()], &lines[n + 1..]].concat().join("\n");
            for problem in Config::parse(&text, folder.path()).err().unwrap_or_default() {
                assert!(text.get(problem.span.clone()).is_some(), "{problem:?} in\n{text}");
            }
        }
    }
}

#[test]
fn a_project_as_init_makes_it_has_no_problems() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("hello")).unwrap();
    fs::write(folder.path().join("hello/app.py"), include_str!("../init/app.py")).unwrap();
    let config = Config::parse(include_str!("../init/fnbus.toml"), folder.path());
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn a_runtime_may_be_one_by_the_name_that_aws_has_for_it() {
    let read = |runtime: &str| {
        let text = format!("[functions.price]\nruntime = \"{runtime}\"\ncode = \".\"\nhandler = \"sh\"");
        let config = Config::parse(&text, Path::new("/bin")).unwrap();
        config.functions.into_values().next().map(|function| (function.runtime, function.runtime_name()))
    };
    assert_eq!(read("provided.al2023"), Some((runtimes::RuntimeKind::Provided, "provided.al2023")));
    assert_eq!(read("provided"), Some((runtimes::RuntimeKind::Provided, "provided")));
    let (message, advice) = said("[functions.price]\nruntime = \"python3.99\"\nhandler = \"app.py\"").remove(0);
    assert_eq!(message, "`runtime` cannot be `python3.99`");
    assert!(advice.contains("`python3.13`: see `fnbus runtimes`"), "{advice}");
}
