//! What no section can see alone: names that are shared, targets, routes, and code on the disk.
//!
//! Names and targets are taken from the file and not from what was read of it, so that one wrong value in a function
//! does not make every trigger that names it wrong.

use std::path::{Path, PathBuf};

use bus::{
    Name, Target,
    config::{Problem, Problems, Span, closest},
    subject::Subjects,
};
use runtimes::config::{CodeError, FunctionConfig};
use toml::de::DeTable;
use triggers::config::{TriggerConfig, TriggerKind};

use super::{Config, place::Places, routes::check_routes};

pub(super) fn check(config: &Config, file: &DeTable<'_>, problems: &Problems) {
    let places = Places(file);
    check_pipelines(config, places, problems);
    check_names(places, problems);
    check_targets(places, problems);
    check_routes(config, places, problems);
    check_queues(config, places, problems);
    for (name, function) in &config.functions {
        check_folders(name.as_str(), function, &config.bus.data, places, problems);
    }
}

/// The code of each function is there.
pub(super) fn check_code(config: &Config, file: &DeTable<'_>, problems: &Problems) {
    for (name, function) in &config.functions {
        check_code_of(name.as_str(), function, Places(file), problems);
    }
}

/// Functions and pipelines share one namespace.
fn check_names(places: Places<'_>, problems: &Problems) {
    let functions = places.names(&["functions"]);
    for (name, span) in places.names(&["pipelines"]) {
        if functions.iter().any(|(function, _)| *function == name) {
            let problem = Problem::new(span, format!("`{name}` is a function and a pipeline"));
            problems.record(problem.label("taken").advice("a target names one of them: rename the function or this"));
        }
    }
}

/// Every function or pipeline that is named exists: in triggers, and in what follows from functions.
fn check_targets(places: Places<'_>, problems: &Problems) {
    let known: Vec<_> = ["functions", "pipelines"].iter().flat_map(|table| places.names(&[table])).collect();
    let known: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    let triggers = places.names(&["triggers"]).into_iter().map(|(name, _)| ["triggers", name, "to"]);
    let chains = places
        .names(&["functions"])
        .into_iter()
        .flat_map(|(name, _)| ["then", "on_success", "on_failure"].map(|key| ["functions", name, key]));
    for path in triggers.chain(chains) {
        for (target, span) in places.strings(&path) {
            check_target(target, span, &known, places, problems);
        }
    }
}

/// No function is let into the data folder.
fn check_folders(name: &str, function: &FunctionConfig, data: &Path, places: Places<'_>, problems: &Problems) {
    for (key, folders) in [("read", &function.folders.read), ("write", &function.folders.write)] {
        let written = places.strings(&["functions", name, "folders", key]);
        for (folder, (text, span)) in folders.iter().zip(written) {
            let folder: PathBuf = folder.components().collect();
            if folder.starts_with(data) || data.starts_with(&folder) {
                let problem = Problem::new(span, format!("`{text}` and the data folder of fnbus are in one another"));
                problems.record(problem.label("not for functions").advice("name the folders that the function needs"));
            }
        }
    }
}

/// No queue takes what is fnbus' own.
fn check_queues(config: &Config, places: Places<'_>, problems: &Problems) {
    let subjects = Subjects::new(config.bus.namespace.clone());
    for (name, trigger) in &config.triggers {
        let TriggerKind::Queue(queue) = &trigger.kind else { continue };
        if queue.batch.is_some() {
            check_batch(config, name, trigger, places, problems);
        }
        let Some(reason) = subjects.refusal(&queue.queue.subject) else { continue };
        let span = places.value(&["triggers", name.as_str(), "queue"]).unwrap_or(0..0);
        let problem = Problem::new(span, format!("`{}` cannot be read: {reason}", queue.queue));
        problems.record(problem.label("refused").advice("name a subject that others publish to"));
    }
}

/// Only functions take many messages at once.
fn check_batch(config: &Config, name: &Name, trigger: &TriggerConfig, places: Places<'_>, problems: &Problems) {
    let is_function = |target: &Target| target.name().is_some_and(|name| !config.pipelines.contains_key(name));
    let Some(other) = trigger.to.iter().find(|target| !is_function(target)) else { return };
    let span = places.key(&["triggers", name.as_str(), "batch"]).unwrap_or(0..0);
    let problem =
        Problem::new(span, format!("`batch` is for functions, and `{other}` is none")).label("not for all targets");
    problems.record(problem.advice("take `batch` out, or make a trigger of its own for that target"));
}

fn check_target(target: &str, span: Span, known: &[&str], places: Places<'_>, problems: &Problems) {
    let Ok(target) = target.parse::<Target>() else { return };
    let Some(name) = target.name() else { return };
    if known.contains(&name.as_str()) {
        if target.version().is_some() && places.key(&["pipelines", name.as_str()]).is_some() {
            let problem = Problem::new(span, format!("`{name}` is a pipeline, and only functions have versions"));
            problems.record(problem.label("no version").advice(format!("write `{name}`")));
        }
        return;
    }
    let problem = Problem::new(span, format!("there is no function `{name}`")).label("unknown target");
    problems.record(match closest(name.as_str(), known.iter().copied()) {
        Some(meant) => problem.advice(format!("did you mean `{meant}`?")),
        None if known.is_empty() => problem.advice(format!("add [functions.{name}]")),
        None => problem.advice(format!("add [functions.{name}], or name one of {}", known.join(", "))),
    });
}

/// Every step exists, and no pipeline comes back to itself: it would never end.
fn check_pipelines(config: &Config, places: Places<'_>, problems: &Problems) {
    let known: Vec<_> = ["functions", "pipelines"].iter().flat_map(|table| places.names(&[table])).collect();
    let known: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    for (name, pipeline) in &config.pipelines {
        let at = places.value(&["pipelines", name.as_str(), "steps"]).unwrap_or(0..0);
        for target in pipeline.machine.targets() {
            check_target(&target.to_string(), at.clone(), &known, places, problems);
        }
        if calls(config, name, name, &mut Vec::new()) {
            let problem = Problem::new(at, format!("the pipeline `{name}` calls itself and would never end"));
            problems.record(problem.label("a circle").advice("take the step out that leads back to it"));
        }
    }
}

/// Whether a run of `from` comes to `wanted` again.
fn calls<'a>(config: &'a Config, from: &Name, wanted: &Name, seen: &mut Vec<&'a Name>) -> bool {
    let Some(pipeline) = config.pipelines.get(from) else { return false };
    pipeline.machine.targets().into_iter().filter_map(Target::name).any(|step| {
        if step == wanted {
            return true;
        }
        if seen.contains(&step) {
            return false;
        }
        seen.push(step);
        calls(config, step, wanted, seen)
    })
}

/// The folder and the handler's file exist.
fn check_code_of(name: &str, function: &FunctionConfig, places: Places<'_>, problems: &Problems) {
    let Err(error) = function.check_code() else { return };
    let is_zip = function.code.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    let what = if is_zip { "zip file" } else { "folder" };
    let (key, advice) = match &error {
        CodeError::NoHandler { .. } => ("handler", format!("add the file, or set `handler` in [functions.{name}]")),
        CodeError::NotOnPath { program } => {
            ("handler", format!("install `{program}`, put it into the folder, or correct `handler`"))
        }
        CodeError::NotExecutable { file } if file.is_relative() => {
            ("handler", format!("run: chmod +x {}, and make the zip file anew", file.display()))
        }
        CodeError::NotExecutable { file } => ("handler", format!("run: chmod +x {}", file.display())),
        CodeError::NoFolder { .. } => ("code", format!("make the {what}, or set `code` in [functions.{name}]")),
        CodeError::Archive { .. } => ("code", "mend it, or name the folder with the code".to_owned()),
        _ => ("code", "name the folder that the file is in, or a zip file".to_owned()),
    };
    let function = places.key(&["functions", name]).unwrap_or(0..0);
    let span = places.value(&["functions", name, key]).unwrap_or(function);
    let code = places.strings(&["functions", name, "code"]).first().map_or(name, |(code, _)| *code).to_owned();
    let message = match &error {
        CodeError::NoFolder { .. } => format!("the {what} `{code}` with the code of `{name}` does not exist"),
        CodeError::NotAFolder { .. } => format!("`{code}`, the code of `{name}`, is not a folder"),
        CodeError::Archive { reason } => format!("`{code}`, the code of `{name}`, cannot be unpacked: {reason}"),
        CodeError::NotOnPath { program } => {
            format!("the program of `{name}` is missing: there is no `{program}` in `{code}` and none on PATH")
        }
        CodeError::NoHandler { tried } => {
            format!("the handler of `{name}` is missing: there is no {} in `{code}`", tried.join(" or "))
        }
        CodeError::NotExecutable { .. } => format!("the handler of `{name}` is not executable"),
        other => format!("`{name}`: {other}"),
    };
    let label = match &error {
        CodeError::NotExecutable { .. } => "cannot be run",
        CodeError::Archive { .. } => "cannot be unpacked",
        _ => "not found",
    };
    problems.record(Problem::new(span, message).label(label).advice(advice));
}
