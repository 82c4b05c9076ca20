//! The command line.

use clap::{Parser, Subcommand};

/// What can happen to a node, and whether its promises hold all the same.
#[derive(Debug, Parser)]
#[command(name = "fnbus-faults", max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Faults by number; all of them without any
    #[arg(value_name = "NUMBER")]
    pub(crate) faults: Vec<u32>,
    /// Repeat the moments of an earlier run
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How often each of them happens
    #[arg(long, value_name = "N")]
    pub(crate) cycles: Option<usize>,
    /// One object a fault, as JSON, and no table
    #[arg(long)]
    pub(crate) json: bool,
    /// The table of docs/reliability.md on stdout
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,
    /// Say which faults there are, with their cycles and what these take
    #[arg(long)]
    pub(crate) list: bool,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Faults of all kinds at random on one project that lives on
    Soak {
        /// How long
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        /// Repeat the choices of an earlier run
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// One object, as JSON
        #[arg(long)]
        json: bool,
    },
}
