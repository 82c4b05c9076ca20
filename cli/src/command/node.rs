//! `fnbus node`: the running node: addresses, folders, and how much it holds.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anstream::stdout;
use serde_json::Value;

use crate::{args::Global, failure::Failure, show};

#[derive(Debug, clap::Args)]
pub(crate) struct Node {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Node {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let node: Value = client.get("/v1/node", None::<&()>).await?;
            if self.json {
                show::json(&node)?;
            } else {
                print(&node)?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn print(node: &Value) -> io::Result<()> {
    for (key, value) in node.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Object(parts) => parts.iter().map(|(k, v)| format!("{v} {k}")).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        };
        writeln!(stdout(), "{:<18} {}", key.replace('_', " "), show::clean(&text))?;
    }
    Ok(())
}
