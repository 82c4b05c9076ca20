//! Runs of pipelines. A step's outcome, the run's new state and the next deliveries are one commit, so a run survives
//! any crash and goes on at its step. Control states run here, in the writer; a step on a function is an ordinary
//! delivery that remembers its run.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{
    DeadReason, Status, Tx, attempt,
    backlog::Due,
    delivery::{self, Current, Origin, Place, Placed, Rules},
    event::{self as rows, Inserted, Prepared},
    follow::Following,
};
use crate::{
    Event, Name, Outcome, ambient,
    catalog::Match,
    chain,
    id::{Born, RowId},
    outcome::{Ending, Fault, error_object},
    payload::Format,
    pipeline::{Begin, Joins, Machine, Next, State},
    retry::RetryPolicy,
};

/// How many steps beyond the one that begins are told of.
const FORESEEN: usize = 3;

/// A run between two of its steps, as it lies in the log: with the machine it began with.
#[derive(Serialize, Deserialize)]
struct Memory {
    machine: Machine,
    #[serde(default)]
    joins: Joins,
}

/// A run that is not over.
struct Open {
    memory: Memory,
    pipeline: String,
    /// The delivery to the pipeline.
    delivery: i64,
    started: i64,
}

/// Begins the runs of new deliveries to pipelines, in the commit that made them. Gives what there is to carry instead.
pub(crate) fn begin(tx: &Tx<'_>, placed: Vec<Placed>, by: &Rules<'_>) -> rusqlite::Result<Vec<Placed>> {
    if by.catalog.pipelines.is_empty() {
        return Ok(placed);
    }
    let mut carried = Vec::with_capacity(placed.len());
    for placed in placed {
        match (&placed.place, placed.target.name().and_then(|name| by.catalog.pipelines.get_key_value(name))) {
            (Place::New(due), Some((name, machine))) => {
                carried.extend(start(tx, due, name, machine, by.node)?.unwrap_or_default());
            }
            _ => carried.push(placed),
        }
    }
    Ok(carried)
}

/// Begins a run for a pending delivery to a pipeline. None: the delivery is not pending any more.
pub(crate) fn start(
    tx: &Tx<'_>,
    due: &Due,
    pipeline: &Name,
    machine: &Machine,
    node: &str,
) -> rusqlite::Result<Option<Vec<Placed>>> {
    let n = due.attempts + 1;
    delivery::begin(tx, RowId::new(Born::now(), attempt::attempt_row(due.row, n)), node)?;
    let Some(current) = Current::read(tx, due.row)? else { return Ok(None) };
    if current.status != Status::Running || current.attempts != n {
        return Ok(None);
    }
    let memory = Memory { machine: machine.clone(), joins: Joins::default() };
    tx.prepare_cached(
        "INSERT INTO run (born, pipeline, event, delivery, status, state, started) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        Born::now().0,
        pipeline.as_str(),
        current.event,
        due.row,
        Status::Running,
        written(&memory)?,
        ambient::now().timestamp_micros()
    ])?;
    let run = tx.last_insert_rowid();
    let place = |step: &Begin| place_step(tx, run, current.event, &due.event, step, due.format);
    let steps = machine.begin();
    let placed = steps.iter().map(place).collect::<Result<_, _>>()?;
    Ok(Some(foreseen(placed, machine, &steps)))
}

/// The retry policy of the step, when it has one of its own.
pub(crate) fn retry(tx: &Tx<'_>, current: &Current) -> rusqlite::Result<Option<RetryPolicy>> {
    let Some((run, step)) = &current.run else { return Ok(None) };
    let Some(Open { memory, .. }) = read(tx, *run)? else { return Ok(None) };
    Ok(match memory.machine.task(step) {
        Some(State::Task { retry, .. }) => *retry,
        _ => None,
    })
}

/// A step's delivery has ended. A run that is over already only keeps the record of it.
pub(crate) fn step_ended(
    tx: &Tx<'_>,
    (run, step): (i64, &str),
    current: &Current,
    outcome: &Outcome,
    by: &Rules<'_>,
    dead: Option<DeadReason>,
) -> rusqlite::Result<Following> {
    let Some(mut open) = read(tx, run)? else { return Ok(Following::default()) };
    if dead.is_some() {
        let outcome = failed(step, outcome);
        return finished(tx, run, &open, outcome, Some(DeadReason::StepFailed));
    }
    let Memory { machine, joins } = &mut open.memory;
    let waited = !joins.is_empty();
    let placed = match machine.done(joins, step, outcome.output.clone()) {
        Next::Begin(steps) => {
            let Some(parent) = current.parent(tx)? else { return Ok(Following::default()) };
            let source = format!("/{}/{}", by.namespace, open.pipeline);
            // One event carries the input of all the steps that begin together.
            let input = steps.first().and_then(|step| step.input.clone()).unwrap_or_default();
            let event = Prepared::new(chain::step(parent, current.id, &source, input));
            let row = insert(tx, &event)?;
            let place = |step| place_step(tx, run, row, event.event(), step, Format::Body);
            let placed = steps.iter().map(place).collect::<Result<Vec<_>, _>>()?;
            foreseen(placed, machine, &steps)
        }
        Next::Wait => Vec::new(),
        Next::Finished(output) => {
            let outcome = Outcome { output, ..outcome.clone() };
            return finished(tx, run, &open, outcome, None);
        }
        Next::Astray => return Ok(Following::default()),
    };
    // between steps in a row there is nothing to remember: which ones are open stands with the deliveries
    if waited || !open.memory.joins.is_empty() {
        let state = written(&open.memory)?;
        tx.prepare_cached("UPDATE run SET state = ?2 WHERE seq = ?1")?.execute(params![run, state])?;
    }
    Ok(Following { placed, run: None })
}

/// Ends the run and its pipeline's delivery. What is still open of it is recorded when it ends, and ignored.
fn finished(
    tx: &Tx<'_>,
    run: i64,
    open: &Open,
    mut outcome: Outcome,
    dead: Option<DeadReason>,
) -> rusqlite::Result<Following> {
    let status = if dead.is_none() { Status::Done } else { Status::Dead };
    let now = ambient::now();
    tx.prepare_cached("UPDATE run SET status = ?2, ended = ?3 WHERE seq = ?1")?.execute(params![
        run,
        status,
        now.timestamp_micros()
    ])?;
    outcome.started = rows::time(open.started);
    outcome.times.run = (now - outcome.started).to_std().unwrap_or_default();
    outcome.log = String::new();
    outcome.request_id = None;
    attempt::close_open(tx, open.delivery, &outcome)?;
    let placed = delivery::finish(tx, open.delivery, status, dead, now)?.into_iter().collect();
    Ok(Following { placed, run: Some((open.delivery, outcome)) })
}

/// The outcome of a run whose step was given up.
fn failed(step: &str, outcome: &Outcome) -> Outcome {
    let (kind, message) = match &outcome.fault {
        Some(fault) => (fault.kind.clone(), fault.message.clone()),
        None => ("Runtime.Unknown".to_owned(), "it was given up".to_owned()),
    };
    let fault = Fault::new(kind, format!("step `{step}` failed: {message}"));
    Outcome { ending: Ending::Error, output: error_object(&fault), fault: Some(fault), ..outcome.clone() }
}

/// Notes what will follow from steps that begin together.
fn foreseen(mut placed: Vec<Placed>, machine: &Machine, steps: &[Begin]) -> Vec<Placed> {
    if let Some(first) = placed.first_mut() {
        first.path = machine.path(steps, FORESEEN);
    }
    placed
}

fn place_step(
    tx: &Tx<'_>,
    run: i64,
    row: i64,
    event: &Arc<Event>,
    step: &Begin,
    format: Format,
) -> rusqlite::Result<Placed> {
    let matched = Match::own(step.target.clone(), format);
    delivery::place_one(tx, row, event, &matched, Origin { step: Some((run, &step.path)), ..Origin::default() })
}

fn insert(tx: &Tx<'_>, event: &Prepared) -> rusqlite::Result<i64> {
    match rows::insert(tx, event) {
        Ok(Inserted::New(row)) => Ok(row),
        Ok(Inserted::Duplicate) => Err(rusqlite::Error::QueryReturnedNoRows),
        Err(error) => Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
    }
}

fn read(tx: &Tx<'_>, run: i64) -> rusqlite::Result<Option<Open>> {
    let found: Option<(String, String, i64, i64)> = tx
        .prepare_cached("SELECT state, pipeline, delivery, started FROM run WHERE seq = ?1 AND status = 2")?
        .query_row([run], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((state, pipeline, delivery, started)) = found else { return Ok(None) };
    let memory = serde_json::from_str(&state)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))?;
    Ok(Some(Open { memory, pipeline, delivery, started }))
}

fn written(memory: &Memory) -> rusqlite::Result<String> {
    serde_json::to_string(memory).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
