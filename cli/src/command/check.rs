//! `fnbus check`: all problems of the config file, without running anything.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use runtimes::RuntimeKind;

use crate::{
    args::Global,
    config::{Config, ConfigError},
    failure::Failure,
    terminal,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// One JSON object per problem: file, line, column, message, advice
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let mut out = stdout().lock();
        match global.load() {
            Ok(config) => {
                if !self.json {
                    let functions = count(config.functions.len(), "function");
                    let triggers = count(config.triggers.len(), "trigger");
                    writeln!(out, "{} is good: {functions}, {triggers}", global.config.display())?;
                }
                warn_of_interpreters(&config);
                say_what_is_pinned(&config);
                Ok(ExitCode::SUCCESS)
            }
            Err(error) if self.json => {
                write_json(&mut out, &error)?;
                Ok(ExitCode::FAILURE)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// No problem of the file, which may be meant for another machine: said, and no failure.
fn warn_of_interpreters(config: &Config) {
    for runtime in RuntimeKind::ALL {
        let of_it = config.functions.iter().filter(|(_, function)| function.runtime == runtime);
        let names: Vec<_> = of_it.map(|(name, _)| format!("`{name}`")).collect();
        if names.is_empty() {
            continue;
        }
        if let Some(missing) = runtimes::missing_interpreter(runtime) {
            terminal::talk(format!("warning: {} cannot run on this machine: {missing}", names.join(", ")));
        }
    }
}

/// What an edit of the code does not change.
fn say_what_is_pinned(config: &Config) {
    for (name, version) in runtimes::pinned(&config.bus.data) {
        if config.functions.contains_key(&name) {
            terminal::talk(format!(
                "`{name}` is pinned to version {version}, and edits of it do not serve; \
                 `fnbus functions promote {name}` puts the newest into service"
            ));
        }
    }
}

fn write_json(out: &mut impl Write, error: &ConfigError) -> Result<(), Failure> {
    for line in error.json() {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
