//! `fnbus invoke NAME`: run a function once and wait for it.

use std::{io::Write, process::ExitCode};

use anstream::stdout;
use api::control::Invoked;
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::builder::NonEmptyStringValueParser;

use super::input::Input;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Invoke {
    /// The function, or a version of it: NAME:3, NAME:alias
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// What it gets: JSON, @FILE or - for stdin
    #[arg(short = 'd', long = "payload", id = "payload", default_value = "{}", value_name = "DATA")]
    data: Input,
    /// One JSON object: event, outcome, fault, log, version, start, times, output
    #[arg(long)]
    json: bool,
}

impl Invoke {
    /// The result goes to stdout, what the function printed to stderr; exit 1 when it failed.
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let data = self.data.read().map_err(Failure::Input)?;
        global.ask(async |client| {
            let path = format!(
                "/v1/functions/{}/invoke",
                percent_encoding::utf8_percent_encode(&self.name, percent_encoding::NON_ALPHANUMERIC)
            );
            let invoked: Invoked = client.post(&path, data.into()).await?;
            let failed = invoked.fault.is_some();
            if self.json {
                show::json(&invoked)?;
            } else {
                for line in invoked.log.lines() {
                    terminal::talk(show::clean(line));
                }
                if let Some(fault) = &invoked.fault {
                    terminal::talk(format_args!(
                        "{} failed ({}): {}: {}",
                        self.name,
                        invoked.outcome,
                        show::clean(&fault.kind),
                        show::clean(&fault.message)
                    ));
                    terminal::talk(format_args!("all of it: fnbus show {}", invoked.event));
                }
                let bytes = match (&invoked.output, &invoked.output_base64) {
                    (Some(text), _) => text.clone().into_bytes(),
                    (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap_or_default(),
                    (None, None) => Vec::new(),
                };
                let mut out = stdout().lock();
                out.write_all(&bytes)?;
                if invoked.output.is_some() && !bytes.ends_with(b"\n") {
                    out.write_all(b"\n")?;
                }
            }
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        })
    }
}
