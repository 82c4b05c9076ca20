//! `fnbus runs`: executions of pipelines, and each of them step by step.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anstream::stdout;
use api::control::RunsQuery;
use bus::log::{
    Status,
    runs::{RunDetail, RunRow, RunSelection},
};
use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;

use super::show::{field, print_attempt, print_waits, words};
use crate::{args::Global, failure::Failure, selection, show, terminal};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Runs {
    /// The runs, newest last
    List(List),
    /// One run, step by step
    Show(Show),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// running, done or dead
    #[arg(long, value_parser = status)]
    status: Option<Status>,
    /// Begun since then: 10m, 2h, 3d (ago), 2026-11-23, 2026-11-23T14:00 or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = selection::when)]
    since: Option<DateTime<Utc>>,
    /// Begun before then
    #[arg(long, value_name = "TIME", value_parser = selection::when)]
    until: Option<DateTime<Utc>>,
    /// The newest so many
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: usize,
    /// One JSON object per run
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The run's id, or that of the event it began with
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    id: String,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Runs {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run(global),
            Self::Show(show) => show.run(global),
        }
    }
}

impl List {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let Self { pipeline, status, since, until, limit, json } = self;
        let question = RunsQuery { selection: RunSelection { pipeline, status, since, until }, limit: Some(limit) };
        global.ask(async |client| {
            let mut lines = client.lines("/v1/runs", &question).await?;
            let mut runs = Vec::new();
            while let Some(run) = lines.next::<RunRow>().await? {
                if json { show::json(&run)? } else { runs.push(run) }
            }
            if json {
                return Ok(ExitCode::SUCCESS);
            }
            if runs.is_empty() {
                terminal::talk("no runs");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = runs.iter().map(|run| {
                let at = if run.at.is_empty() { String::new() } else { format!("at {}", run.at.join(", ")) };
                let (id, status) = (run.id.to_string(), run.status.as_str().to_owned());
                vec![show::time(run.started), status, id, run.pipeline.clone(), took(run), at]
            });
            show::table(&["STARTED", "STATUS", "RUN", "PIPELINE", "TOOK", ""], rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

impl Show {
    fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let path = format!("/v1/runs/{}", show::percent(&self.id));
            let run: RunDetail = client.get(&path, None::<&()>).await?;
            if self.json {
                show::json(&run)?;
            } else {
                print(&run)?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn print(detail: &RunDetail) -> io::Result<()> {
    let RunDetail { run, output, error, steps } = detail;
    field("run", Some(&run.id.to_string()))?;
    field("pipeline", Some(&run.pipeline))?;
    writeln!(stdout(), "{:<12} {}", "status", show::status(run.status))?;
    field("event", Some(&run.event))?;
    field("started", Some(&show::time(run.started)))?;
    field("took", Some(&took(run)).filter(|took| !took.is_empty()).map(String::as_str))?;
    for delivery in steps {
        let path = delivery.step.as_deref().unwrap_or_default();
        let target = if path == delivery.target { String::new() } else { format!("  -> {}", delivery.target) };
        writeln!(
            stdout(),
            "\n{}  {}{}{}",
            show::clean(path),
            show::status(delivery.status),
            show::clean(&target),
            show::clean(&words(delivery))
        )?;
        print_waits(delivery)?;
        delivery.attempts.iter().try_for_each(print_attempt)?;
    }
    match (error, output) {
        (Some(error), _) => writeln!(stdout(), "\n{}: {}", show::clean(&error.kind), show::clean(&error.message)),
        (None, Some(output)) if !output.is_empty() => writeln!(stdout(), "\n= {}", show::short(output, 400)),
        _ => Ok(()),
    }
}

/// How long a run took that is over.
fn took(run: &RunRow) -> String {
    let took = run.ended.and_then(|ended| (ended - run.started).to_std().ok());
    took.map_or(String::new(), |took| format!("{:.1} ms", took.as_secs_f64() * 1e3))
}

fn status(text: &str) -> Result<Status, String> {
    let known = [Status::Running, Status::Done, Status::Dead];
    known.into_iter().find(|status| status.as_str() == text).ok_or_else(|| "a run is running, done or dead".to_owned())
}
