//! Pipelines as a pure machine: which steps begin, and what follows when one is done. No clock, no log, no NATS.
//!
//! The form is that of Amazon States Language: states by name, each with what comes next. A step's place in a run is
//! its **path**: the state's name, and inside a parallel state `STATE/BRANCH/STATE`. A run keeps its machine, so a
//! reload never changes a run that has begun.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{name::Name, retry::RetryPolicy, target::Target};

/// A pipeline, or a branch of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub start: String,
    pub states: BTreeMap<String, State>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Deliver the input to a target; its output is the input of the next.
    Task {
        target: Target,
        /// Replaces the function's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<RetryPolicy>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// All branches get the input; the output is the list of their outputs, in their order.
    Parallel {
        branches: Vec<Machine>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
}

/// What parallel states still wait for: path of the state -> its branches' outputs so far.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Joins(BTreeMap<String, Vec<Option<Box<RawValue>>>>);

impl Joins {
    /// Whether no parallel state waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A step to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    pub path: String,
    pub target: Target,
    /// None: the event the run began with, as it came.
    pub input: Option<Bytes>,
}

/// What follows from a step that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    Begin(Vec<Begin>),
    /// Other branches are not done yet.
    Wait,
    /// The run is done, with this output.
    Finished(Bytes),
    /// The path is not one of this machine.
    Astray,
}

impl Machine {
    /// The steps a run begins with.
    pub fn begin(&self) -> Vec<Begin> {
        let mut begins = Vec::new();
        self.enter("", &self.start, None, &mut begins);
        begins
    }

    /// The task at a path.
    pub fn task<'a>(&'a self, path: &'a str) -> Option<&'a State> {
        let (machine, name) = self.at(path)?;
        machine.states.get(name)
    }

    /// Every target of every task.
    pub fn targets(&self) -> Vec<&Target> {
        let mut targets = Vec::new();
        for state in self.states.values() {
            match state {
                State::Task { target, .. } => targets.push(target),
                State::Parallel { branches, .. } => targets.extend(branches.iter().flat_map(Machine::targets)),
            }
        }
        targets
    }

    /// The functions that run if these steps end well: those of the steps themselves, then of those that follow, at most so
    /// many further. A branch that ends before the others waits for them.
    pub fn path(&self, steps: &[Begin], most: usize) -> Vec<Vec<Name>> {
        let functions = |begins: &[Begin]| begins.iter().filter_map(|step| step.target.name().cloned()).collect();
        let mut path = vec![functions(steps)];
        let mut last: Vec<Begin> = steps.to_vec();
        while path.len() <= most {
            let mut next: Vec<Begin> = Vec::new();
            for step in &last {
                for begin in self.after(&step.path) {
                    if !next.iter().any(|known| known.path == begin.path) {
                        next.push(begin);
                    }
                }
            }
            if next.is_empty() {
                break;
            }
            path.push(functions(&next));
            last = next;
        }
        path
    }

    /// The steps that begin when the one at `path` is done, and the branches beside it.
    fn after(&self, path: &str) -> Vec<Begin> {
        let Some((machine, name)) = self.at(path) else { return Vec::new() };
        let Some(State::Task { next, .. } | State::Parallel { next, .. }) = machine.states.get(name) else {
            return Vec::new();
        };
        let prefix = path.rsplit_once('/').map_or("", |(prefix, _)| prefix);
        match (next, prefix.rsplit_once('/')) {
            (Some(next), _) => {
                let mut begins = Vec::new();
                machine.enter(prefix, next, None, &mut begins);
                begins
            }
            (None, Some((parallel, _))) => self.after(parallel),
            (None, None) => Vec::new(),
        }
    }

    /// The step at `path` is done.
    pub fn done(&self, joins: &mut Joins, path: &str, output: Bytes) -> Next {
        let Some((machine, name)) = self.at(path) else { return Next::Astray };
        let state = machine.states.get(name);
        let Some(State::Task { next, .. } | State::Parallel { next, .. }) = state else { return Next::Astray };
        let prefix = path.rsplit_once('/').map_or("", |(prefix, _)| prefix);
        if let Some(next) = next {
            let mut begins = Vec::new();
            machine.enter(prefix, next, Some(&output), &mut begins);
            return Next::Begin(begins);
        }
        // The end of this machine: of the run, or of one branch.
        let Some((parallel, branch)) = prefix.rsplit_once('/') else { return Next::Finished(output) };
        match self.join(joins, parallel, branch, &output) {
            Some(joined) => self.done(joins, parallel, joined),
            None => Next::Wait,
        }
    }

    /// Notes a branch's output; the list of all of them when it was the last.
    fn join(&self, joins: &mut Joins, parallel: &str, branch: &str, output: &Bytes) -> Option<Bytes> {
        let Some(State::Parallel { branches, .. }) = self.task(parallel) else { return None };
        let outputs = joins.0.entry(parallel.to_owned()).or_default();
        outputs.resize_with(branches.len(), || None);
        *outputs.get_mut(branch.parse::<usize>().ok()?)? = Some(as_json(output));
        let done: Option<Vec<&RawValue>> = outputs.iter().map(Option::as_deref).collect();
        let joined = serde_json::to_vec(&done?).ok()?.into();
        joins.0.remove(parallel);
        Some(joined)
    }

    fn enter(&self, prefix: &str, name: &str, input: Option<&Bytes>, begins: &mut Vec<Begin>) {
        let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        match self.states.get(name) {
            Some(State::Task { target, .. }) => {
                begins.push(Begin { path, target: target.clone(), input: input.cloned() });
            }
            Some(State::Parallel { branches, .. }) => {
                for (index, branch) in branches.iter().enumerate() {
                    branch.enter(&format!("{path}/{index}"), &branch.start, input, begins);
                }
            }
            None => {}
        }
    }

    /// The machine a path ends in, and the state's name there.
    fn at<'a>(&'a self, path: &'a str) -> Option<(&'a Self, &'a str)> {
        let mut parts = path.split('/');
        let mut machine = self;
        let mut name = parts.next()?;
        while let Some(branch) = parts.next() {
            let State::Parallel { branches, .. } = machine.states.get(name)? else { return None };
            machine = branches.get(branch.parse::<usize>().ok()?)?;
            name = parts.next()?;
        }
        Some((machine, name))
    }
}

/// The steps on one line: `a -> (b | c -> d) -> e`.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = Some(&self.start);
        while let Some((at, state)) = name.and_then(|name| self.states.get_key_value(name)) {
            let next = match state {
                State::Task { target, next, .. } => {
                    write!(f, "{target}")?;
                    next
                }
                State::Parallel { branches, next } => {
                    f.write_str("(")?;
                    for (index, branch) in branches.iter().enumerate() {
                        let bar = if index == 0 { "" } else { " | " };
                        write!(f, "{bar}{branch}")?;
                    }
                    f.write_str(")")?;
                    next
                }
            };
            if next.is_some() {
                f.write_str(" -> ")?;
            }
            // a machine that was read from a config has no way back
            name = next.as_ref().filter(|next| *next != at);
        }
        Ok(())
    }
}

/// An output as a JSON value: itself when it is JSON, else as a string.
pub fn as_json(output: &[u8]) -> Box<RawValue> {
    if let Ok(value) = serde_json::from_slice::<Box<RawValue>>(output) {
        return value;
    }
    let text = String::from_utf8_lossy(output);
    serde_json::value::to_raw_value(&text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(target: &str, next: Option<&str>) -> State {
        State::Task { target: target.parse().unwrap(), retry: None, next: next.map(str::to_owned) }
    }

    fn machine(start: &str, states: &[(&str, State)]) -> Machine {
        let states = states.iter().map(|(name, state)| ((*name).to_owned(), state.clone())).collect();
        Machine { start: start.to_owned(), states }
    }

    /// a -> (b | c -> d) -> e
    fn diamond() -> Machine {
        let branches = vec![
            machine("b", &[("b", task("b", None))]),
            machine("c", &[("c", task("c", Some("d"))), ("d", task("d", None))]),
        ];
        let fork = State::Parallel { branches, next: Some("e".to_owned()) };
        machine("a", &[("a", task("a", Some("fork"))), ("fork", fork), ("e", task("e", None))])
    }

    fn paths(next: &Next) -> Vec<&str> {
        match next {
            Next::Begin(begins) => begins.iter().map(|b| b.path.as_str()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn steps_follow_each_other_and_each_gets_the_output_of_the_one_before() {
        let line = machine("a", &[("a", task("x", Some("b"))), ("b", task("y", None))]);
        let begins = line.begin();
        assert_eq!((begins[0].path.as_str(), &begins[0].input), ("a", &None));
        let Next::Begin(second) = line.done(&mut Joins::default(), "a", "1".into()) else { panic!("it ended") };
        assert_eq!((second[0].path.as_str(), second[0].input.as_deref()), ("b", Some(&b"1"[..])));
        assert_eq!(line.done(&mut Joins::default(), "b", "2".into()), Next::Finished("2".into()));
    }

    #[test]
    fn branches_run_side_by_side_and_are_joined_in_their_order() {
        let (machine, mut joins) = (diamond(), Joins::default());
        assert_eq!(paths(&machine.done(&mut joins, "a", "0".into())), ["fork/0/b", "fork/1/c"]);
        assert_eq!(paths(&machine.done(&mut joins, "fork/1/c", "1".into())), ["fork/1/d"]);
        assert_eq!(machine.done(&mut joins, "fork/1/d", "1.10".into()), Next::Wait);
        let joined = machine.done(&mut joins, "fork/0/b", "not json".into());
        let Next::Begin(last) = joined else { panic!("{joined:?}") };
        assert_eq!((last[0].path.as_str(), last[0].input.as_deref()), ("e", Some(&br#"["not json",1.10]"#[..])));
        assert_eq!(machine.done(&mut joins, "e", "9".into()), Next::Finished("9".into()));
    }

    #[test]
    fn what_will_run_is_known_as_far_as_the_path_is_straight() {
        let machine = diamond();
        let names = |path: Vec<Vec<Name>>| {
            path.iter().map(|at| at.iter().map(Name::as_str).collect::<Vec<_>>().join("|")).collect::<Vec<_>>()
        };
        assert_eq!(names(machine.path(&machine.begin(), 9)), ["a", "b|c", "e|d", "e"]);
        assert_eq!(names(machine.path(&machine.begin(), 1)), ["a", "b|c"]);
    }

    #[test]
    fn a_machine_is_told_on_one_line() {
        assert_eq!(diamond().to_string(), "a -> (b | c -> d) -> e");
    }

    #[test]
    fn joins_survive_being_written_down() {
        let (machine, mut joins) = (diamond(), Joins::default());
        machine.done(&mut joins, "fork/0/b", "{\"n\":1.10}".into());
        let mut read: Joins = serde_json::from_str(&serde_json::to_string(&joins).unwrap()).unwrap();
        let next = machine.done(&mut read, "fork/1/d", "2".into());
        let Next::Begin(last) = next else { panic!("{next:?}") };
        assert_eq!(last[0].input.as_deref(), Some(&br#"[{"n":1.10},2]"#[..]));
    }

    #[test]
    fn a_path_of_another_machine_leads_nowhere() {
        for path in ["", "x", "a/0/b", "fork/7/b", "fork/0/x", "fork/0"] {
            assert_eq!(diamond().done(&mut Joins::default(), path, "1".into()), Next::Astray, "{path}");
        }
    }
}
