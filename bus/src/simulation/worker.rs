//! Workers as the node meets them: most run what they get and say how it ended, some are slow, silent, gone, late, or
//! say it twice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use fastrand::Rng;

use super::broker::{Broker, Handed};
use crate::{
    Outcome, RowId, Target, ambient,
    log::{backlog::Due, delivery::Ended},
    nats::stream::PROGRESS,
    outcome::{Ending, Start, Times},
    owner::{Claim, Owner},
    window::Begin,
};

/// What was really run.
pub(super) type Executions = Arc<Mutex<BTreeMap<RowId, Execution>>>;

/// One execution, as its worker saw it.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) began: DateTime<Utc>,
    /// What it gave, which nobody else gives.
    pub(super) output: String,
    pub(super) ending: Option<Ending>,
    /// What the owner answered, each time it was told.
    pub(super) answers: Vec<Ended>,
}

/// How a worker goes about a message.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "any of them goes with any other")]
pub(super) struct Manner {
    /// Between getting the message and asking to begin.
    pub(super) waits: Duration,
    pub(super) runs: Duration,
    pub(super) ending: Ending,
    /// Says that it still runs.
    pub(super) renews: bool,
    /// Never says how it ended.
    pub(super) vanishes: bool,
    /// Says it twice, as when the answer was lost.
    pub(super) repeats: bool,
    /// The acknowledgement is lost.
    pub(super) forgets: bool,
}

impl Manner {
    pub(super) fn of(chance: &mut Rng, healthy: bool) -> Self {
        let mut odd = |one_in: u8| !healthy && chance.u8(..one_in) == 0;
        let (vanishes, repeats, forgets, renews) = (odd(12), odd(8), odd(8), !odd(6));
        let (late, slow) = (odd(10), odd(6));
        let ending = match chance.u8(..14) {
            0..=8 => Ending::Ok,
            9 | 10 => Ending::Error,
            11 => Ending::Timeout,
            12 => Ending::Crash,
            _ => Ending::Oom,
        };
        Self {
            waits: if late { Duration::from_secs(chance.u64(1..60)) } else { Duration::ZERO },
            runs: if slow { Duration::from_secs(chance.u64(1..60)) } else { Duration::ZERO },
            ending,
            renews,
            vanishes,
            repeats,
            forgets,
        }
    }
}

/// Runs a message.
pub(super) async fn work(owner: Owner, broker: Broker, executions: Executions, handed: Handed, manner: Manner) {
    let Handed { sequence, claim } = handed;
    held(manner.waits, manner.renews, || broker.progress(sequence)).await;
    let stopped = owner.catalog().holds_back(&claim.target).is_some();
    if stopped {
        if owner.give_back(&claim).await.is_ok() {
            broker.ack(sequence);
        }
        return;
    }
    let Ok(answers) = owner.begin(std::slice::from_ref(&claim)).await else { return };
    let Some(Begin::Run { attempt, .. }) = answers.first() else {
        broker.ack(sequence);
        return;
    };
    let output = format!("\"{attempt}\"");
    let began = ambient::now();
    let execution = Execution { began, output: output.clone(), ending: None, answers: Vec::new() };
    let ran_before = executions.lock().unwrap().insert(*attempt, execution);
    assert!(ran_before.is_none(), "attempt {attempt} was begun twice");
    held(manner.runs, manner.renews, || {
        owner.renew(&claim.target, *attempt);
        broker.progress(sequence);
    })
    .await;
    if manner.vanishes {
        return;
    }
    for _ in 0..=u8::from(manner.repeats) {
        if let Some(execution) = executions.lock().unwrap().get_mut(attempt) {
            execution.ending = Some(manner.ending);
        }
        let outcome = outcome(manner.ending, output.clone(), began);
        let Ok(ended) = owner.end(&claim.target, *attempt, outcome).await else { return };
        if let Some(execution) = executions.lock().unwrap().get_mut(attempt) {
            execution.answers.push(ended);
        }
    }
    if !manner.forgets {
        broker.ack(sequence);
    }
}

/// Executes what goes to no function.
pub(super) async fn send(owner: Owner, target: Target, due: Due, fails: bool) {
    let claim = Claim { target: target.clone(), delivery: due.id, publication: due.publication };
    let begun = owner.begin(std::slice::from_ref(&claim)).await;
    let Ok([Begin::Run { attempt, .. }]) = begun.as_deref() else { return };
    let ending = if fails { Ending::Error } else { Ending::Ok };
    let _ = owner.end(&target, *attempt, outcome(ending, "null".to_owned(), ambient::now())).await;
}

/// Lets time pass, and says now and then that it is still held.
async fn held(time: Duration, renews: bool, still: impl Fn()) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(PROGRESS);
        ambient::sleep(step).await;
        left -= step;
        if renews {
            still();
        }
    }
}

fn outcome(ending: Ending, output: String, started: DateTime<Utc>) -> Outcome {
    if ending != Ending::Ok {
        return Outcome { output: output.into(), started, ..Outcome::failure(ending, "Oops", "it failed") };
    }
    Outcome {
        ending,
        output: output.into(),
        fault: None,
        log: String::new(),
        request_id: None,
        version: "v".into(),
        start: Start::Warm,
        started,
        times: Times::default(),
        shared: false,
    }
}
