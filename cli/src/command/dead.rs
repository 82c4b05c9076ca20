//! `fnbus dead`: what was given up, and what becomes of it.

use std::{collections::BTreeMap, io::Write, process::ExitCode};

use anstream::stdout;
use api::{Client, control::DeadQuery};
use bus::log::{
    DeadReason,
    dead::{DeadLetter, Dropped},
    query::Selection,
    replay::Request,
};

use super::{
    edit::Edit,
    replay::{again, confirmed, count},
    show::Show,
};
use crate::{args::Global, failure::Failure, selection::SelectionArgs, show, terminal};

/// From so many on they are summed up.
const MANY: u64 = 10;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Dead {
    /// The dead letters, newest last
    List(List),
    /// Everything about one of them
    Show(Show),
    /// Deliver dead letters again, by the ids of their events or all of them
    Redrive(Redrive),
    /// Correct the body of one and deliver that to its target, as an event of its own
    Edit(Edit),
    /// Take dead letters off the list for good, by the ids of their events or all of them
    Drop(Drop),
}

/// Which letters.
#[derive(Debug, clap::Args)]
struct Which {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Given up for this reason, in the word the list has for it
    #[arg(long, value_parser = reason, value_name = "REASON", help_heading = "Which events")]
    reason: Option<DeadReason>,
}

/// Which letters, named or all that the filters leave.
#[derive(Debug, clap::Args)]
struct Letters {
    /// Events by their ids
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// Every dead letter that the filters leave
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// The newest so many
    #[arg(short = 'n', long, default_value_t = 1000)]
    limit: usize,
    /// One JSON object per dead letter
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    #[command(flatten)]
    letters: Letters,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drop {
    #[command(flatten)]
    letters: Letters,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Dead {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run(global),
            Self::Show(show) => show.run(global),
            Self::Redrive(redrive) => redrive.run(global),
            Self::Edit(edit) => edit.run(global),
            Self::Drop(drop) => drop.run(global),
        }
    }
}

impl Which {
    fn selection(self, ids: Vec<String>) -> Selection {
        Selection { reason: self.reason, ..self.selection.selection(ids) }
    }
}

fn reason(text: &str) -> Result<DeadReason, String> {
    DeadReason::parse(text).ok_or_else(|| {
        let known: Vec<_> = DeadReason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("use one of {}", known.join(", "))
    })
}

impl List {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { which, limit, json } = self;
        global.ask(async |client| {
            let selection = which.selection(Vec::new());
            let chosen = selection != Selection::default();
            let question = DeadQuery { selection, limit: Some(limit) };
            let mut lines = client.lines("/v1/dead", &question).await?;
            let mut letters = Vec::new();
            while let Some(letter) = lines.next::<DeadLetter>().await? {
                if json { show::json(&letter)? } else { letters.push(letter) }
            }
            if json {
                return Ok(ExitCode::SUCCESS);
            }
            if letters.is_empty() {
                terminal::talk(if chosen { "no dead letter matches" } else { "no dead letters" });
                return Ok(ExitCode::SUCCESS);
            }
            show::table(
                &["DIED", "EVENT", "TARGET", "REASON", "ATTEMPTS", "EXPIRES", "LAST ERROR", "LAST LINE PRINTED"],
                letters.iter().map(row),
            )?;
            sum_up(&client, &question, letters.len()).await?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let error = letter.error.as_ref().map(|e| format!("{}: {}", e.kind, e.message)).unwrap_or_default();
    let last_line = letter.log.as_deref().and_then(|log| log.lines().last()).unwrap_or_default();
    let mut reason = letter.reason.clone().unwrap_or_default().replace('_', " ");
    if letter.blocks > 0 {
        reason = format!("{reason}, blocks {}", letter.blocks);
    }
    let tries: Vec<&str> = letter.history.iter().filter_map(|attempt| attempt.outcome.as_deref()).collect();
    vec![
        letter.died.map(show::time).unwrap_or_default(),
        letter.event.clone(),
        letter.target.clone(),
        reason,
        if tries.is_empty() { letter.attempts.to_string() } else { in_a_row(&tries) },
        letter.expires.map_or("never".to_owned(), show::day),
        show::short(&error, 80),
        show::short(last_line, 60),
    ]
}

/// `error error timeout` as `2 error, 1 timeout`.
fn in_a_row(words: &[&str]) -> String {
    let runs = words.chunk_by(|a, b| a == b).filter_map(|run| Some(format!("{} {}", run.len(), run.first()?)));
    runs.collect::<Vec<_>>().join(", ")
}

/// How many there are of which kind, when that is not seen at a glance.
async fn sum_up(client: &Client, question: &DeadQuery, shown: usize) -> Result<(), Failure> {
    let all: Dropped = client.get("/v1/dead/totals", Some(question)).await?;
    if all.letters < MANY && all.letters == shown as u64 {
        return Ok(());
    }
    let newest = if all.letters > shown as u64 { format!(", the newest {shown} shown") } else { String::new() };
    let letters = count(all.letters, "dead letter", "dead letters");
    terminal::talk(format_args!("{letters}{newest}: {}", parts(&all.reasons)));
    Ok(())
}

/// `3 attempts exhausted, 1 too old`.
fn parts(reasons: &BTreeMap<String, u64>) -> String {
    let parts = reasons.iter().map(|(reason, n)| format!("{n} {}", reason.replace('_', " ")));
    parts.collect::<Vec<_>>().join(", ")
}

impl Redrive {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Letters { ids, which, dry_run, json, .. } = self.letters;
        let request = Request { selection: which.selection(ids), dead: true, ..Request::default() };
        global.ask(async |client| again(&client, &request, dry_run, true, json).await)
    }
}

impl Drop {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { letters: Letters { ids, all, which, dry_run, json }, yes } = self;
        let selection = which.selection(ids);
        global.ask(async |client| {
            let question = DeadQuery { selection: selection.clone(), limit: None };
            let plan: Dropped = client.get("/v1/dead/totals", Some(&question)).await?;
            if dry_run && json {
                show::json(&plan)?;
                return Ok(ExitCode::SUCCESS);
            }
            if !json {
                describe(&plan);
            }
            if dry_run {
                return Ok(ExitCode::SUCCESS);
            }
            if plan.letters == 0 {
                return Err(Failure::SelectionEmpty { what: "dead letter" });
            }
            if all && !yes && !confirmed("drop dead letters for good")? {
                return Ok(ExitCode::FAILURE);
            }
            let dropped: Dropped = client.post_json("/v1/dead/drop", &selection).await?;
            if json {
                show::json(&dropped)?;
            } else {
                writeln!(stdout(), "{}", dropped.letters)?;
                terminal::talk("dropped; the log has them still: fnbus show ID");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn describe(plan: &Dropped) {
    let to: Vec<String> = plan.targets.iter().map(|(target, n)| format!("{n} to {target}")).collect();
    let letters = count(plan.letters, "dead letter", "dead letters");
    let to = if to.is_empty() { String::new() } else { format!(": {} ({})", to.join(", "), parts(&plan.reasons)) };
    terminal::talk(format_args!("{letters}{to}"));
    if plan.freed > 0 {
        terminal::talk(format_args!("{} behind them go on", count(plan.freed, "delivery", "deliveries")));
    }
}

#[cfg(test)]
mod tests {
    use super::in_a_row;

    #[test]
    fn attempts_that_ended_alike_are_counted() {
        assert_eq!(in_a_row(&["error", "error", "timeout", "error"]), "2 error, 1 timeout, 1 error");
        assert_eq!(in_a_row(&[]), "");
    }
}
