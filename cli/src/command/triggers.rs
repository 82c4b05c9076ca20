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
            let rows = triggers.iter().map(|t| {
                let (on, to) = (t.on.join(", "), t.to.join(", "));
                vec![t.name.to_string(), t.kind.clone(), on, to, t.mode.clone(), state(t)]
            });
            show::table(&["NAME", "KIND", "ON", "TO", "MODE", "STATE"], rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// What a trigger does now, as far as it says.
fn state(trigger: &TriggerStatus) -> String {
    let next = trigger.next.map(|next| format!("next {}", show::local(next)));
    let lag = trigger.lag.map(|lag| format!("{lag} waiting"));
    [trigger.state.clone(), lag, next].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
