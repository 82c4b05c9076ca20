//! What Node.js compiled of a version: who writes it, who reads it, and that it never gets in the way.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use bus::outcome::{Ending, Start};
use rstest::rstest;
use runtimes::{Enforcement, FunctionConfig, Isolation, RuntimeKind, Settings};
use serde_json::{Value, json};

use crate::harness::*;

/// Ends when it is told to; else tries to change what was compiled of it.
const CODE: &str = r#"
const fs = require("node:fs");
const { getCompileCacheDir } = require("node:module");
const attempt = (action) => {
  try {
    action();
    return "done";
  } catch (error) {
    return ["EACCES", "EXDEV"].includes(error.code) ? "refused" : error.code;
  }
};
exports.handler = async (event) => {
  if (event === "leave") process.exit(1);
  const folder = getCompileCacheDir();
  if (!folder || !fs.existsSync(folder)) return folder ? "gone" : "none";
  const file = `${folder}/${fs.readdirSync(folder)[0]}`;
  return [
    () => fs.writeFileSync(file, "changed"),
    () => fs.truncateSync(file),
    () => fs.unlinkSync(file),
    () => fs.renameSync(file, `${process.env.HOME}/mine`),
    () => fs.linkSync(file, `${process.env.HOME}/mine`),
    () => fs.writeFileSync(`${folder}/more`, "more"),
  ].map(attempt);
};
"#;

/// A Node.js that can keep what it compiled; none where nobody fetched it.
fn newer() -> Option<PathBuf> {
    let fetched = env::var_os("FNBUS_CLIENTS").map(|clients| Path::new(&clients).join("node/bin/node"));
    let there = fetched.filter(|node| node.is_file());
    if there.is_none() {
        assert!(env::var("CI").as_deref() != Ok("true"), "no newer Node.js: `make test` fetches it");
        eprintln!("skipped: no newer Node.js; `make test` fetches it");
    }
    there
}

/// Code that is worth keeping what was compiled of it.
fn large(code: &str) -> String {
    format!("{code}\nconst text = '{}';\n", "much".repeat(20_000))
}

/// A function in a sandbox, which is told what becomes of what was compiled.
fn function(code: &str, change: impl FnOnce(&mut FunctionConfig)) -> Option<Node> {
    let node_js = newer()?;
    let settings = |settings: &mut Settings| {
        (settings.node_js, settings.spares, settings.keep_versions) = (Some(node_js), 0, 1);
    };
    Some(Node::with(settings).of_with(RuntimeKind::Node, "index.js", &large(code), |f| {
        f.isolation = Isolation::Sandbox;
        f.env.insert("NODE_DEBUG_NATIVE".into(), plain("COMPILE_CACHE"));
        change(f);
    }))
}

/// Whether this kernel keeps a sandbox from all that is tried; one that is older lets it empty a file.
fn holds_back() -> bool {
    Enforcement::of_this_machine().landlock_abi >= Some(3)
}

/// What is in the folder of versions, and is no code.
fn beside(node: &Node) -> Vec<PathBuf> {
    let folder = node.data().join("versions");
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_string_lossy().contains('-'));
    found
}

/// The files that are kept.
fn files(node: &Node) -> Vec<PathBuf> {
    let within = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    beside(node).into_iter().flat_map(within).flat_map(within).collect()
}

/// Ends the instance, so that the next invocation is another one's.
async fn leave(node: &Node) {
    let outcome = node.invoke("\"leave\"").await;
    assert_eq!(outcome.ending, Ending::Crash, "{outcome:?}");
}

const WROTE: &str = "to temporary file";
const READ: &str = "was accepted";

#[tokio::test]
async fn what_the_first_instance_compiled_is_read_by_the_next_and_none_can_change_it() {
    let Some(node) = function(CODE, |_| {}) else { return };
    let first = node.invoke("{}").await;
    assert_eq!(text(&first), "\"gone\"", "it has nothing to do with it any more");
    assert!(first.log.contains(WROTE) && !first.log.contains(READ), "{}", first.log);
    let kept = files(&node);
    let bytes = fs::read(&kept[0]).unwrap();
    assert_eq!((kept.len(), beside(&node).len()), (1, 1), "{kept:?}");

    leave(&node).await;
    let next = node.invoke("{}").await;
    assert!(next.log.contains(READ) && !next.log.contains(WROTE), "{}", next.log);
    if holds_back() {
        assert_eq!(serde_json::from_slice::<Vec<String>>(&next.output).unwrap(), ["refused"; 6]);
        assert_eq!((files(&node), fs::read(&kept[0]).unwrap()), (kept, bytes));
    }
}

#[tokio::test]
async fn what_is_damaged_or_missing_is_compiled_again() {
    let Some(node) = function(CODE, |_| {}) else { return };
    node.invoke("{}").await;
    let [file] = &files(&node)[..] else { panic!("{:?}", beside(&node)) };
    let whole = fs::read(file).unwrap();
    let mut turned = whole.clone();
    turned[whole.len() / 2] ^= 1;
    for damaged in [&b"garbage"[..], &whole[..whole.len() / 2], &turned, b""] {
        fs::write(file, damaged).unwrap();
        leave(&node).await;
        let next = node.invoke("{}").await;
        assert!(next.ending == Ending::Ok && !next.log.contains(READ), "{next:?}");
    }
    fs::remove_file(file).unwrap();
    leave(&node).await;
    let next = node.invoke("{}").await;
    assert_eq!(next.ending, Ending::Ok, "{next:?}");
    fs::remove_dir_all(&beside(&node)[0]).unwrap();
    leave(&node).await;
    assert!(node.invoke("{}").await.log.contains(WROTE), "who finds none keeps its own");
    leave(&node).await;
    assert!(node.invoke("{}").await.log.contains(READ));
}

#[tokio::test]
async fn a_version_that_goes_takes_along_what_was_compiled_of_it() {
    let Some(mut node) = function(CODE, |_| {}) else { return };
    node.invoke("{}").await;
    let first = beside(&node);
    // the code is the same, so its folder stays
    for memory in [300, 400] {
        let version = node.status().version;
        node.reconfigure(|f| f.memory = memory);
        node.until(|status| status.version != version).await;
    }
    until(|| (beside(&node).len() == 2 && !beside(&node).contains(&first[0])).then_some(())).await;
    assert_eq!(node.invoke("{}").await.ending, Ending::Ok);
}

#[tokio::test]
async fn code_that_cannot_be_loaded_leaves_nothing_behind() {
    let Some(node) = function("throw new Error('no')", |_| {}) else { return };
    let outcome = node.invoke("{}").await;
    assert_eq!((outcome.ending, message(&outcome)), (Ending::InitError, "no"), "{outcome:?}");
    until(|| beside(&node).is_empty().then_some(())).await;
}

#[tokio::test]
async fn of_a_small_function_nothing_is_kept() {
    let Some(node_js) = newer() else { return };
    let settings = |settings: &mut Settings| (settings.node_js, settings.spares) = (Some(node_js), 0);
    let node = Node::with(settings).of_with(RuntimeKind::Node, "index.js", CODE, |f| f.isolation = Isolation::Sandbox);
    assert_eq!(text(&node.invoke("{}").await), "\"gone\"");
    leave(&node).await;
    assert_eq!(text(&node.invoke("{}").await), "\"none\"");
    assert_eq!((beside(&node).len(), files(&node).len()), (1, 0), "it was tried once");
}

#[rstest]
#[case::their_own("NODE_COMPILE_CACHE", true)]
#[case::none_at_all("NODE_DISABLE_COMPILE_CACHE", false)]
#[tokio::test]
async fn who_decides_on_it_by_a_variable_is_left_alone(#[case] variable: &str, #[case] used: bool) {
    let own = tempfile::tempdir().unwrap();
    let folder = own.path().display().to_string();
    let code = "exports.handler = async () => require('node:module').getCompileCacheDir() ?? null";
    let function = function(code, |f| {
        f.isolation = Isolation::Process;
        f.env.insert(variable.into(), plain(&folder));
    });
    let Some(node) = function else { return };
    let said: Value = serde_json::from_slice(&node.invoke("{}").await.output).unwrap();
    assert_eq!(said.as_str().is_some_and(|said| said.starts_with(&folder)), used, "{said}");
    assert_eq!((said == json!(null), beside(&node)), (!used, Vec::new()));
}

#[tokio::test]
async fn a_process_that_waited_reads_it_where_it_has_its_links_and_cannot_change_it() {
    let Some(node_js) = newer() else { return };
    // another process in the same sandbox says what becomes of it
    let code = r#"
const { spawnSync } = require("node:child_process");
const looks = `
  const [directory, code] = process.argv.slice(1);
  require("node:module").enableCompileCache({ directory, portable: true });
  require(code);`;
const own = exports.handler;
exports.handler = async (event) => {
  const tried = await own(event);
  const folder = require("node:path").dirname(getCompileCacheDir());
  const env = { ...process.env, NODE_DEBUG_NATIVE: "COMPILE_CACHE" };
  const looked = spawnSync(process.execPath, ["-e", looks, folder, __filename], { env });
  return { said: `${looked.stderr}`, tried };
};
"#;
    let settings = |settings: &mut Settings| (settings.node_js, settings.spares) = (Some(node_js), 1);
    let node = Node::with(settings).of_with(RuntimeKind::Node, "index.js", &large(&[CODE, code].concat()), |f| {
        f.isolation = Isolation::Sandbox;
    });
    assert_eq!(node.invoke("{}").await.start, Start::Cold);
    let kept = files(&node);
    let bytes = fs::read(&kept[0]).unwrap();
    let partial = loop {
        leave(&node).await;
        let outcome = node.invoke("{}").await;
        if outcome.start == Start::Partial {
            break outcome;
        }
    };
    let said: Value = serde_json::from_slice(&partial.output).unwrap();
    assert!(said["said"].as_str().unwrap().contains(READ), "{said}");
    if holds_back() {
        assert_eq!(said["tried"], json!(vec!["refused"; 6]));
        assert_eq!((files(&node), fs::read(&kept[0]).unwrap()), (kept, bytes));
    }
}
