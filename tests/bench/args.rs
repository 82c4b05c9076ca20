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
    pub(crate) floor: Option<Floor>,
}

#[derive(Debug, clap::Args)]
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

/// The parts a floor is made of, each a process.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Floor {
    /// HTTP in front of NATS: POST /call waits for a reply, POST /publish for JetStream's acknowledgement
    #[command(hide = true)]
    FloorHttp { nats: String },
    /// Answers what comes with what came
    #[command(hide = true)]
    FloorResponder { nats: String },
    /// Publishes messages into a work queue, and pulls and acknowledges them when told to
    #[command(hide = true)]
    FloorPull { nats: String, messages: usize },
}
