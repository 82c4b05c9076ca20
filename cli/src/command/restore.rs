//! `fnbus restore`: a backup in the place of the event log of a node that does not run.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anstream::stdout;
use bus::log::restore::{Restored, restore};

use super::backup::{Bar, say_damaged, summary};
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The backup
    file: PathBuf,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Restore {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let data = global.client()?.data().to_owned();
        let mut bar = Bar::default();
        let done = restore(&self.file, &data, |progress| bar.tell(progress));
        bar.end();
        let restored = done.map_err(Failure::from)?;
        if self.json {
            show::json(&restored)?;
            return Ok(ExitCode::SUCCESS);
        }
        let Restored { checked, restored, kept } = restored;
        writeln!(stdout(), "{}: {}, from {}", restored.display(), summary(&checked), checked.file.display())?;
        match kept {
            Some(kept) => terminal::talk(format_args!("the log that was there is kept as {}", kept.display())),
            None => terminal::talk("there was no log before"),
        }
        say_damaged(&checked);
        terminal::talk("`fnbus up` goes on from it: what ended after the backup runs again");
        Ok(ExitCode::SUCCESS)
    }
}
