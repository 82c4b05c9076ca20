//! What happened, from those who wrote it down: the client's journal, the functions' record, the node's log.

use std::{fs, path::Path};

use rusqlite::{Connection, OpenFlags, Row, config::DbConfig, types::ValueRef};
use uuid::Uuid;

use super::{
    producer::{Accepted, JOURNAL, hash},
    recorder::{Execution, RECORD, executions},
};

/// The file of a project that gets what `follow` gave.
pub const FOLLOWED: &str = "out/followed.jsonl";

/// Everything the checker looks at.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub accepted: Vec<Accepted>,
    pub executions: Vec<Execution>,
    pub events: Vec<Event>,
    pub deliveries: Vec<Delivery>,
    pub attempts: Vec<Attempt>,
    pub runs: Vec<Run>,
    /// The lines of the file that gets what followed: the delivery each is of.
    pub written: Vec<String>,
    /// When the node was killed, in microseconds since 1970.
    pub kills: Vec<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub seq: i64,
    pub id: String,
    pub source: String,
    pub kind: String,
    /// SHA-256 of its body; none when retention took it.
    pub hash: Option<String>,
    /// The event it follows from.
    pub causation: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub seq: i64,
    pub id: String,
    pub event: i64,
    pub target: String,
    /// As the log numbers it: below 10 it is unended, 10 is done, 11 dead.
    pub status: i64,
    pub reason: Option<String>,
    pub ended: Option<i64>,
    pub key: Option<String>,
    /// The run it is a step of, and its place there.
    pub step: Option<(i64, String)>,
    /// Nothing follows from it: it is part of a replay that holds.
    pub hold: bool,
}

impl Delivery {
    pub const DONE: i64 = 10;
    pub const DEAD: i64 = 11;

    pub fn is_done(&self) -> bool {
        self.status == Self::DONE
    }

    pub fn is_ended(&self) -> bool {
        self.status >= Self::DONE
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub id: String,
    pub delivery: i64,
    pub outcome: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub seq: i64,
    pub pipeline: String,
    pub delivery: i64,
    pub status: i64,
}

impl History {
    /// Reads all of it: `folder` has journal and record, `data` the log.
    pub fn read(folder: &Path, data: &Path) -> rusqlite::Result<Self> {
        let text = |name| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let log = open(data)?;
        Ok(Self {
            accepted: text(JOURNAL).lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            executions: executions(&text(RECORD)),
            events: all(&log, "SELECT seq, id, source, type, data, causation FROM event ORDER BY seq", |row| {
                let data = row.get_ref(4)?;
                Ok(Event {
                    seq: row.get(0)?,
                    id: id(row, 1)?.unwrap_or_default(),
                    source: row.get(2)?,
                    kind: row.get(3)?,
                    hash: data.as_bytes_or_null()?.map(hash),
                    causation: id(row, 5)?,
                })
            })?,
            deliveries: all(
                &log,
                "SELECT d.seq, d.event, d.target, d.status, d.reason, d.ended, d.key, d.run, d.step, \
                 coalesce(r.hold, 0), d.born FROM delivery d LEFT JOIN replay r ON r.seq = d.replay ORDER BY d.seq",
                |row| {
                    let (run, step): (Option<i64>, Option<String>) = (row.get(7)?, row.get(8)?);
                    Ok(Delivery {
                        seq: row.get(0)?,
                        id: row_id(row.get(0)?, row.get(10)?),
                        event: row.get(1)?,
                        target: row.get(2)?,
                        status: row.get(3)?,
                        reason: row.get(4)?,
                        ended: row.get(5)?,
                        key: row.get(6)?,
                        step: run.zip(step),
                        hold: row.get(9)?,
                    })
                },
            )?,
            attempts: all(&log, "SELECT id, born, outcome FROM attempt ORDER BY id", |row| {
                let (row_number, born): (i64, i64) = (row.get(0)?, row.get(1)?);
                let id = row_id(row_number, born);
                Ok(Attempt { id, delivery: row_number >> ATTEMPT_BITS, outcome: row.get(2)? })
            })?,
            runs: all(&log, "SELECT seq, pipeline, delivery, status FROM run ORDER BY seq", |row| {
                Ok(Run { seq: row.get(0)?, pipeline: row.get(1)?, delivery: row.get(2)?, status: row.get(3)? })
            })?,
            written: text(FOLLOWED).lines().map(delivery_in).collect(),
            kills: Vec::new(),
        })
    }
}

/// The deliveries that are done, and when they were: what must never change again.
pub fn done(data: &Path) -> rusqlite::Result<Vec<(i64, i64)>> {
    all(&open(data)?, "SELECT seq, ended FROM delivery WHERE status = 10", |row| Ok((row.get(0)?, row.get(1)?)))
}

/// How many deliveries are unended.
pub fn unended(data: &Path) -> rusqlite::Result<usize> {
    open(data)?.query_row("SELECT count(*) FROM delivery WHERE status < 10", [], |row| row.get(0))
}

/// Opens the log of a node that may run or not. What is left in its write-ahead log stays there: it is the node's to
/// find.
pub fn open(data: &Path) -> rusqlite::Result<Connection> {
    let log = Connection::open_with_flags(data.join("log.db"), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    log.busy_timeout(std::time::Duration::from_secs(5))?;
    log.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(log)
}

fn all<T>(log: &Connection, sql: &str, read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<Vec<T>> {
    log.prepare(sql)?.query_map([], read)?.collect()
}

/// An id of an event: ours are short in the log.
pub fn id(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<String>> {
    Ok(match row.get_ref(at)? {
        ValueRef::Blob(bytes) => Uuid::from_slice(bytes).ok().map(|uuid| uuid.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    })
}

/// The low bits of an attempt's row are its number, the others its delivery.
const ATTEMPT_BITS: u32 = 12;

/// The delivery that a line of a `file:` target is of; nothing when the line is torn.
fn delivery_in(line: &str) -> String {
    let line: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    line["delivery"].as_str().unwrap_or_default().to_owned()
}

/// The id of a delivery or an attempt, from what the log has of it: see docs/adr/0003. Made here anew, so that the
/// checker takes no word of the node's code for it.
pub fn row_id(row: i64, born: i64) -> String {
    let (time, salt) = ((born as u64) >> 12, (born as u64) & 0x0fff);
    let high = (time << 16) | 0x8000 | salt;
    Uuid::from_u64_pair(high, (0b10 << 62) | row as u64).to_string()
}

/// The delivery that an attempt's id is of.
pub fn delivery_of(attempt: &str) -> Option<i64> {
    let low = attempt.parse::<Uuid>().ok()?.as_u64_pair().1;
    Some((low & (u64::MAX >> 2)) as i64 >> ATTEMPT_BITS)
}
