//! Replays: a fixed selection of logged events, delivered again.
//!
//! The selection is resolved to new deliveries in the one commit that makes the replay: from then on it is an
//! ordinary backlog, so a kill in the middle repeats nothing and loses nothing. Each new delivery has the next
//! generation of its event and target, so neither the bus nor NATS takes it for the old one; the event keeps its id,
//! its time and its bytes.

use std::collections::BTreeMap;

use rusqlite::{Connection, params, params_from_iter};
use serde::{Deserialize, Serialize};

use super::{
    Tx,
    dead::{self, is_dead_letter},
    delivery::{self, Origin, Place, Placed},
    query::{IS_LATEST, QueryError, Selection},
};
use crate::{ambient, catalog::Match, name::Name};

/// What is to be delivered again, and how.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    #[serde(default)]
    pub selection: Selection,
    /// Only dead letters: `fnbus dead redrive`.
    #[serde(default)]
    pub dead: bool,
    /// Another function in place of each delivery's own.
    #[serde(default)]
    pub to: Option<Name>,
    /// Nothing follows from these deliveries.
    #[serde(default)]
    pub hold: bool,
    /// Why, for the record.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a replay would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Deliveries it makes.
    pub deliveries: u64,
    /// Events they are of.
    pub events: u64,
    /// Of the deliveries, those that ended well already and would run again.
    pub done_already: u64,
    /// Of the deliveries, those still open: they would run twice.
    pub open: u64,
    /// Deliveries per target.
    pub targets: BTreeMap<String, u64>,
    /// Events left out because retention took their bodies.
    pub without_body: u64,
}

/// A delivery that is made again: which, of which event, how many times that was made before, and as what.
type Chosen = (i64, i64, u32, Match);

/// A replay that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    pub name: String,
    pub plan: Plan,
}

impl Request {
    /// SQL for the chosen deliveries: the latest generation of each (event, target, binding), or the dead letters. A step is made again by
    /// the run it is a part of, never alone.
    fn source(&self, connection: &Connection) -> Result<(String, Vec<rusqlite::types::Value>), QueryError> {
        let (condition, values) = self.selection.condition(connection)?;
        let which = if self.dead { is_dead_letter() } else { IS_LATEST.to_owned() };
        // What a replay gave to another function was a trial, unless that function is asked for.
        let own = if self.selection.function.is_some() {
            "1"
        } else {
            "NOT EXISTS (SELECT 1 FROM replay r WHERE r.seq = d.replay AND r.target IS NOT NULL)"
        };
        let sql = format!(
            "FROM delivery d JOIN event e ON e.seq = d.event \
                 WHERE {condition} AND {which} AND {own} AND d.run IS NULL"
        );
        Ok((sql, values))
    }
}

/// Says what a replay would do, and does nothing.
pub fn plan(connection: &Connection, request: &Request) -> Result<Plan, QueryError> {
    let (source, values) = request.source(connection)?;
    let mut plan = Plan::default();
    let totals = format!(
        "SELECT count(*), count(DISTINCT e.seq), count(*) FILTER (WHERE d.status = 10), \
         count(*) FILTER (WHERE d.status < 10) {source} AND e.data IS NOT NULL"
    );
    connection.query_row(&totals, params_from_iter(values.iter()), |row| {
        plan.deliveries = row.get(0)?;
        plan.events = row.get(1)?;
        plan.done_already = row.get(2)?;
        plan.open = row.get(3)?;
        Ok(())
    })?;
    let without = format!("SELECT count(*) {source} AND e.data IS NULL");
    plan.without_body = connection.query_row(&without, params_from_iter(values.iter()), |row| row.get(0))?;
    if request.dead && plan.deliveries + plan.without_body == 0 {
        dead::look_for_settled(connection, &request.selection)?;
    }
    if let Some(to) = &request.to {
        plan.targets.insert(to.to_string(), plan.deliveries);
    } else {
        let by_target = format!("SELECT d.target, count(*) {source} AND e.data IS NOT NULL GROUP BY d.target");
        let mut statement = connection.prepare(&by_target)?;
        let rows = statement.query_map(params_from_iter(values.iter()), |row| Ok((row.get(0)?, row.get(1)?)))?;
        plan.targets = rows.collect::<rusqlite::Result<_>>()?;
    }
    Ok(plan)
}

/// Makes the replay and its deliveries. An empty selection makes nothing but the record of it.
pub fn create(tx: &Tx<'_>, request: &Request) -> Result<(Created, Vec<Placed>), QueryError> {
    let plan = plan(tx, request)?;
    let now = ambient::now();
    let word = if request.dead { "redrive" } else { "replay" };
    let taken: i64 = tx.query_row("SELECT coalesce(max(seq), 0) FROM replay", [], |row| row.get(0))?;
    let name = format!("{word}-{}-{}", now.format("%Y%m%d"), taken + 1);
    let selection = serde_json::to_string(&request.selection).unwrap_or_default();
    tx.execute(
        "INSERT INTO replay (name, reason, selection, target, hold, status, total, created) \
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7)",
        params![
            name,
            request.reason,
            selection,
            request.to.as_ref().map(Name::as_str),
            request.hold,
            plan.deliveries as i64,
            now.timestamp_micros()
        ],
    )?;
    let replay = tx.last_insert_rowid();
    let (source, values) = request.source(tx)?;
    let chosen = format!(
        "SELECT d.seq, d.event, d.generation, {} {source} AND e.data IS NOT NULL ORDER BY d.seq",
        delivery::MATCH
    );
    let mut statement = tx.prepare(&chosen)?;
    let rows: Vec<Chosen> = statement
        .query_map(params_from_iter(values), |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, delivery::read_match(row, 3)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut placed = Vec::with_capacity(rows.len());
    for (own, event, generation, mut matched) in rows {
        let mut origin = Origin { replay: Some((replay, generation + 1)), ..Origin::default() };
        match &request.to {
            // a trial blocks nobody, and the delivery it is a trial of keeps its place
            Some(to) => (matched.target, matched.block) = (to.clone().into(), false),
            None => origin.instead_of = Some(own),
        }
        let (id, held) = delivery::insert(tx, event, &matched, origin)?;
        let place = if held { Place::Held } else { Place::Last };
        placed.push(Placed { row: id.row(), target: matched.target, place, path: Vec::new() });
    }
    Ok((Created { name, plan }, placed))
}
