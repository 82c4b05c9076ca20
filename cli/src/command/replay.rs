//! `fnbus replay`: deliver logged events again.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

use anstream::stdout;
use api::Client;
use bus::{
    Name,
    log::{
        query::Selection,
        replay::{Created, Plan, Request},
    },
};

use crate::{args::Global, failure::Failure, selection::SelectionArgs, show, terminal};

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
pub(crate) struct Replay {
    /// Events by their ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Deliver to this function instead of each delivery's own
    #[arg(long, value_name = "FUNCTION")]
    to: Option<Name>,
    /// Run the functions, but let nothing follow from their outputs; a pipeline still runs its steps
    #[arg(long)]
    hold: bool,
    /// Why, for the record
    #[arg(long)]
    reason: Option<String>,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// One JSON object: the plan of a dry run, else the replay's name and plan
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { ids, selection, to, hold, reason, dry_run, yes, json } = self;
        let selection = selection.selection(ids);
        if selection == Selection::default() {
            return Err(Failure::NothingSelected);
        }
        let request = Request { selection, dead: false, to, hold, reason };
        global.ask(async |client| again(&client, &request, dry_run, yes, json).await)
    }
}

/// Says what a request would do, asks, and does it.
pub(super) async fn again(
    client: &Client,
    request: &Request,
    dry_run: bool,
    yes: bool,
    json: bool,
) -> Result<ExitCode, Failure> {
    let plan: Plan = client.post_json("/v1/replays/plan", request).await?;
    if !json {
        describe(&plan);
    }
    if dry_run {
        if json {
            show::json(&plan)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if plan.deliveries == 0 {
        return Err(Failure::SelectionEmpty { what: if request.dead { "dead letter" } else { "delivery" } });
    }
    if !yes && !confirmed("run functions again")? {
        return Ok(ExitCode::FAILURE);
    }
    let created: Created = client.post_json("/v1/replays", request).await?;
    if json {
        show::json(&created)?;
    } else {
        writeln!(stdout(), "{}", created.name)?;
        terminal::talk("under way; see what becomes of each with `fnbus show ID` or `fnbus runs show ID`");
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(plan: &Plan) {
    let targets: Vec<String> = plan.targets.iter().map(|(target, n)| format!("{n} to {target}")).collect();
    let Plan { done_already, open, without_body, .. } = plan;
    let deliveries = count(plan.deliveries, "delivery", "deliveries");
    let events = count(plan.events, "event", "events");
    let targets = if targets.is_empty() { String::new() } else { format!(": {}", targets.join(", ")) };
    terminal::talk(format_args!("{deliveries} of {events}{targets}"));
    if *done_already > 0 {
        terminal::talk(format_args!("{done_already} of them ended well already and would run again"));
    }
    if *open > 0 {
        terminal::talk(format_args!("{open} of them are still open and would run twice"));
    }
    if *without_body > 0 {
        terminal::talk(format_args!("{without_body} are left out: their bodies are gone by [log] keep"));
    }
}

/// A number and what it counts.
pub(super) fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Asks on a terminal; elsewhere only `--yes` goes on.
pub(super) fn confirmed(what: &'static str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::NotConfirmed { what });
    }
    let mut err = io::stderr();
    write!(err, "go on? [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
