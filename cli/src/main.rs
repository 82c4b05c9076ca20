//! The `fnbus` binary: arguments, config file, wiring, words.
//!
//! stdout is data, stderr is talk. Exit codes: 0 good, 1 a problem was found or something failed, 2 wrong usage.

// The command line.
mod args;
// One file per command.
mod command;
// `fnbus.toml`, whole.
mod config;
// A running node: wired, reloaded, drained.
mod up;

// The way from a command to the running node.
mod node;
// Which events a command means.
mod selection;
// Data for people, on stdout.
mod show;
// Talk for people, on stderr.
mod terminal;
// Why a command failed.
mod failure;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // not a command: what a node starts ahead of a function
    if let Some(ended) = runtimes::entered() {
        return ended;
    }
    let args = args::Args::parse();
    match command::run(args) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
