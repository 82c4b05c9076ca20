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
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The config file
    #[arg(long, global = true, env = "FNBUS_CONFIG", default_value = "fnbus.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The data folder, instead of `[bus] data`
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// In the order one meets them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a project: a config file and a first function
    Init(command::init::Init),
    /// Look for problems in the config file without running anything
    Check(command::check::Check),
    /// Show what can be written in the config file
    #[command(subcommand)]
    Config(command::config::ConfigCommand),
}
