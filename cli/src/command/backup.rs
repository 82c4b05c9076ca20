//! `fnbus backup`: a copy of the event log, of a node that runs or not; and whether one is good.

use std::{
    io::{IsTerminal, Write, stderr},
    path::PathBuf,
    process::ExitCode,
};

use anstream::stdout;
use bus::log::backup::{Checked, Progress, backup, check};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

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
            let Checked { file, bytes, events, unended, .. } = &checked;
            let (bytes, events) = (HumanBytes(*bytes), HumanCount(*events));
            writeln!(stdout(), "{}: {bytes}, {events} events, {unended} deliveries unended", file.display())?;
        }
        for id in &checked.damaged {
            terminal::talk(format!("the body of event {id} is not what was accepted; it is not delivered any more"));
        }
        Ok(if checked.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// How far it is, for a terminal.
#[derive(Default)]
struct Bar {
    bar: Option<(bool, ProgressBar)>,
}

impl Bar {
    fn tell(&mut self, progress: Progress) {
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

    fn end(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
