//! `make bench`: the figures of TARGETS, each as a ratio to a floor measured in the same run.
//!
//! One file per row ([`rows`]), one per floor ([`floor`]), and what they share: a node that runs ([`node`]), a load
//! ([`load`]), the cost of a process tree ([`cost`]). Stdout is data, one JSON line a row; stderr is talk; the report
//! is one HTML file. The machine is small and shared, so value and floor take turns and medians are compared.
//!
//! The binary runs itself for the floors, which are processes of their own like the parts of the real thing.

// The command line.
mod args;
// What a row has to work with.
mod bench;
// Functions' code.
mod code;
// Child processes that end with us.
mod child;
// What a process tree costs: CPU time, memory, and what others took meanwhile.
mod cost;
// The least that the same work can cost.
mod floor;
// Latencies, counted.
mod histogram;
// Requests over connections that are kept.
mod load;
// A node that runs.
mod node;
// A row of the table and how it is judged.
mod row;
// The rows.
mod rows;
// Rounds: floor and value in turns.
mod turns;
// The table for people, and the page.
mod report;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Args, Command},
    bench::Bench,
};

/// Anything that keeps a row from being measured.
type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.command {
        Some(Command::Floor(role)) => floor::run(role),
        None => measure(&args.options),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: the load takes as little as it can from what is measured, and child processes, which the kernel ends
/// with the thread that started them, live as long as the process.
fn measure(options: &args::Options) -> Result<ExitCode> {
    if options.list {
        for row in rows::ALL {
            println!("{:4} {}", row.id, row.work);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = rows::wanted(&options.rows)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let bench = Bench::new(options)?;
        tokio::select! {
            rows = rows::measure(&bench, &wanted) => report::finish(&rows?, options),
            // everything that was started is ended as it is dropped
            interrupted = child::interrupted() => { interrupted?; Err("interrupted".into()) }
        }
    })
}
