//! Clients of AWS Lambda, as `make test` fetches them.

use std::{env, path::PathBuf, process::Stdio};

use serde_json::Value;

use crate::Node;

/// Their folder: `bin/python` and `node_modules`; none where nobody fetched them.
pub fn clients() -> Option<PathBuf> {
    let clients = env::var_os("FNBUS_CLIENTS").map(PathBuf::from);
    if clients.is_none() {
        assert!(env::var("CI").as_deref() != Ok("true"), "no clients: `make test` fetches them");
        eprintln!("skipped: no clients of AWS Lambda; `make test` fetches them");
    }
    clients
}

/// Runs a program of a client on a node; what it prints is JSON.
pub async fn call_with(node: &Node, program: PathBuf, arguments: &[&str]) -> Value {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).current_dir(node.path());
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "any"),
        ("AWS_SECRET_ACCESS_KEY", "any"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ] {
        command.env(name, value);
    }
    let output = command.env("ENDPOINT", format!("http://{}", node.api().await)).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}\n{said}", String::from_utf8_lossy(&output.stdout)))
}
