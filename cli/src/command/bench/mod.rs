//! `fnbus bench`: figures that need no running node.

mod pool;
mod plot;

use std::process::ExitCode;

use crate::{args::Global, failure::Failure};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// How long to keep idle instances: policies compared on a trace of calls
    ///
    /// Replays a week of a thousand apps, made from a seed with the distributions of a public cloud, or the calls in the
    /// event log, through: ten minutes always, a histogram with thresholds, greedy-dual, and the cost window of fnbus.
    Pool(pool::Pool),
}

impl Bench {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self {
            Self::Pool(pool) => pool.run(global),
        }
    }
}
