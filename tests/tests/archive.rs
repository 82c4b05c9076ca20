//! Functions whose code is a zip file, as people ship it.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::{path::Path, process::Command};

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

/// Makes an archive with files, names and contents in turn. A name that ends in `*` is a program, one that ends in `@` a link.
fn zip(place: &Path, files: &[(&str, &str)]) {
    const MAKE: &str = "import json, os, sys, zipfile\n\
        with zipfile.ZipFile(sys.argv[1] + '~', 'w', zipfile.ZIP_DEFLATED) as archive:\n    \
            for name, text in json.loads(sys.argv[2]):\n        \
                info = zipfile.ZipInfo(name.rstrip('*@'))\n        \
                info.compress_type = zipfile.ZIP_DEFLATED\n        \
                info.external_attr = {'*': 0o100755, '@': 0o120777}.get(name[-1], 0o100644) << 16\n        \
                archive.writestr(info, text)\n\
        os.rename(sys.argv[1] + '~', sys.argv[1])\n";
    let files = json!(files).to_string();
    assert!(Command::new("python3").args(["-c", MAKE]).arg(place).arg(files).status().unwrap().success());
}

const PYTHON: &str = "import dep, vendored\ndef handler(event, context):\n    return [dep.X, vendored.Y]\n";

fn python(version: &str) -> Vec<(&str, &str)> {
    vec![("app.py", PYTHON), ("dep/__init__.py", version), ("python/vendored.py", "Y = 'vendored'\n")]
}

async fn invoked(node: &Node, function: &str) -> Value {
    let output = node.fnbus(&["invoke", function, "-d", "{}"]).await;
    assert_eq!(output.code(), 0, "{}", output.all());
    serde_json::from_str(&output.stdout).unwrap()
}

#[tokio::test]
async fn code_of_every_kind_is_unpacked_and_run_with_its_packages() {
    let project = Project::new().config(
        "[functions.p]\nruntime = 'python'\ncode = 'p.zip'\n\
         [functions.n]\nruntime = 'node'\ncode = 'n.ZIP'\n\
         [functions.c]\nruntime = 'command'\ncode = 'c.zip'\nhandler = './run.sh'\n",
    );
    let at = |file: &str| project.path().join(file);
    zip(&at("p.zip"), &python("X = 'packed'\n"));
    zip(
        &at("n.ZIP"),
        &[
            ("index.js", "exports.handler = async () => require('dep')"),
            ("node_modules/dep/index.js", "module.exports = ['packed']"),
        ],
    );
    zip(&at("c.zip"), &[("run.sh*", "#!/bin/sh\n. ./words\necho \"[\\\"$WORD\\\"]\"\n"), ("words", "WORD=packed\n")]);
    let checked = project.check(&[]);
    assert_eq!(checked.code(), 0, "{}", checked.all());
    let node = project.start().await;
    assert_eq!(invoked(&node, "p").await, json!(["packed", "vendored"]));
    assert_eq!(invoked(&node, "n").await, json!(["packed"]));
    assert_eq!(invoked(&node, "c").await, json!(["packed"]));
}

#[tokio::test]
async fn another_archive_is_an_edit_and_a_bad_one_changes_nothing() {
    let project = Project::new().config("[functions.p]\nruntime = 'python'\ncode = 'p.zip'\n");
    let archive = project.path().join("p.zip");
    zip(&archive, &python("X = 1\n"));
    let node = project.start().await;
    assert_eq!(invoked(&node, "p").await, json!([1, "vendored"]));
    zip(&archive, &python("X = 2\n"));
    eventually("the edit serves", || async { (invoked(&node, "p").await == json!([2, "vendored"])).then_some(()) })
        .await;
    for (files, says) in [
        (vec![("../app.py", PYTHON)], "`../app.py` in it leads out of its folder"),
        (vec![("app.py@", "/etc/passwd")], "`app.py` in it is a link"),
    ] {
        zip(&archive, &files);
        refused(&node, says).await;
    }
    node.write("p.zip", "no archive");
    refused(&node, "it is no zip file that can be read").await;
    assert_eq!(invoked(&node, "p").await, json!([2, "vendored"]), "the version before still serves");
    zip(&archive, &python("X = 3\n"));
    eventually("it is mended", || async { (invoked(&node, "p").await == json!([3, "vendored"])).then_some(()) }).await;
}

async fn refused(node: &Node, says: &str) {
    eventually(says, || async { node.function("p").await["refused"].as_str()?.contains(says).then_some(()) }).await;
}

#[tokio::test]
async fn an_archive_that_cannot_serve_is_found_by_check() {
    let project = Project::new().config(
        "[functions.p]\nruntime = 'python'\ncode = 'p.zip'\n[functions.b]\nruntime = 'provided'\ncode = 'b.zip'\n\
         [functions.d]\nruntime = 'python'\ncode = 'd.zip'\n",
    );
    zip(&project.path().join("p.zip"), &[("other.py", "")]);
    zip(&project.path().join("b.zip"), &[("bootstrap", "#!/bin/sh\n")]);
    std::fs::write(project.path().join("d.zip"), "PK").unwrap();
    let checked = project.check(&[]);
    assert_eq!(checked.code(), 1, "{}", checked.all());
    let said = checked.all().split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "the handler of `p` is missing: there is no app.py or app/__init__.py in `p.zip`",
        "the handler of `b` is not executable",
        "run: chmod +x bootstrap, and make the zip file anew",
        "`d.zip`, the code of `d`, cannot be unpacked: it is no zip file that can be read",
    ] {
        assert!(said.contains(words), "{words}\n{}", checked.all());
    }
}
