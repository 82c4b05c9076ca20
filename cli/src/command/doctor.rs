//! `fnbus doctor`: what this machine has for fnbus, and what of `isolation` its kernel enforces.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, ExitCode},
};

use runtimes::{Enforcement, Interpreter, Interpreters, RuntimeKind};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::{
    args::Global,
    config::{Config, ConfigError},
    failure::Failure,
    show, terminal,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Findings {
    isolation: Enforcement,
    open_files: Option<u64>,
    programs: Vec<Program>,
    /// What the config file asks for and is not there, a sentence each.
    missing: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct Program {
    name: &'static str,
    path: Option<PathBuf>,
    version: Option<String>,
    /// Why it cannot be used.
    problem: Option<String>,
    /// Whether what an interpreter compiled of a function is kept for the next instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    keeps_compiled: Option<bool>,
}

impl Doctor {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let config = match global.load() {
            Ok(config) => Some(config),
            // the machine can be looked at without a project
            Err(ConfigError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let findings = Findings::gather(config.as_ref());
        if self.json {
            show::json(&findings)?;
        } else {
            show::table(&["WHAT", "STATE", "BY"], findings.rows())?;
        }
        for missing in &findings.missing {
            terminal::talk(format!("missing: {missing}"));
        }
        Ok(if findings.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Findings {
    fn gather(config: Option<&Config>) -> Self {
        let isolation = Enforcement::of_this_machine();
        let interpreters = Interpreters::default();
        let interpreter = |name, runtime| interpreter(name, interpreters.find(runtime, None));
        let programs =
            vec![nats_server(), interpreter("python", RuntimeKind::Python), interpreter("node", RuntimeKind::Node)];
        let functions = || config.into_iter().flat_map(|config| config.functions.values());
        let mut missing: Vec<String> = isolation
            .missing(functions())
            .into_iter()
            .map(|part| format!("isolation = \"sandbox\" does not hold back {}: it {}", part.what, part.by))
            .collect();
        for program in &programs {
            let used = match program.name {
                "nats-server" => config.is_some_and(|config| config.bus.nats.is_none()),
                name => functions().any(|function| function.runtime_name() == name),
            };
            missing.extend(program.problem.clone().filter(|_| used));
        }
        let pins: BTreeSet<_> = functions().filter_map(|function| function.pin).collect();
        missing.extend(pins.into_iter().filter_map(|pin| interpreters.find(pin.kind, Some(pin))?.err()));
        Self { isolation, open_files: getrlimit(Resource::Nofile).maximum, programs, missing }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |what: &str, state: &str, by: &str| vec![what.to_owned(), state.to_owned(), by.to_owned()];
        let is = |there: bool, yes: &'static str, no: &'static str| if there { yes } else { no };
        let Enforcement { kernel, landlock_abi, seccomp, parts } = &self.isolation;
        let abi = landlock_abi.map_or("-".to_owned(), |abi| format!("ABI {abi}"));
        let mut rows = vec![
            row("kernel", "found", kernel),
            row("landlock", is(landlock_abi.is_some(), "found", "missing"), &abi),
            row("seccomp", is(*seccomp, "found", "missing"), ""),
        ];
        for part in parts {
            rows.push(row(part.what, is(part.enforced, "held back", "NOT held back"), &part.by));
        }
        rows.push(row("more data than its limit in one process", "held back", "rlimit"));
        rows.push(row(
            "more files of its own than its limit",
            "held back",
            "a look 4 times a second; a tmpfs in namespaces",
        ));
        rows.push(row(
            "filling the disk by what `folders` lets it write",
            "NOT held back",
            "docs/functions.md says what to do",
        ));
        let files = self.open_files.map_or("unlimited".to_owned(), |most| most.to_string());
        rows.push(row("open files", "found", &files));
        for program in &self.programs {
            let text = match (&program.path, &program.version, &program.problem) {
                (_, _, Some(problem)) => problem.clone(),
                (path, version, None) => {
                    let path = path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                    let compiles =
                        if program.keeps_compiled == Some(false) { "; each instance compiles its code" } else { "" };
                    format!("{} {path}{compiles}", version.as_deref().unwrap_or_default())
                }
            };
            rows.push(row(program.name, is(program.problem.is_none(), "found", "missing"), text.trim()));
        }
        rows
    }
}

fn interpreter(name: &'static str, found: Option<Result<Interpreter, String>>) -> Program {
    match found {
        Some(Ok(Interpreter { path, version, keeps_compiled, .. })) => {
            let (path, version, keeps_compiled) = (Some(path), Some(version), Some(keeps_compiled));
            Program { name, path, version, keeps_compiled, problem: None }
        }
        Some(Err(problem)) => Program { name, problem: Some(problem), ..Program::default() },
        None => Program { name, ..Program::default() },
    }
}

fn nats_server() -> Program {
    let name = "nats-server";
    let missing = |path, problem: String| Program { name, path, problem: Some(problem), ..Program::default() };
    let Some(path) = bus::nats::server::find() else {
        return missing(
            None,
            "no nats-server was found on PATH; install it, or set NATS_SERVER to its path".to_owned(),
        );
    };
    match Command::new(&path).arg("--version").output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            let version = said.split_whitespace().next_back().unwrap_or_default().trim_start_matches('v').to_owned();
            Program { name, path: Some(path), version: Some(version), ..Program::default() }
        }
        Ok(output) => missing(Some(path), format!("nats-server does not say its version: {}", output.status)),
        Err(error) => missing(Some(path.clone()), format!("{} does not start: {error}", path.display())),
    }
}
