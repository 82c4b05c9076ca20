//! `fnbus events`: what happened, and where it stands.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anstream::stdout;
use api::control::EventsQuery;
use bus::log::query::EventRow;

use crate::{args::Global, failure::Failure, selection::SelectionArgs, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    #[command(flatten)]
    selection: SelectionArgs,
    /// The newest so many
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
    /// Go on with what happens from now
    #[arg(short, long)]
    follow: bool,
    /// One JSON object per event: seq, id, source, type, time, trigger, status, targets
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { selection, limit, follow, json } = self;
        global.ask(async |client| {
            let question = EventsQuery { selection: selection.selection(Vec::new()), limit: Some(limit), follow };
            let mut lines = client.lines("/v1/events", &question).await?;
            let mut any = false;
            while let Some(row) = lines.next::<EventRow>().await? {
                any = true;
                if json { show::json(&row)? } else { print(&row)? }
            }
            if !any && !json {
                terminal::talk("no event matches; `fnbus triggers` and `fnbus functions` know the names");
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn print(row: &EventRow) -> io::Result<()> {
    let from = row.trigger.as_deref().unwrap_or(&row.source);
    let to = if row.targets.is_empty() { "nothing".to_owned() } else { row.targets.join(", ") };
    writeln!(
        stdout(),
        "{}  {}  {}  {}  {} -> {}",
        show::time(row.time),
        show::status_column(row.status),
        show::clean(&row.id),
        show::clean(&row.kind),
        show::clean(from),
        show::clean(&to),
    )
}
