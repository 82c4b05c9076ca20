//! `fnbus triggers`: what is listened to, and where it goes.

use std::process::ExitCode;

use bus::presence::TriggerStatus;

use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Triggers {
    /// One JSON object per trigger
    #[arg(long)]
    json: bool,
}

impl Triggers {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let triggers: Vec<TriggerStatus> = client.get("/v1/triggers", None::<&()>).await?;
            if self.json {
                triggers.iter().try_for_each(show::json)?;
                return Ok(ExitCode::SUCCESS);
            }
            if triggers.is_empty() {
                terminal::talk("no trigger is configured; add [triggers.NAME]");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = triggers
                .iter()
                .map(|t| vec![t.name.to_string(), t.kind.clone(), t.on.join(", "), t.to.join(", "), t.mode.clone()]);
            show::table(&["NAME", "KIND", "ON", "TO", "MODE"], rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
