//! `make faults`: every fault with patience, and a table of what it did to the promises. `make soak`: all of them for
//! long on one project.
//!
//! Stdout is data (a line of JSON a fault, or a table in Markdown), stderr is talk. Exit 1 when a promise was broken.

// The command line.
mod args;
// The table for people, and for docs/reliability.md.
mod report;

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use fnbus_tests::faults::{
    self, Fault, Tally, Trial,
    soak::{Slope, soak},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    args::{Args, Command, Options},
    report::Row,
};

/// In less, what a node fills its caches with looks like a leak.
const MINUTES_OF_A_SLOPE: u64 = 30;

fn main() -> ExitCode {
    let args = Args::parse();
    let options = args.options;
    if options.list {
        list();
        return ExitCode::SUCCESS;
    }
    let wanted = match wanted(&options.faults) {
        Ok(wanted) => wanted,
        Err(number) => {
            eprintln!("error: there is no fault {number}; fnbus-faults --list names them");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let clean = runtime.block_on(async {
        let work = async {
            match args.command {
                Some(Command::Soak { minutes, seed, json }) => soaked(minutes, seed, json).await,
                None => all(&wanted, &options).await,
            }
        };
        tokio::select! {
            clean = work => clean,
            // what was started ends as the runtime is dropped
            _ = tokio::signal::ctrl_c() => { eprintln!("interrupted"); false }
        }
    });
    drop(runtime);
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every fault with its cycles and what they take, about, on two cores; and all of them together.
fn list() {
    let line = |number: &dyn Display, cycles: usize, seconds: u64, sentence: &str| {
        println!("{number:>3} {cycles:4} x {:3}:{:02}  {sentence}", seconds / 60, seconds % 60);
    };
    for fault in faults::ALL {
        line(&fault.number, fault.full, fault.seconds, fault.sentence);
    }
    let cycles = faults::ALL.iter().map(|fault| fault.full).sum();
    let seconds = faults::ALL.iter().map(|fault| fault.seconds).sum();
    line(&"", cycles, seconds, "all, in about so many minutes and seconds on two cores");
}

fn wanted(numbers: &[u32]) -> Result<Vec<Fault>, u32> {
    let find = |number: &u32| faults::ALL.iter().find(|fault| fault.number == *number).copied().ok_or(*number);
    if numbers.is_empty() { Ok(faults::ALL.to_vec()) } else { numbers.iter().map(find).collect() }
}

/// One after the other; whether every promise was kept.
async fn all(wanted: &[Fault], options: &Options) -> bool {
    let mut rows = Vec::new();
    for fault in wanted {
        let seed = options.seed.unwrap_or_else(faults::seed);
        let cycles = options.cycles.unwrap_or(fault.full);
        let bar = bar(cycles as u64, options.json);
        bar.set_prefix(fault.number.to_string());
        bar.set_message(fault.sentence);
        let (ticks, begun) = (bar.clone(), Instant::now());
        let tally = fault.attempt(Trial::new(seed, cycles).telling(move || ticks.inc(1))).await;
        bar.finish_and_clear();
        let row =
            Row { fault: fault.number, sentence: fault.sentence, seed, seconds: begun.elapsed().as_secs(), tally };
        told(&row, options.json);
        rows.push(row);
    }
    if options.markdown {
        println!("{}", report::markdown(&rows));
    }
    if !options.json {
        eprintln!("\n{}", report::table(&rows));
    }
    rows.iter().all(|row| row.tally.is_clean())
}

fn told(row: &Row, json: bool) {
    if json {
        println!("{}", row.json());
        let _ = std::io::stdout().flush();
        return;
    }
    let word = if row.tally.is_clean() { "ok" } else { "BROKEN" };
    eprintln!("{:3} {word:6} {:4} s  {}", row.fault, row.seconds, row.sentence);
    if !row.tally.is_clean() {
        eprintln!("    again: fnbus-faults {} --seed {} --cycles {}", row.fault, row.seed, row.tally.cycles);
    }
    for note in &row.tally.notes {
        eprintln!("    {note}");
    }
}

async fn soaked(minutes: u64, seed: Option<u64>, json: bool) -> bool {
    let seed = seed.unwrap_or_else(faults::seed);
    let bar = bar(minutes * 60, json);
    bar.set_prefix("soak");
    bar.set_message(format!("seed {seed}"));
    let (ticks, begun) = (bar.clone(), Instant::now());
    let trial = Trial::new(seed, 0).telling(move || ticks.set_position(begun.elapsed().as_secs()));
    // The task is of the runtime, so that a panic is told like everything else.
    let run = tokio::spawn(soak(trial, Duration::from_secs(minutes * 60))).await;
    bar.finish_and_clear();
    let (tally, slope) = run.unwrap_or_else(|error| {
        let mut tally = Tally::default();
        tally.broken(error.to_string());
        (tally, Slope::default())
    });
    let clean = tally.is_clean();
    let row = Row {
        fault: 40,
        sentence: "everything at random on one project",
        seed,
        seconds: begun.elapsed().as_secs(),
        tally,
    };
    if json {
        println!("{}", row.json());
    } else {
        told(&row, false);
        eprintln!("\n{}", report::table(std::slice::from_ref(&row)));
    }
    if minutes < MINUTES_OF_A_SLOPE {
        eprintln!(
            "the node took {:.0} MiB at most; {MINUTES_OF_A_SLOPE} minutes show whether it grows",
            slope.most_mib
        );
        return clean;
    }
    eprintln!(
        "the node, an hour: {:+.1} MiB, {:+.1} descriptors, {:+.1} threads ({} samples, at most {:.0} MiB)",
        slope.mib_per_hour, slope.files_per_hour, slope.threads_per_hour, slope.samples, slope.most_mib
    );
    clean
}

fn bar(length: u64, hidden: bool) -> ProgressBar {
    let hidden = hidden || !std::io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>4} {bar:24} {pos}/{len} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
