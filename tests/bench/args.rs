//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Figures of fnbus, as ratios to a floor measured in the same run.
#[derive(Debug, Parser)]
#[command(name = "fnbus-bench", max_term_width = 100, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches of the command line")]
pub(crate) struct Options {
    /// Rows to measure, for example P2 P7; all of them without any
    #[arg(value_name = "ROW")]
    pub(crate) rows: Vec<String>,
    /// Short rounds and small backlogs: to see that it works, not to compare
    #[arg(long)]
    pub(crate) quick: bool,
    /// No table and no progress, only lines of JSON
    #[arg(long)]
    pub(crate) json_only: bool,
    /// Say which rows there are
    #[arg(long)]
    pub(crate) list: bool,
    /// Where the page is written
    #[arg(long, default_value = "bench/report.html", value_name = "FILE")]
    pub(crate) report: PathBuf,
    /// Where data folders are made; on a real disk, for the cost of syncing is part of the figures
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Leave the data folders there
    #[arg(long)]
    pub(crate) keep: bool,
}

/// What the binary runs itself for.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// A part of a floor, as a process of its own
    #[command(subcommand, hide = true)]
    Floor(Floor),
}

/// The parts a floor is made of.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Floor {
    /// HTTP in front of NATS: POST /call waits for a reply, POST /publish for JetStream's acknowledgement
    Http { nats: String },
    /// Answers what comes with what came
    Responder { nats: String },
    /// Publishes messages into a work queue, and pulls and acknowledges them when told to
    Pull { nats: String, messages: usize },
    /// Makes runs of steps when told to: each step a row, synced, and a message through JetStream
    Steps { nats: String, folder: PathBuf, runs: usize, steps: usize },
}
