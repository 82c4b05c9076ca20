//! `fnbus config`: what can be written in the config file.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use crate::{config, failure::Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the JSON Schema of the config file, for editors
    Schema,
    /// Print a config file
    Print {
        /// With every key at its default, explained
        #[arg(long, required = true)]
        default: bool,
    },
}

impl ConfigCommand {
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let mut out = stdout().lock();
        match self {
            Self::Schema => writeln!(out, "{:#}", config::schema())?,
            Self::Print { default: _ } => out.write_all(config::defaults().as_bytes())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
