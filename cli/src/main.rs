//! The `fnbus` binary: arguments, config file, wiring, words.
//!
//! stdout is data, stderr is talk. Exit codes: 0 good, 1 a problem was found or something failed, 2 wrong usage.

mod args;
mod command;
mod config;
mod failure;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match command::run(args) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
