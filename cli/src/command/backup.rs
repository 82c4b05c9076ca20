//! `fnbus backup`: a copy of the event log, of a node that runs or not; and whether one is good.

use std::{
    io::{IsTerminal, Write, stderr},
    path::PathBuf,
    process::ExitCode,
};

use anstream::stdout;
use bus::log::backup::{Checked, Progress, backup, check};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::replay::count;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// Where the copy goes; with --check, the backup to look through [default: the log of the node]
    #[arg(value_name = "FILE", required_unless_present = "check")]
    file: Option<PathBuf>,
    /// Replace a file that is there, once the copy is good
    #[arg(long, conflicts_with = "check")]
    force: bool,
    /// Copy nothing: look through a backup, or the log itself, and say what is damaged
    #[arg(long)]
    check: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Backup {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let data = || Ok::<_, Failure>(global.client()?.data().to_owned());
        let mut bar = Bar::default();
        let tell = |progress| bar.tell(progress);
        let done = match self.file {
            Some(file) if !self.check => backup(&data()?, &file, self.force, tell),
            Some(file) => check(&file, tell),
            None => check(&data()?.join("log.db"), tell),
        };
        bar.end();
        let checked = done.map_err(Failure::from)?;
        if self.json {
            show::json(&checked)?;
        } else {
            writeln!(stdout(), "{}: {}", checked.file.display(), summary(&checked))?;
        }
        say_damaged(&checked);
        Ok(if checked.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// What is in a log, on one line.
pub(super) fn summary(checked: &Checked) -> String {
    let Checked { bytes, events, unended, .. } = checked;
    let events = format!("{} {}", HumanCount(*events), if *events == 1 { "event" } else { "events" });
    format!("{}, {events}, {} unended", HumanBytes(*bytes), count(*unended, "delivery", "deliveries"))
}

pub(super) fn say_damaged(checked: &Checked) {
    for id in &checked.damaged {
        terminal::talk(format_args!("the body of event {id} is not what was accepted; it is not delivered any more"));
    }
}

/// How far it is, for a terminal.
#[derive(Default)]
pub(super) struct Bar {
    bar: Option<(bool, ProgressBar)>,
}

impl Bar {
    pub(super) fn tell(&mut self, progress: Progress) {
        if !stderr().is_terminal() {
            return;
        }
        let (copying, done, all) = match progress {
            Progress::Copied(done, all) => (true, done, all),
            Progress::Checked(done, all) => (false, done, all),
        };
        if self.bar.as_ref().is_none_or(|(was, _)| *was != copying) {
            self.end();
            let template = if copying {
                "copying  {bar:40} {bytes}/{total_bytes} {eta}"
            } else {
                "checking {bar:40} {human_pos}/{human_len} events {eta}"
            };
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some((copying, ProgressBar::new(all).with_style(style)));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done);
        }
    }

    pub(super) fn end(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
