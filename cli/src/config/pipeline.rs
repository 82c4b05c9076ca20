//! `[pipelines.NAME]`: steps, and the machine they compile to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use bus::{
    Target,
    config::{Field, Key, Reader, Section, Shape, Value, Wrong},
    pipeline::{Machine, State},
    retry::RetryPolicy,
};

/// `[pipelines.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipelineConfig {
    pub(crate) machine: Machine,
}

static SECTION: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "Steps over functions and other targets, each getting the output of the one before.",
    keys: vec![
        Key::new(
            "steps",
            Shape::List,
            "The steps in order: a target, `{ run = TARGET, retry = {…} }`, or `{ parallel = [BRANCH, …] }`, a branch \
             being a step or a list of steps.",
        )
        .required(),
    ],
    later: &["definition"],
});

/// A step that is written as a table.
static STEP: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "A step.",
    keys: vec![
        Key::new("run", Shape::Text("a target"), "What the step delivers its input to."),
        Key::new("retry", Shape::Table(RetryPolicy::section()), "Replaces the function's own."),
        Key::new("parallel", Shape::List, "Branches that all get the input; the output is the list of theirs."),
    ],
    later: &["choice", "map", "wait", "catch"],
});

static STEP_SHAPE: LazyLock<Shape> =
    LazyLock::new(|| Shape::Either(vec![Shape::Text("a target"), Shape::Table(&STEP)]));

impl PipelineConfig {
    pub(crate) fn section() -> &'static Section {
        &SECTION
    }

    pub(crate) fn read(reader: Reader<'_>) -> Option<Self> {
        let machine = reader.require_field("steps").and_then(|field| read_steps(&field));
        reader.finish();
        Some(Self { machine: machine? })
    }
}

/// A list of steps as a machine of its own.
fn read_steps(list: &Field<'_>) -> Option<Machine> {
    let steps = list.elements(&STEP_SHAPE)?;
    if steps.is_empty() {
        list.wrong(&Wrong::of_key("must not be empty").advice("name at least one step").label("empty list"));
        return None;
    }
    // Every step is read, so that all that is wrong is said.
    let states: Vec<Option<State>> = steps.iter().map(read_step).collect();
    let states = states.into_iter().collect::<Option<Vec<_>>>()?;
    Some(chain(states))
}

fn read_step(step: &Field<'_>) -> Option<State> {
    if !step.value().is_table() {
        return Some(State::Task { target: step.read()?, retry: None, next: None });
    }
    let reader = step.reader()?;
    let policy = RetryPolicy::read(reader.table("retry"), &RetryPolicy::default());
    let retry = reader.has("retry").then_some(policy);
    let state = match (reader.field("run"), reader.field("parallel")) {
        (Some(run), None) => run.read().map(|target: Target| State::Task { target, retry, next: None }),
        (None, Some(parallel)) => read_branches(&parallel).map(|branches| State::Parallel { branches, next: None }),
        _ => {
            let wrong = Wrong::sentence("a step is either `run` or `parallel`").label("which of them?");
            step.wrong(&wrong.advice("write \"TARGET\", { run = \"TARGET\" } or { parallel = [\"A\", \"B\"] }"));
            None
        }
    };
    reader.finish();
    state
}

fn read_branches(parallel: &Field<'_>) -> Option<Vec<Machine>> {
    let branches = parallel.elements(&STEP_SHAPE)?;
    if branches.is_empty() {
        parallel.wrong(&Wrong::of_key("must not be empty").advice("name at least one branch").label("empty list"));
        return None;
    }
    let read = |branch: &Field<'_>| match branch.value() {
        Value::Array(_) => read_steps(branch),
        _ => read_step(branch).map(|state| chain(vec![state])),
    };
    let branches: Vec<Option<Machine>> = branches.iter().map(read).collect();
    branches.into_iter().collect()
}

/// States one after the other, each under a name of its own.
fn chain(states: Vec<State>) -> Machine {
    let mut taken = BTreeSet::new();
    let names: Vec<String> = states.iter().map(|state| name(state, &mut taken)).collect();
    let nexts = names.iter().skip(1).cloned().map(Some).chain([None]);
    let states = names.iter().cloned().zip(states).zip(nexts).map(|((name, mut state), following)| {
        match &mut state {
            State::Task { next, .. } | State::Parallel { next, .. } => *next = following,
        }
        (name, state)
    });
    let states: BTreeMap<String, State> = states.collect();
    Machine { start: names.into_iter().next().unwrap_or_default(), states }
}

/// A function's name, or what kind of step it is; numbered when it stands there before.
fn name(state: &State, taken: &mut BTreeSet<String>) -> String {
    let plain = match state {
        State::Task { target: Target::Named(name) | Target::Version(name, _), .. } => name.as_str(),
        State::Task { target: Target::Event(_), .. } => "event",
        State::Task { target: Target::Nats(_), .. } => "nats",
        State::Task { target: Target::Web(_), .. } => "https",
        State::Task { target: Target::File(_), .. } => "file",
        State::Parallel { .. } => "parallel",
    };
    let numbered = (2..).map(|n| format!("{plain}-{n}"));
    let name = std::iter::once(plain.to_owned()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(name.clone());
    name
}
