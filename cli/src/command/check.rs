//! `fnbus check`: all problems of the config file, without running anything.

use std::{
    collections::BTreeMap,
    io::{Write, stdout},
    process::ExitCode,
};

use bus::Name;
use chrono::Utc;
use runtimes::{Interpreters, Kept, Lifecycle};

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
        let checked = global.load().and_then(|config| {
            let kept = runtimes::kept(&config.bus.data);
            config.check_runtimes(&global.config, &kept, Utc::now())?;
            Ok((config, kept))
        });
        match checked {
            Ok((config, kept)) => {
                if !self.json {
                    let functions = count(config.functions.len(), "function");
                    let triggers = count(config.triggers.len(), "trigger");
                    writeln!(out, "{} is good: {functions}, {triggers}", global.config.display())?;
                }
                warn_of_interpreters(&config);
                for ending in config.endings(Utc::now()) {
                    terminal::talk(format!("warning: {ending}"));
                }
                for unknown in config.unknown_versions(&kept) {
                    terminal::talk(format!("warning: {unknown}"));
                }
                say_what_is_pinned(&config, &kept);
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
    let mut runtimes: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (name, function) in &config.functions {
        runtimes.entry((function.runtime, function.pin)).or_default().push(format!("`{name}`"));
    }
    let interpreters = Interpreters::default();
    for ((runtime, pin), names) in runtimes {
        match interpreters.find(runtime, pin) {
            Some(Err(missing)) => {
                terminal::talk(format!("warning: {} cannot run on this machine: {missing}", names.join(", ")));
            }
            Some(Ok(found)) if pin.is_none() => {
                let lifecycle = Lifecycle::of(&found.identifier);
                if let Some(warning) = lifecycle.and_then(|lifecycle| lifecycle.warning(Utc::now())) {
                    let (runtime, identifier) = (runtime.as_str(), found.identifier);
                    terminal::talk(format!("warning: `{runtime}` is {identifier} on this machine, which {warning}"));
                }
            }
            _ => {}
        }
    }
}

/// What an edit of the code does not change.
fn say_what_is_pinned(config: &Config, kept: &BTreeMap<Name, Kept>) {
    for (name, kept) in kept {
        if let Some(version) = kept.pinned.filter(|_| config.functions.contains_key(name)) {
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
