//! `fnbus dead`: what was given up, and giving it another chance.

use std::process::ExitCode;

use api::control::DeadQuery;
use bus::log::{
    query::{DeadLetter, Selection},
    replay::Request,
};

use super::{replay::again, show::Show};
use crate::{args::Global, failure::Failure, selection::SelectionArgs, show, terminal};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Dead {
    /// The dead letters, newest last
    List(List),
    /// Everything about one of them
    Show(Show),
    /// Deliver dead letters again, by the ids of their events or all of them
    Redrive(Redrive),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The newest so many
    #[arg(short = 'n', long, default_value_t = 1000)]
    limit: usize,
    /// One JSON object per dead letter
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Redrive {
    /// Events by their ids
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// Every dead letter that the filters leave
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Dead {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run(global),
            Self::Show(show) => show.run(global),
            Self::Redrive(redrive) => redrive.run(global),
        }
    }
}

impl List {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { selection, limit, json } = self;
        global.ask(async |client| {
            let selection = selection.selection(Vec::new());
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
            let rows = letters.iter().map(|letter| {
                let error = letter.error.as_ref().map(|e| format!("{}: {}", e.kind, e.message)).unwrap_or_default();
                vec![
                    letter.died.map(show::time).unwrap_or_default(),
                    letter.event.clone(),
                    letter.target.clone(),
                    letter.reason.clone().unwrap_or_default().replace('_', " "),
                    letter.attempts.to_string(),
                    show::short(&error, 80),
                ]
            });
            show::table(&["DIED", "EVENT", "TARGET", "REASON", "ATTEMPTS", "LAST ERROR"], rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Redrive {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { ids, selection, dry_run, json, .. } = self;
        let request = Request { selection: selection.selection(ids), dead: true, ..Request::default() };
        global.ask(async |client| again(&client, &request, dry_run, true, json).await)
    }
}
