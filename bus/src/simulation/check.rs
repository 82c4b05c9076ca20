//! What must hold when everything has ended, whatever happened on the way.

// A file for each of the promises.
mod accepted;
mod attempts;
mod following;
mod order;

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};

use super::{project::PIPELINE, worker::Execution};
use crate::{
    Event, EventId, RowId, Target,
    catalog::Catalog,
    id::Born,
    log::{
        Status,
        attempt::delivery_of,
        event::{self, COLUMNS},
    },
    pipeline::Machine,
    sink::{AcceptError, Accepted},
};

/// What senders know.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) submitted: Vec<Submitted>,
    /// Bodies that dead letters were given.
    pub(super) edits: Vec<String>,
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
    trigger: Option<String>,
    generation: u32,
    status: Status,
    reason: Option<String>,
    attempts: u32,
    ended: i64,
    key: Option<String>,
    run: Option<i64>,
    step: Option<String>,
    hold: bool,
    /// Given up, it holds up its key.
    block: bool,
    /// Dropped, or edited: the row of the event with the corrected body.
    settled: Option<i64>,
    corrected: Option<i64>,
    /// By a replay that was not for dead letters alone.
    replayed: bool,
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
    /// Row, delivery, status, beginning.
    runs: Vec<(i64, i64, Status, i64)>,
}

macro_rules! holds {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err(format!($($text)*));
        }
    };
}
use holds;

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

    /// The event and the target of a dead letter, if there is one.
    pub(super) fn letter(connection: &Connection) -> Option<(EventId, String)> {
        let sql = "SELECT e.id, d.target FROM delivery d JOIN event e ON e.seq = d.event \
                   WHERE d.status IN (11, 12) AND d.run IS NULL AND d.settled IS NULL LIMIT 1";
        all(connection, sql, |row| Ok((event::read_id(row, 0)?, row.get(1)?)))
            .pop()
            .and_then(|(id, to)| Some((id?, to)))
    }

    /// Whether somebody waits until a dead letter is settled.
    pub(super) fn is_blocked(connection: &Connection) -> bool {
        let sql = "SELECT EXISTS (SELECT 1 FROM delivery d JOIN delivery o ON o.target = d.target AND o.key = d.key \
                   AND o.turn > d.turn WHERE d.status >= 10 AND d.turn IS NOT NULL)";
        connection.prepare_cached(sql).unwrap().query_row([], |row| row.get(0)).unwrap()
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
        said.what_follows_is_there_once(executed)?;
        said.runs_are_whole()
    }
}

impl<'a> Said<'a> {
    fn read(connection: &Connection, catalog: &'a Catalog) -> Self {
        let sql = format!("SELECT {COLUMNS} FROM event e ORDER BY e.seq");
        let events = all(connection, &sql, |row| Ok((row.get(0)?, event::read(row, 0)?.event))).into_iter().collect();
        let sql = "SELECT d.seq, d.born, d.event, d.target, d.generation, d.status, d.reason, d.attempts, d.ended, \
                   d.key, d.run, d.step, coalesce(r.hold, 0), d.trigger, coalesce(d.block, 0), d.settled, d.corrected, \
                   coalesce(r.name LIKE 'replay%', 0) FROM delivery d LEFT JOIN replay r ON r.seq = d.replay \
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
                trigger: row.get(13)?,
                block: row.get(14)?,
                settled: row.get(15)?,
                corrected: row.get(16)?,
                replayed: row.get(17)?,
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
        let runs = all(connection, "SELECT seq, delivery, status, started FROM run ORDER BY seq", |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        });
        Self { catalog, events, deliveries, attempts, runs }
    }

    fn attempts(&self, delivery: &Delivery) -> &[Attempt] {
        self.attempts.get(&delivery.id.row()).map_or(&[], Vec::as_slice)
    }

    fn is_pipeline(delivery: &Delivery) -> bool {
        delivery.target.name().is_some_and(|name| name.as_str() == PIPELINE)
    }

    fn machine(&self) -> &Machine {
        let pipeline = self.catalog.pipelines.iter().next();
        pipeline.map(|(_, machine)| &**machine).expect("a pipeline")
    }
}
