//! `fnbus functions`: what can run, and how it does.

use std::process::ExitCode;

use serde_json::Value;

use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Functions {
    /// One JSON object per function
    #[arg(long)]
    json: bool,
}

impl Functions {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let functions: Vec<Value> = client.get("/v1/functions", None::<&()>).await?;
            if self.json {
                functions.iter().try_for_each(show::json)?;
                return Ok(ExitCode::SUCCESS);
            }
            if functions.is_empty() {
                terminal::talk("no function is configured; add [functions.NAME]");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = functions.iter().map(|f| {
                let text = |key: &str| f[key].as_str().unwrap_or("-").to_owned();
                let number = |key: &str| f[key].as_u64().unwrap_or_default().to_string();
                let trouble = f["message"].as_str().or(f["refused"].as_str()).or(f["last_error"].as_str());
                vec![
                    text("name"),
                    text("runtime"),
                    text("state"),
                    text("version"),
                    format!("{}/{}", number("busy"), number("concurrency")),
                    number("warm"),
                    number("invocations"),
                    number("cold_starts"),
                    number("errors"),
                    show::short(trouble.unwrap_or_default(), 80),
                ]
            });
            let headers =
                ["NAME", "RUNTIME", "STATE", "VERSION", "BUSY", "WARM", "CALLS", "COLD", "ERRORS", "LAST TROUBLE"];
            show::table(&headers, rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
