//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::command;

/// An event-driven function bus: your own Lambda and API Gateway on NATS.
#[derive(Debug, Parser)]
#[command(name = "fnbus", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// The config file
    #[arg(long, global = true, env = "FNBUS_CONFIG", default_value = "fnbus.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The data folder, instead of `[bus] data`
    #[arg(id = "data_folder", long = "data", global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// In the order one meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a project: a config file and a first function
    Init(command::init::Init),
    /// Run the bus
    Up(command::up::Up),
    /// Look for problems in the config file without running anything
    Check(command::check::Check),
    /// What this machine has for fnbus, and what of `isolation` its kernel enforces
    Doctor(command::doctor::Doctor),
    /// Show what can be written in the config file
    #[command(subcommand)]
    Config(command::config::ConfigCommand),
    /// Put an event on the bus
    Emit(command::emit::Emit),
    /// Run a function once and wait for its result
    Invoke(command::invoke::Invoke),
    /// What happened, and where it stands
    Events(command::events::Events),
    /// Everything about one event
    Show(command::show::Show),
    /// Deliver logged events again
    Replay(command::replay::Replay),
    /// What was given up: list, show, edit, redrive, drop
    #[command(subcommand)]
    Dead(command::dead::Dead),
    /// What functions print
    Logs(command::logs::Logs),
    /// What can run, and how it does; versions, promote, rollback, unalias
    Functions(command::functions::Functions),
    /// What functions can be written for, until when, and what of it this machine has
    Runtimes(command::runtimes::Runtimes),
    /// What is listened to, and where it goes; fire, pause, resume
    Triggers(command::triggers::Triggers),
    /// The pipelines, and how their runs stand
    Pipelines(command::pipelines::Pipelines),
    /// Executions of pipelines: list, show step by step
    #[command(subcommand)]
    Runs(command::runs::Runs),
    /// The running node: addresses, folders, and how much it holds
    Node(command::node::Node),
    /// Copy the event log while it is used, or look through one for damage
    Backup(command::backup::Backup),
    /// Put a backup in the place of the event log of a node that does not run
    Restore(command::restore::Restore),
    /// The NATS of the bus: its address, publish, listen
    #[command(subcommand)]
    Nats(command::nats::Nats),
    /// Figures that need no running node
    #[command(subcommand)]
    Bench(command::bench::Bench),
    /// Completions for a shell
    Completions(command::completions::Completions),
}
