//! What must hold when everything has ended, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, Row};

use super::{project::PIPELINE, worker::Execution};
use crate::{
    Event, EventId, RowId, Target,
    catalog::Catalog,
    chain,
    id::Born,
    log::{
        Status,
        attempt::delivery_of,
        delivery::Ended,
        event::{self, COLUMNS},
    },
    outcome::Ending,
    pipeline::{Machine, State, as_json},
    sink::{AcceptError, Accepted},
};

/// What senders know.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) submitted: Vec<Submitted>,
}

/// An event that was sent, and what its sender was told; none: he never heard.
pub(super) struct Submitted {
    pub(super) event: Event,
    pub(super) answer: Option<Result<Accepted, AcceptError>>,
}

/// What is remembered between one look and the next.
#[derive(Default)]
pub(super) struct Check {
    /// Deliveries that ended.
    ended: BTreeMap<i64, (Status, i64, u32, Option<String>)>,
    /// The config was another one for a while.
    pub(super) edited: bool,
}

struct Delivery {
    id: RowId,
    event: i64,
    target: Target,
    generation: u32,
    status: Status,
    reason: Option<String>,
    attempts: u32,
    ended: i64,
    key: Option<String>,
    run: Option<i64>,
    step: Option<String>,
    hold: bool,
}

struct Attempt {
    id: RowId,
    ended: i64,
    outcome: String,
    output: Vec<u8>,
}

type Executed = BTreeMap<RowId, Execution>;

/// Everything the log says, read once.
struct Said<'a> {
    catalog: &'a Catalog,
    events: BTreeMap<i64, Event>,
    deliveries: Vec<Delivery>,
    /// By the delivery's row.
    attempts: BTreeMap<i64, Vec<Attempt>>,
    /// Row, delivery, status.
    runs: Vec<(i64, i64, Status)>,
}

macro_rules! holds {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}

fn all<T>(connection: &Connection, sql: &str, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let mut statement = connection.prepare_cached(sql).unwrap();
    statement.query_map([], |row| read(row)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

impl Check {
    /// Deliveries and runs that have not ended.
    pub(super) fn unended(connection: &Connection) -> Vec<(String, i64, Status)> {
        let sql = "SELECT 'delivery', seq, status FROM delivery WHERE status < 10 \
                   UNION ALL SELECT 'run', seq, status FROM run WHERE status < 10";
        all(connection, sql, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
    }

    /// What has ended never changes again.
    pub(super) fn ended_stay(&mut self, connection: &Connection) {
        let sql = "SELECT seq, status, ended, attempts, reason FROM delivery WHERE status >= 10";
        let ended = all(connection, sql, |row| {
            Ok((row.get::<_, i64>(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        });
        let ended: BTreeMap<_, _> = ended.into_iter().collect();
        for (row, before) in &self.ended {
            assert_eq!(ended.get(row), Some(before), "delivery {row} had ended and changed");
        }
        self.ended = ended;
    }

    pub(super) fn all(
        &self,
        connection: &Connection,
        catalog: &Catalog,
        journal: &Journal,
        executed: &Executed,
    ) -> Result<(), String> {
        let said = Said::read(connection, catalog);
        said.accepted(journal)?;
        said.attempts_are_counted(executed)?;
        said.retries_are_due(executed, self.edited)?;
        said.keys_keep_their_order(executed)?;
        said.what_follows_is_there_once()?;
        said.runs_are_whole()
    }
}

impl<'a> Said<'a> {
    fn read(connection: &Connection, catalog: &'a Catalog) -> Self {
        let sql = format!("SELECT {COLUMNS} FROM event e ORDER BY e.seq");
        let events = all(connection, &sql, |row| Ok((row.get(0)?, event::read(row, 0)?.event))).into_iter().collect();
        let sql = "SELECT d.seq, d.born, d.event, d.target, d.generation, d.status, d.reason, d.attempts, d.ended, \
                   d.key, d.run, d.step, coalesce(r.hold, 0) FROM delivery d LEFT JOIN replay r ON r.seq = d.replay \
                   ORDER BY d.seq";
        let deliveries = all(connection, sql, |row| {
            Ok(Delivery {
                id: RowId::new(Born(row.get(1)?), row.get(0)?),
                event: row.get(2)?,
                target: row.get::<_, String>(3)?.parse().unwrap(),
                generation: row.get(4)?,
                status: row.get(5)?,
                reason: row.get(6)?,
                attempts: row.get(7)?,
                ended: row.get(8)?,
                key: row.get(9)?,
                run: row.get(10)?,
                step: row.get(11)?,
                hold: row.get(12)?,
            })
        });
        let sql = "SELECT id, born, coalesce(ended, 0), coalesce(outcome, 'open'), coalesce(output, x'') FROM attempt \
                   ORDER BY id";
        let mut attempts: BTreeMap<i64, Vec<Attempt>> = BTreeMap::new();
        for attempt in all(connection, sql, |row| {
            let id = RowId::new(Born(row.get(1)?), row.get(0)?);
            Ok(Attempt { id, ended: row.get(2)?, outcome: row.get(3)?, output: row.get(4)? })
        }) {
            attempts.entry(delivery_of(attempt.id.row()).0).or_default().push(attempt);
        }
        let runs = all(connection, "SELECT seq, delivery, status FROM run ORDER BY seq", |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        });
        Self { catalog, events, deliveries, attempts, runs }
    }

    fn attempts(&self, delivery: &Delivery) -> &[Attempt] {
        self.attempts.get(&delivery.id.row()).map_or(&[], Vec::as_slice)
    }

    fn is_pipeline(delivery: &Delivery) -> bool {
        delivery.target.name().is_some_and(|name| name.as_str() == PIPELINE)
    }

    /// What was accepted is there once, to the letter, with what it is to be delivered to; the same id never meant
    /// two bodies.
    fn accepted(&self, journal: &Journal) -> Result<(), String> {
        let mut new: BTreeMap<&EventId, usize> = BTreeMap::new();
        for Submitted { event, answer } in &journal.submitted {
            let found: Vec<(&i64, &Event)> = self.events.iter().filter(|(_, e)| e.id == event.id).collect();
            holds!(found.len() <= 1, "{} is there {} times", event.id, found.len());
            let same = found.first().is_some_and(|(_, found)| *found == event);
            match answer {
                Some(Ok(accepted)) => {
                    holds!(same, "{} was accepted and is not there as it was", event.id);
                    *new.entry(&event.id).or_default() += usize::from(!accepted.duplicate);
                }
                Some(Err(AcceptError::Conflict { .. })) => {
                    holds!(found.len() == 1 && !same, "{} was called a conflict and is none", event.id);
                }
                Some(Err(error)) => return Err(format!("{} was not accepted: {error}", event.id)),
                None => {}
            }
        }
        for (id, times) in new {
            holds!(times <= 1, "{id} was new {times} times");
        }
        for (row, event) in &self.events {
            if event.hop == 0 {
                let sent = journal.submitted.iter().any(|submitted| submitted.event == *event);
                holds!(sent, "{} was never sent", event.id);
                self.goes_to(*row, event, Vec::new())?;
            }
        }
        Ok(())
    }

    /// An event has the deliveries that its trigger, the rules and `to` ask for, once each.
    fn goes_to(&self, row: i64, event: &Event, mut to: Vec<Target>) -> Result<(), String> {
        to.extend(self.catalog.matches(event).into_iter().map(|matched| matched.target));
        to.sort();
        let first = self.deliveries.iter().filter(|d| d.event == row && d.generation == 0 && d.run.is_none());
        let mut found: Vec<Target> = first.map(|delivery| delivery.target.clone()).collect();
        found.sort();
        holds!(found == to, "{} goes to {found:?}, not to {to:?}", event.id);
        Ok(())
    }

    /// Every attempt that was recorded was made, and ended as its worker said; none is missing or counted twice.
    fn attempts_are_counted(&self, executed: &Executed) -> Result<(), String> {
        for delivery in &self.deliveries {
            let (row, attempts) = (delivery.id.row(), self.attempts(delivery));
            let numbers: Vec<u32> = attempts.iter().map(|attempt| delivery_of(attempt.id.row()).1).collect();
            let expected: Vec<u32> = (1..=delivery.attempts).collect();
            holds!(numbers == expected, "delivery {row} has attempts {numbers:?} of {}", delivery.attempts);
            let ok = attempts.iter().filter(|attempt| attempt.outcome == "ok").count();
            let done = delivery.status == Status::Done;
            holds!(
                ok == usize::from(done),
                "delivery {row} is {:?} with {ok} attempts that went well",
                delivery.status
            );
            holds!(
                !done || attempts.last().is_some_and(|last| last.outcome == "ok"),
                "{row} went on after it was done"
            );
            holds!(
                done == delivery.reason.is_none(),
                "delivery {row} is {:?} because {:?}",
                delivery.status,
                delivery.reason
            );
            for attempt in attempts {
                holds!(attempt.outcome != "open", "attempt {} of {row} is still open", attempt.id);
            }
            let by_worker = matches!(delivery.target, Target::Named(_)) && !Self::is_pipeline(delivery);
            for attempt in attempts.iter().filter(|attempt| by_worker && attempt.outcome != "lost") {
                let made = executed.get(&attempt.id);
                let same = made.is_some_and(|made| {
                    made.output.as_bytes() == attempt.output
                        && made.ending.is_some_and(|ending| ending.as_str() == attempt.outcome)
                });
                holds!(same, "attempt {} of {row} is recorded as {}: {made:?}", attempt.id, attempt.outcome);
            }
        }
        for (id, made) in executed {
            let told: Vec<&Ended> = made.answers.iter().filter(|answer| **answer != Ended::Stale).collect();
            // an outcome that is reported again is answered as before
            let same = |pair: &[&Ended]| pair[0] == pair[1] || pair.iter().all(|e| matches!(e, Ended::RetryAt(_)));
            holds!(told.windows(2).all(same), "attempt {id} was answered differently: {told:?}");
            let counted = told.len();
            let recorded = self.attempts.get(&delivery_of(id.row()).0).into_iter().flatten().find(|a| a.id == *id);
            let its_own = recorded.is_some_and(|recorded| recorded.output == made.output.as_bytes());
            holds!(counted == 0 || its_own, "attempt {id} was counted and is not recorded");
            let refused = counted == 0 && !made.answers.is_empty();
            holds!(!refused || !its_own, "attempt {id} was stale and is recorded");
        }
        Ok(())
    }

    /// No more failures than allowed, none repeated too early, and the reason fits.
    fn retries_are_due(&self, executed: &Executed, edited: bool) -> Result<(), String> {
        for delivery in self.deliveries.iter().filter(|delivery| !Self::is_pipeline(delivery)) {
            let row = delivery.id.row();
            let (policy, over) = (self.policy(delivery), self.is_over(delivery));
            let mut failures = 0;
            let mut earliest = 0;
            for attempt in self.attempts(delivery) {
                let began = executed.get(&attempt.id).map(|made| made.began.timestamp_micros());
                holds!(began.is_none_or(|began| began >= earliest), "attempt {} of {row} came too early", attempt.id);
                earliest = attempt.ended;
                if attempt.outcome == Ending::Lost.as_str() || attempt.outcome == "ok" {
                    continue;
                }
                failures += 1;
                let doubled = policy.wait.saturating_mul(1 << (failures - 1).min(16)).min(policy.max_wait);
                earliest += (doubled / 2).as_micros() as i64;
            }
            holds!(
                failures <= policy.attempts || over,
                "delivery {row} failed {failures} times of {}",
                policy.attempts
            );
            match delivery.reason.as_deref() {
                Some("attempts_exhausted") => {
                    let all = failures == policy.attempts || (edited || over) && failures > 0;
                    holds!(all, "delivery {row} was given up after {failures} failures of {}", policy.attempts);
                }
                Some("too_old" | "expired" | "quarantined") | None => {}
                Some(other) => return Err(format!("delivery {row} is dead because of {other}")),
            }
        }
        Ok(())
    }

    /// Whether it is a step of a run that ended without it: nobody asks how it ended, and its function's own policy holds.
    fn is_over(&self, delivery: &Delivery) -> bool {
        let run = |run: &(i64, i64, Status)| Some(run.0) == delivery.run && run.2 == Status::Dead;
        self.runs.iter().any(run)
    }

    fn policy(&self, delivery: &Delivery) -> crate::retry::RetryPolicy {
        let step = delivery.step.as_deref().and_then(|step| match self.machine().task(step) {
            Some(State::Task { retry, .. }) => *retry,
            _ => None,
        });
        step.unwrap_or_else(|| self.catalog.retry(&delivery.target))
    }

    fn machine(&self) -> &Machine {
        let pipeline = self.catalog.pipelines.iter().next();
        pipeline.map(|(_, machine)| &**machine).expect("a pipeline")
    }

    /// Of the deliveries to one target with one key, each began when the one before had ended.
    fn keys_keep_their_order(&self, executed: &Executed) -> Result<(), String> {
        let mut ends: BTreeMap<(&Target, &str), i64> = BTreeMap::new();
        for delivery in &self.deliveries {
            let Some(key) = delivery.key.as_deref() else { continue };
            let before = ends.insert((&delivery.target, key), delivery.ended).unwrap_or_default();
            let row = delivery.id.row();
            holds!(before <= delivery.ended, "delivery {row} ended before an earlier one with its key");
            let mut attempts = executed.iter().filter(|(id, _)| delivery_of(id.row()).0 == row);
            let early = attempts.find(|(_, made)| made.began.timestamp_micros() < before);
            holds!(early.is_none(), "delivery {row} began before an earlier one with its key ended: {early:?}");
        }
        Ok(())
    }

    /// Every end led to what the config says, once; and nothing is there that followed from nothing.
    fn what_follows_is_there_once(&self) -> Result<(), String> {
        let mut expected: BTreeMap<EventId, Vec<Target>> = BTreeMap::new();
        for delivery in &self.deliveries {
            let Some(parent) = self.events.get(&delivery.event) else { continue };
            let (done, following) =
                (delivery.status == Status::Done, |position| EventId::following(parent.time, delivery.id, position));
            if delivery.hold {
                continue;
            }
            if matches!(delivery.target, Target::Event(_)) && done {
                expected.insert(following(chain::PUT), Vec::new());
            }
            let Some((_, chain)) = self.catalog.chain(&delivery.target).filter(|_| delivery.run.is_none()) else {
                continue;
            };
            if done && !chain.then.is_empty() {
                expected.insert(following(0), chain.then.clone());
            }
            let records = if done { &chain.on_success } else { &chain.on_failure };
            if !records.is_empty() {
                expected.insert(following(chain::RECORD), records.clone());
            }
        }
        for (row, event) in &self.events {
            if event.hop == 0 || &*event.kind == chain::STEP {
                continue;
            }
            let to = expected.remove(&event.id);
            let Some(to) = to else { return Err(format!("{} ({}) follows from nothing", event.id, event.kind)) };
            self.goes_to(*row, event, to)?;
        }
        holds!(expected.is_empty(), "these did not follow: {expected:?}");
        Ok(())
    }

    /// A run took each of its steps once, and gives what they gave.
    fn runs_are_whole(&self) -> Result<(), String> {
        let started: BTreeSet<i64> = self.runs.iter().map(|(_, delivery, _)| *delivery).collect();
        holds!(started.len() == self.runs.len(), "a delivery was made into two runs");
        for delivery in self.deliveries.iter().filter(|delivery| Self::is_pipeline(delivery)) {
            let row = delivery.id.row();
            let Some((run, _, status)) = self.runs.iter().find(|(_, of, _)| *of == row) else {
                holds!(delivery.status == Status::Expired, "delivery {row} ended without a run");
                continue;
            };
            holds!(*status == delivery.status, "run {run} is {status:?}, its delivery {:?}", delivery.status);
            let mut steps: BTreeMap<&str, &Delivery> = BTreeMap::new();
            for step in self.deliveries.iter().filter(|step| step.run == Some(*run)) {
                let path = step.step.as_deref().unwrap_or_default();
                holds!(steps.insert(path, step).is_none(), "step {path} of run {run} was taken twice");
            }
            if *status == Status::Done {
                let output = self.output("", self.machine(), &steps)?;
                let given = self.attempts(delivery).last().map(|attempt| &attempt.output[..]);
                holds!(given == Some(&output[..]), "run {run} gave {given:?}, its steps {output:?}");
            } else {
                let given_up = steps.values().any(|step| step.status != Status::Done);
                holds!(given_up, "run {run} is {status:?} and all its steps are done");
            }
        }
        Ok(())
    }

    /// What a machine gives when its steps gave what they did.
    fn output(&self, prefix: &str, machine: &Machine, steps: &BTreeMap<&str, &Delivery>) -> Result<Vec<u8>, String> {
        let mut at = &machine.start;
        loop {
            let path = if prefix.is_empty() { at.clone() } else { format!("{prefix}/{at}") };
            let (output, next) = match machine.states.get(at) {
                Some(State::Task { next, .. }) => {
                    let step = steps.get(path.as_str()).filter(|step| step.status == Status::Done);
                    let Some(step) = step else { return Err(format!("step {path} of a run that is done is not")) };
                    (self.attempts(step).last().map(|last| last.output.clone()).unwrap_or_default(), next)
                }
                Some(State::Parallel { branches, next }) => {
                    let outputs = (0..branches.len()).map(|branch| {
                        let output = self.output(&format!("{path}/{branch}"), &branches[branch], steps)?;
                        Ok(as_json(&output))
                    });
                    let outputs: Vec<_> = outputs.collect::<Result<_, String>>()?;
                    (serde_json::to_vec(&outputs).unwrap_or_default(), next)
                }
                None => return Err(format!("there is no state {path}")),
            };
            match next {
                Some(next) => at = next,
                None => return Ok(output),
            }
        }
    }
}
