//! Workers as the node meets them: most run what they get and say how it ended, some are slow, silent, gone, late, or
//! say it twice.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::{DateTime, Utc};
use fastrand::Rng;
use futures_util::future::join_all;

use super::broker::{Broker, Handed};
use crate::{
    Outcome, RowId, Target, ambient, batch,
    log::{backlog::Due, delivery::Ended},
    nats::stream::PROGRESS,
    outcome::{Ending, Start, Times},
    owner::{Claim, Owner},
    window::Begin,
};

/// Before what the log did not take is reported again.
const AGAIN: Duration = Duration::from_millis(500);

/// What was really run.
pub(super) type Executions = Arc<Mutex<BTreeMap<RowId, Execution>>>;

/// One execution, as its worker saw it.
#[derive(Debug)]
pub(super) struct Execution {
    pub(super) began: DateTime<Utc>,
    /// What its worker reported; none: nothing.
    pub(super) outcome: Option<Outcome>,
    /// What the owner answered, each time it was told.
    pub(super) answers: Vec<Ended>,
}

impl Execution {
    fn new(began: DateTime<Utc>) -> Self {
        Self { began, outcome: None, answers: Vec::new() }
    }
}

/// How a worker goes about a message.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "any of them goes with any other")]
pub(super) struct Manner {
    /// Between getting the message and asking to begin.
    pub(super) waits: Duration,
    pub(super) runs: Duration,
    pub(super) ending: Ending,
    /// Which messages of a batch it says have failed, a bit for each, and whether they would fail again.
    pub(super) fails: u8,
    pub(super) rejects: bool,
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
            fails: chance.u8(..) & chance.u8(..),
            rejects: chance.u8(..8) == 0,
            renews,
            vanishes,
            repeats,
            forgets,
        }
    }
}

/// Runs a message, or the messages of a batch.
pub(super) async fn work(
    owner: Owner,
    broker: Broker,
    executions: Executions,
    handed: Vec<Handed>,
    batched: bool,
    manner: Manner,
) {
    held(manner.waits, manner.renews, || handed.iter().for_each(|handed| broker.progress(handed.sequence))).await;
    let claims: Vec<Claim> = handed.iter().map(|handed| handed.claim.clone()).collect();
    if claims.iter().any(|claim| owner.catalog().holds_back(&claim.target).is_some()) {
        for handed in handed {
            if owner.give_back(&handed.claim).await.is_ok() {
                broker.ack(handed.sequence);
            }
        }
        return;
    }
    let Ok(answers) = owner.begin(&claims).await else { return };
    let (mut begun, began) = (Vec::new(), ambient::now());
    for (handed, answer) in handed.into_iter().zip(answers) {
        if let Begin::Run { attempt, .. } = answer {
            let ran_before = executions.lock().unwrap().insert(attempt, Execution::new(began));
            assert!(ran_before.is_none(), "attempt {attempt} was begun twice");
            begun.push((handed, attempt));
        } else {
            broker.ack(handed.sequence);
        }
    }
    held(manner.runs, manner.renews, || {
        for (handed, attempt) in &begun {
            owner.renew(&handed.claim.target, *attempt);
            broker.progress(handed.sequence);
        }
    })
    .await;
    if manner.vanishes {
        return;
    }
    let outcomes = outcomes(&begun, batched, manner, began);
    let ends = begun.into_iter().zip(outcomes).map(async |((handed, attempt), outcome)| {
        let target = &handed.claim.target;
        executions.lock().unwrap().entry(attempt).and_modify(|execution| execution.outcome = Some(outcome.clone()));
        for _ in 0..=u8::from(manner.repeats) {
            let Some(ended) = end(&owner, target, attempt, &outcome).await else { return };
            executions.lock().unwrap().entry(attempt).and_modify(|execution| execution.answers.push(ended));
        }
        if !manner.forgets {
            broker.ack(handed.sequence);
        }
    });
    join_all(ends).await;
}

/// What each of them gave, in one invocation: the first that went well what nobody else gives.
fn outcomes(begun: &[(Handed, RowId)], batched: bool, manner: Manner, began: DateTime<Utc>) -> Vec<Outcome> {
    let ids: Vec<&str> = begun.iter().map(|(handed, _)| handed.event.as_str()).collect();
    let Some((_, first)) = begun.first() else { return Vec::new() };
    if !batched {
        return vec![outcome(manner.ending, format!("\"{first}\""), began)];
    }
    let failed = ids.iter().enumerate().filter(|(nth, _)| manner.fails >> nth & 1 == 1);
    let failed: Vec<_> =
        failed.map(|(_, id)| serde_json::json!({ "itemIdentifier": id, "retry": !manner.rejects })).collect();
    let answer = serde_json::json!({ "by": first.to_string(), "batchItemFailures": failed });
    batch::split(outcome(manner.ending, answer.to_string(), began), &ids)
}

/// Reports an outcome until the owner has it; none: the log is not written any more.
async fn end(owner: &Owner, target: &Target, attempt: RowId, outcome: &Outcome) -> Option<Ended> {
    loop {
        match owner.end(target, attempt, outcome.clone()).await {
            Ok(ended) => return Some(ended),
            Err(error) if error.is_final() => return None,
            Err(_) => ambient::sleep(AGAIN).await,
        }
    }
}

/// Executes what goes to no function.
pub(super) async fn send(owner: Owner, target: Target, due: Due, fails: bool) {
    let claim = Claim { target: target.clone(), delivery: due.id, publication: due.publication };
    let attempt = loop {
        match owner.begin(std::slice::from_ref(&claim)).await.as_deref() {
            Ok([Begin::Run { attempt, .. }]) => break *attempt,
            Ok(_) => return,
            Err(error) if error.is_final() => return,
            Err(_) => ambient::sleep(AGAIN).await,
        }
    };
    let ending = if fails { Ending::Error } else { Ending::Ok };
    end(&owner, &target, attempt, &outcome(ending, "null".to_owned(), ambient::now())).await;
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
