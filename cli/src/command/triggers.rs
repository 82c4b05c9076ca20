//! `fnbus triggers`: what is listened to and where it goes; firing, pausing and resuming.

use std::{io::Write, process::ExitCode};

use anstream::stdout;
use bus::presence::{Steered, TriggerStatus};

use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Triggers {
    /// One JSON object per trigger
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Take a time of a cron trigger now; prints the event's id
    Fire(One),
    /// Take nothing until it is resumed, also after a restart
    Pause(One),
    /// Go on: what waited in files and queues is taken, times and requests that passed are not
    Resume(One),
}

#[derive(Debug, clap::Args)]
struct One {
    /// The trigger
    name: String,
    /// One JSON object: trigger, changed, event, deliveries
    #[arg(long)]
    json: bool,
}

impl Triggers {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self.action {
            Some(Action::Fire(one)) => one.steer(global, "fire"),
            Some(Action::Pause(one)) => one.steer(global, "pause"),
            Some(Action::Resume(one)) => one.steer(global, "resume"),
            None => list(global, self.json),
        }
    }
}

impl One {
    fn steer(self, global: &Global, what: &str) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let path = format!("/v1/triggers/{}/{what}", show::percent(&self.name));
            let steered: Steered = client.post(&path, Vec::new().into()).await?;
            if self.json {
                show::json(&steered)?;
                return Ok(ExitCode::SUCCESS);
            }
            let name = &steered.trigger;
            match (&steered.event, what, steered.changed) {
                (Some(event), ..) => {
                    writeln!(stdout(), "{event}")?;
                    if steered.deliveries == Some(0) {
                        terminal::talk(format!("`{name}` is bound to nothing; the event is logged and goes nowhere"));
                    }
                }
                (None, "pause", true) => {
                    terminal::talk(format!("`{name}` is paused until `fnbus triggers resume {name}`"));
                }
                (None, "pause", false) => terminal::talk(format!("`{name}` was paused already")),
                (None, _, true) => terminal::talk(format!("`{name}` goes on")),
                (None, _, false) => terminal::talk(format!("`{name}` was not paused")),
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn list(global: &Global, json: bool) -> Result<ExitCode, Failure> {
    global.ask(async |client| {
        let triggers: Vec<TriggerStatus> = client.get("/v1/triggers", None::<&()>).await?;
        if json {
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

/// What a trigger does now, as far as it says.
fn state(trigger: &TriggerStatus) -> String {
    let paused = trigger.paused.then(|| "paused".to_owned());
    let next = trigger.next.map(|next| format!("next {}", show::local(next)));
    let lag = trigger.lag.map(|lag| format!("{lag} waiting"));
    [paused, trigger.state.clone(), lag, next].into_iter().flatten().collect::<Vec<_>>().join(", ")
}
