//! The commands as people and scripts meet them: the real binary, its output and exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

fn fnbus(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fnbus"));
    command.args(args).current_dir(folder).env_remove("FNBUS_CONFIG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// Exit code, stdout, stderr.
fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    ended(fnbus(folder, args).output().unwrap())
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn init_makes_a_project_that_check_accepts() {
    let folder = folder();
    let (code, out, err) = run(folder.path(), &["init", "shop"]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    for said in ["made shop/fnbus.toml", "made shop/hello/app.py", "cd shop", "fnbus up", "curl http://"] {
        assert!(err.contains(said), "{said} is not in {err}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("shop/.gitignore")).unwrap(), ".fnbus/\n");
    let (code, out, err) = run(&folder.path().join("shop"), &["check"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "fnbus.toml is good: 1 function, 1 trigger\n", ""));
}

#[test]
fn init_overwrites_nothing_and_writes_nothing_then() {
    let folder = folder();
    fs::create_dir(folder.path().join("hello")).unwrap();
    fs::write(folder.path().join("hello/app.py"), "mine").unwrap();
    let (code, _, err) = run(folder.path(), &["init"]);
    assert_eq!(code, 1);
    assert!(err.contains("hello/app.py exists already"), "{err}");
    assert_eq!(fs::read_to_string(folder.path().join("hello/app.py")).unwrap(), "mine");
    assert!(!folder.path().join("fnbus.toml").exists());
}

#[test]
fn init_adds_to_a_gitignore_once() {
    let folder = folder();
    fs::write(folder.path().join(".gitignore"), "target").unwrap();
    assert_eq!(run(folder.path(), &["init"]).0, 0);
    assert_eq!(fs::read_to_string(folder.path().join(".gitignore")).unwrap(), "target\n.fnbus/\n");
    fs::remove_file(folder.path().join("fnbus.toml")).unwrap();
    fs::remove_dir_all(folder.path().join("hello")).unwrap();
    assert_eq!(run(folder.path(), &["init"]).0, 0);
    assert_eq!(fs::read_to_string(folder.path().join(".gitignore")).unwrap(), "target\n.fnbus/\n");
}

#[test]
fn check_without_a_file_says_how_to_make_one() {
    let folder = folder();
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("there is no fnbus.toml") && err.contains("`fnbus init` makes one"), "{err}");
}

#[test]
fn check_shows_problems_on_stderr_in_plain_text() {
    let folder = folder();
    fs::write(folder.path().join("fnbus.toml"), "[log]\nkeep = 7\nkeeep = 1\n").unwrap();
    let (code, out, err) = run(folder.path(), &["check"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("fnbus.toml:2:8") && err.ends_with("2 problems in fnbus.toml\n"), "{err}");
    assert!(err.is_ascii() && !err.contains('\u{1b}'), "{err}");
}

#[test]
fn check_json_is_one_object_per_problem_on_stdout() {
    let folder = folder();
    fs::write(folder.path().join("other.toml"), "[log]\nkeep = 7\nkeeep = 1\n").unwrap();
    let (code, out, err) = run(folder.path(), &["--config", "other.toml", "check", "--json"]);
    assert_eq!((code, err.as_str()), (1, ""));
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[0],
        serde_json::json!({
            "file": "other.toml",
            "line": 2,
            "column": 8,
            "message": "`keep` is a duration and needs a unit",
            "advice": "write \"7ms\" or \"7s\"",
        })
    );
    let (code, out, _) = run(folder.path(), &["check", "--json"]);
    assert_eq!(code, 1);
    assert!(out.contains("there is no fnbus.toml"), "{out}");
}

#[test]
fn the_config_may_be_named_by_the_environment() {
    let folder = folder();
    fs::write(folder.path().join("other.toml"), "").unwrap();
    let output = fnbus(folder.path(), &["check"]).env("FNBUS_CONFIG", "other.toml").output().unwrap();
    assert_eq!(ended(output), (0, "other.toml is good: 0 functions, 0 triggers\n".to_owned(), String::new()));
}

#[test]
fn relative_paths_begin_at_the_config_file() {
    let folder = folder();
    assert_eq!(run(folder.path(), &["init", "shop"]).0, 0);
    assert_eq!(run(folder.path(), &["check", "--config", "shop/fnbus.toml"]).0, 0);
}

#[test]
fn the_schema_is_json_and_the_defaults_are_a_good_config() {
    let folder = folder();
    let (code, out, _) = run(folder.path(), &["config", "schema"]);
    assert_eq!(code, 0);
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema["title"], "fnbus.toml");
    let (code, out, _) = run(folder.path(), &["config", "print", "--default"]);
    assert_eq!(code, 0);
    fs::write(folder.path().join("fnbus.toml"), out).unwrap();
    assert_eq!(run(folder.path(), &["check"]).0, 0);
}

#[test]
fn wrong_usage_ends_with_2() {
    let folder = folder();
    for args in [&[][..], &["no-such-command"], &["check", "--no-such-flag"], &["config", "print"]] {
        assert_eq!(run(folder.path(), args).0, 2, "{args:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let folder = folder();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = fnbus(folder.path(), &["config", "schema"]).stdout(writer).output().unwrap();
    let (code, _, err) = ended(output);
    assert_eq!((code, err.as_str()), (0, ""));
}
