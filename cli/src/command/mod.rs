//! One file per command.

pub(crate) mod init;
pub(crate) mod up;
pub(crate) mod check;
pub(crate) mod doctor;
pub(crate) mod config;
pub(crate) mod emit;
pub(crate) mod invoke;
pub(crate) mod events;
pub(crate) mod show;
pub(crate) mod replay;
pub(crate) mod dead;
// One of the dead, with another body.
mod edit;
pub(crate) mod logs;
pub(crate) mod functions;
// What was deployed of one, and which of it serves.
mod versions;
pub(crate) mod triggers;
pub(crate) mod pipelines;
pub(crate) mod runs;
pub(crate) mod runtimes;
pub(crate) mod node;
pub(crate) mod backup;
pub(crate) mod restore;
pub(crate) mod nats;
pub(crate) mod bench;
pub(crate) mod completions;
// Data given on the command line.
mod input;

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
        Command::Doctor(command) => command.run(&args.global),
        Command::Config(command) => command.run(),
        Command::Up(command) => command.run(args.global),
        Command::Emit(command) => command.run(&args.global),
        Command::Invoke(command) => command.run(&args.global),
        Command::Events(command) => command.run(&args.global),
        Command::Show(command) => command.run(&args.global),
        Command::Replay(command) => command.run(&args.global),
        Command::Dead(command) => command.run(&args.global),
        Command::Logs(command) => command.run(&args.global),
        Command::Functions(command) => command.run(&args.global),
        Command::Runtimes(command) => command.run(&args.global),
        Command::Triggers(command) => command.run(&args.global),
        Command::Pipelines(command) => command.run(&args.global),
        Command::Runs(command) => command.run(&args.global),
        Command::Nats(command) => command.run(&args.global),
        Command::Node(command) => command.run(&args.global),
        Command::Backup(command) => command.run(&args.global),
        Command::Restore(command) => command.run(&args.global),
        Command::Bench(command) => command.run(&args.global),
        Command::Completions(command) => command.run(),
    }
}
