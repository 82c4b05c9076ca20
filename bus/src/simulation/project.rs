//! A small project, as the seed makes it: functions that chain, a pipeline, triggers with and without an order, a rule.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fastrand::Rng;

use crate::{
    Name, Target,
    batch::Batching,
    catalog::{Binding, Catalog, Chain, Function, Rule},
    order::{OnDead, Order},
    payload::Format,
    pipeline::{Machine, State},
    retry::RetryPolicy,
};

/// The functions of every project; what follows from one goes to those after it, so that every chain ends.
pub(super) const FUNCTIONS: [&str; 4] = ["first", "second", "third", "last"];
pub(super) const PIPELINE: &str = "line";
/// The triggers events come by.
pub(super) const TRIGGERS: [&str; 2] = ["orders", "notes"];
/// The type that a rule waits for, and `event:` targets give.
const MADE: &str = "made";

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// The config.
pub(super) fn catalog(chance: &mut Rng) -> Catalog {
    let functions = (0..FUNCTIONS.len()).map(|at| (name(FUNCTIONS[at]), function(at, chance)));
    Catalog {
        functions: functions.collect(),
        pipelines: [(name(PIPELINE), Arc::new(pipeline(chance)))].into(),
        triggers: TRIGGERS.iter().map(|trigger| (name(trigger), binding(chance))).collect(),
        rules: vec![Rule {
            trigger: name("rule"),
            attributes: BTreeMap::from([("type".to_owned(), vec![MADE.to_owned()])]),
            binding: Binding { to: targets(&["last"]), ..binding(chance) },
        }],
    }
}

fn function(at: usize, chance: &mut Rng) -> Function {
    let wait = Duration::from_secs(chance.u64(1..4));
    let retry = RetryPolicy {
        attempts: chance.u32(1..4),
        wait,
        max_wait: wait * 2,
        max_age: if chance.u8(0..6) == 0 { Duration::from_secs(30) } else { Duration::from_hours(6) },
    };
    let mut later = |one_in: u8| -> Vec<Target> {
        let rest = &FUNCTIONS[at + 1..];
        if rest.is_empty() || chance.u8(0..one_in) > 0 {
            return Vec::new();
        }
        let event = format!("event:{MADE}");
        let to = if chance.u8(0..4) == 0 { event.as_str() } else { rest[chance.usize(..rest.len())] };
        vec![to.parse().unwrap()]
    };
    let (then, on_success, on_failure) = (later(2), later(4), later(3));
    let chain = Chain { then, each: false, on_success, on_failure };
    Function { class: "python", retry, timeout: Duration::from_secs(30), concurrency: chance.u32(1..3), chain }
}

fn binding(chance: &mut Rng) -> Binding {
    let to = match chance.u8(0..5) {
        0 => targets(&["first"]),
        1 => targets(&["second"]),
        2 => targets(&["first", "third"]),
        3 => targets(&[PIPELINE]),
        _ => targets(&[PIPELINE, "first"]),
    };
    let on_dead = if chance.bool() { OnDead::Park } else { OnDead::Block };
    let order_by = chance.bool().then(|| Order { key: "data.key".parse().unwrap(), on_dead });
    let batch = (chance.u8(0..3) == 0).then(|| Batching { size: chance.u32(1..4), window: Duration::ZERO });
    Binding { to, format: Format::Body, order_by, batch }
}

fn targets(names: &[&str]) -> Arc<[Target]> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// second -> (third | last -> third) -> last, or a part of it.
fn pipeline(chance: &mut Rng) -> Machine {
    let retry = chance.bool().then_some(RetryPolicy { attempts: 2, ..RetryPolicy::default() });
    let task = |target: &str, next: Option<&str>| State::Task {
        target: target.parse().unwrap(),
        retry,
        next: next.map(str::to_owned),
    };
    let machine = |start: &str, states: Vec<(&str, State)>| Machine {
        start: start.to_owned(),
        states: states.into_iter().map(|(name, state)| (name.to_owned(), state)).collect(),
    };
    let branches = vec![
        machine("b", vec![("b", task("third", None))]),
        machine("c", vec![("c", task("last", Some("d"))), ("d", task("third", None))]),
    ];
    let ends = chance.bool();
    let fork = State::Parallel { branches, next: (!ends).then(|| "e".to_owned()) };
    match chance.u8(0..3) {
        0 => machine("a", vec![("a", task("second", Some("e"))), ("e", task("last", None))]),
        1 => machine("fork", vec![("fork", fork), ("e", task("last", None))]),
        _ => machine("a", vec![("a", task("second", Some("fork"))), ("fork", fork), ("e", task("last", None))]),
    }
}

/// The same project as an edit leaves it for a while: something is stopped, or fails sooner.
pub(super) fn edited(catalog: &Catalog, chance: &mut Rng) -> Catalog {
    let mut edited = catalog.clone();
    let function = name(FUNCTIONS[chance.usize(..FUNCTIONS.len())]);
    if let Some(function) = edited.functions.get_mut(&function) {
        match chance.u8(0..3) {
            0 => function.concurrency = 0,
            1 => function.concurrency = 3,
            _ => function.retry.attempts = 1,
        }
    }
    edited
}
