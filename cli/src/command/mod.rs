//! One file per command.

pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod init;

use std::process::ExitCode;

use crate::{
    args::{Args, Command},
    failure::Failure,
};

/// Runs the command of the arguments.
pub(crate) fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Init(command) => command.run(),
        Command::Check(command) => command.run(&args.global),
        Command::Config(command) => command.run(),
    }
}
