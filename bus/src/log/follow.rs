//! What follows from the end of a delivery, written in the commit that ends it.

use super::{
    DeadReason, Status, Tx,
    delivery::{self, Current, End, Ended, Placed, Rules},
    event::{self as rows, Inserted, Prepared},
    run,
};
use crate::{
    Event, Outcome, ambient,
    catalog::Match,
    chain::{self, BranchLimit, HopLimit},
    payload::Format,
    sink::AcceptError,
    target::Target,
};

/// What followed.
#[derive(Debug, Default)]
pub(crate) struct Following {
    pub(crate) placed: Vec<Placed>,
    /// The pipeline's delivery that ended with this, and how.
    pub(crate) run: Option<(i64, Outcome)>,
}

impl Following {
    /// With the delivery that was waiting for this one to end.
    pub(crate) fn of(mut self, ended: Ended, freed: Option<Placed>) -> End {
        self.placed.extend(freed);
        End { ended, placed: self.placed, run: self.run }
    }
}

/// The delivery has just ended: well, or given up with a reason.
pub(crate) fn ended(
    tx: &Tx<'_>,
    current: &Current,
    outcome: &Outcome,
    by: &Rules<'_>,
    dead: Option<DeadReason>,
) -> rusqlite::Result<Following> {
    let mut placed = Vec::new();
    if let Target::Event(kind) = &current.target
        && dead.is_none()
        && !current.hold
        && let Some(parent) = current.parent(tx)?
    {
        placed = place(tx, parent, chain::put(parent, current.id, kind), 1, &[], by)?;
    }
    if let Some((run, step)) = &current.run {
        let mut following = run::step_ended(tx, (*run, step), current, outcome, by, dead)?;
        following.placed.append(&mut placed);
        return Ok(following);
    }
    if current.hold {
        return Ok(Following::default());
    }
    let Some((function, chain)) = by.catalog.chain(&current.target) else { return Ok(Following { placed, run: None }) };
    let records = if dead.is_none() { &chain.on_success } else { &chain.on_failure };
    let outputs = dead.is_none() && !chain.then.is_empty() && !outcome.shared;
    if !outputs && records.is_empty() {
        return Ok(Following::default());
    }
    let Some(parent) = current.parent(tx)? else { return Ok(Following::default()) };
    if outputs {
        placed.extend(place_outputs(tx, parent, current, outcome, by)?);
    }
    if !records.is_empty() {
        let condition = match dead {
            None => "Success",
            Some(DeadReason::TooOld | DeadReason::Expired) => "EventAgeExceeded",
            Some(_) => "RetriesExhausted",
        };
        let end = chain::End { condition, attempts: current.attempts };
        let event = chain::record(parent, current.id, function, &by.source(function), outcome, &end);
        placed.extend(place(tx, parent, event, 1, records, by)?);
    }
    Ok(Following { placed, run: None })
}

/// What follows from the output of a success: of a delivery, or of a synchronous call that was just written.
pub(crate) fn place_outputs(
    tx: &Tx<'_>,
    parent: &Event,
    current: &Current,
    outcome: &Outcome,
    by: &Rules<'_>,
) -> rusqlite::Result<Vec<Placed>> {
    let chain = by.catalog.chain(&current.target).filter(|(_, chain)| !chain.then.is_empty());
    let Some((function, chain)) = chain else { return Ok(Vec::new()) };
    let outputs = chain::outputs(parent, current.id, &by.source(function), &outcome.output, chain.each);
    let (mut placed, several) = (Vec::new(), outputs.len());
    for event in outputs {
        placed.extend(place(tx, parent, event, several, &chain.then, by)?);
    }
    Ok(placed)
}

/// The failure that a success becomes when more would follow from it than may.
pub(crate) fn too_many(
    tx: &Tx<'_>,
    current: &Current,
    outcome: &Outcome,
    by: &Rules<'_>,
) -> rusqlite::Result<Option<Outcome>> {
    let Some((_, chain)) = by.catalog.chain(&current.target) else { return Ok(None) };
    if !chain.each || current.run.is_some() || current.hold {
        return Ok(None);
    }
    Ok(current.parent(tx)?.and_then(|parent| chain::too_many(parent, chain, outcome)))
}

/// Writes a following event, one of `several`, for these targets and for every rule it matches. Past the limits of hops and branches
/// its deliveries are born dead, so that a loop or an avalanche ends where it can be seen.
fn place(
    tx: &Tx<'_>,
    parent: &Event,
    mut event: Event,
    several: usize,
    to: &[Target],
    by: &Rules<'_>,
) -> rusqlite::Result<Vec<Placed>> {
    let own = to.iter().map(|target| Match::own(target.clone(), Format::Body));
    let matches: Vec<Match> = own.chain(by.catalog.matches(&event)).collect();
    let branched = chain::branched(parent, several.saturating_mul(matches.len()));
    event.branches = branched.unwrap_or(event.branches);
    let event = Prepared::new(event);
    let row = match rows::insert(tx, &event) {
        Ok(Inserted::New(row)) => row,
        Ok(Inserted::Duplicate) | Err(AcceptError::Conflict { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(rusqlite::Error::ToSqlConversionFailure(error.into())),
    };
    let placed = delivery::place(tx, row, event.event(), &matches)?;
    let limit = match (chain::hops_left(parent), branched) {
        (Err(HopLimit), _) => DeadReason::HopLimit,
        (_, Err(BranchLimit)) => DeadReason::BranchLimit,
        _ => return run::begin(tx, placed, by),
    };
    tracing::warn!(event.id = %event.id, reason = limit.as_str(), "a flow of events went too far and is ended");
    let end = |dead: &Placed| delivery::finish(tx, dead.row, Status::Dead, Some(limit), ambient::now());
    placed.iter().filter_map(|dead| end(dead).transpose()).collect()
}
