//! `fnbus logs`: what functions print.

use std::{io::Write, process::ExitCode};

use anstream::stdout;
use api::control::LogsQuery;
use bus::{Name, presence::LogLine};
use serde_json::Value;

use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Only this function
    name: Option<Name>,
    /// Go on with what is printed from now
    #[arg(short, long)]
    follow: bool,
    /// Begin with the newest so many attempts
    #[arg(short = 'n', long, default_value_t = 100)]
    limit: usize,
    /// One JSON object per line: time, function, `request_id`, stream, text
    #[arg(long)]
    json: bool,
}

impl Logs {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { name, follow, limit, json } = self;
        global.ask(async |client| {
            let question = LogsQuery { function: name, limit: Some(limit), follow };
            let mut lines = client.lines("/v1/logs", &question).await?;
            if follow {
                // Said when it is true: what is printed from here on is not missed.
                terminal::talk("what is printed from now on is shown; Ctrl-C ends it");
            }
            while let Some(value) = lines.next::<Value>().await? {
                if let Some(missed) = value["missed"].as_u64() {
                    terminal::talk(format_args!("{missed} lines came faster than they could be shown"));
                    continue;
                }
                if json {
                    show::json(&value)?;
                } else if let Ok(line) = serde_json::from_value::<LogLine>(value) {
                    let id = line.request_id.map(|id| id.to_string()).unwrap_or_default();
                    let id = id.get(id.len().saturating_sub(8)..).unwrap_or_default();
                    let text = show::clean(&line.text);
                    writeln!(stdout(), "{}  {}  {id:<8}  {text}", show::time(line.time), line.function)?;
                }
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
