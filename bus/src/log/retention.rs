//! What may go, and when: a background task that deletes a little at a time, so that no writer waits long.
//!
//! It runs once a minute, and when the log is over its size at once. Never touched: what is unended, dead letters younger
//! than `keep_dead`, and those that others of their key wait for. An id that came from outside is known at least as long as
//! `keep` says, even where its event had to go before that: a late duplicate is still recognised.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params};
use tokio_util::sync::CancellationToken;

use super::{Log, LogError, Tx, bound, dead::IS_GIVEN_UP, line::HOLDS_UP};
use crate::{ambient, config::LogConfig};

const EVERY: Duration = Duration::from_mins(1);
/// Between two rounds of a log that stays over its size: at least so long, and so many times what a round took.
const PAUSE: Duration = Duration::from_secs(2);
const REST: u32 = 10;
const CHUNK: usize = 500;
/// So many ids from outside are looked at before it is decided whether there is more to forget.
const IDS: usize = 5000;

/// `[log]`: how much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub age: Duration,
    /// Dead letters stay so long, whatever else is asked for.
    pub dead: Duration,
    pub bytes: u64,
}

impl From<&LogConfig> for Keep {
    fn from(config: &LogConfig) -> Self {
        Self { age: config.keep, dead: config.keep_dead, bytes: config.max_size }
    }
}

/// Deletes what is over `keep` until shut down. `keep` is asked each round, so a reload applies.
pub async fn run(log: Log, keep: impl Fn() -> Keep + Send, shutdown: CancellationToken) {
    let mut ids = Ids::default();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        log.bound.set(keep().bytes);
        tokio::select! {
            _ = tick.tick() => {}
            () = log.bound.over() => {}
            () = shutdown.cancelled() => return,
        }
        let started = Instant::now();
        if let Err(error) = sweep(&log, keep()).await {
            tracing::warn!(%error, "old events could not be removed from the log");
        }
        if let Err(error) = ids.forget(&log, micros_ago(keep().age)).await {
            tracing::warn!(%error, "old ids could not be removed from the log");
        }
        let rest = PAUSE.max(started.elapsed() * REST);
        // Not heard of by a commit: what ended since makes room only when it is removed.
        let full = log.reached().is_some();
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            () = shutdown.cancelled() => return,
        }
        if full {
            tick.reset_immediately();
        }
    }
}

/// How far the ids from outside have been looked at. An id stays as long as its event, and at least as long as `keep`
/// says, so it goes with its event unless that went early, for want of space: such ids are looked for here, a few at a
/// time, round and round.
#[derive(Default)]
pub(super) struct Ids {
    after: (String, String),
}

impl Ids {
    /// Removes ids that were met before `before` and whose events are gone. A part of the table tells how much there is:
    /// it ends where less than a tenth of that may go.
    pub(super) async fn forget(&mut self, log: &Log, before: i64) -> Result<u64, LogError> {
        let mut removed = 0;
        loop {
            let after = std::mem::take(&mut self.after);
            let found = log.read(move |connection| Ok::<_, LogError>(look_at_ids(connection, &after, before)?)).await?;
            let (mut old, last) = found;
            let more = old.len() >= IDS / 10;
            removed += old.len() as u64;
            while !old.is_empty() {
                let chunk = old.split_off(old.len().saturating_sub(CHUNK));
                log.write(move |tx| Ok::<_, LogError>(remove_ids(tx, &chunk)?)).await?;
            }
            let Some(last) = last else { return Ok(removed) };
            self.after = last;
            if !more {
                return Ok(removed);
            }
        }
    }
}

/// What may go of the next ids, and the last of them unless they are the last of all.
type FoundIds = (Vec<(String, String)>, Option<(String, String)>);

fn look_at_ids(connection: &Connection, after: &(String, String), before: i64) -> rusqlite::Result<FoundIds> {
    let mut statement = connection.prepare_cached(
        "SELECT id, scope, at < ?3 AND NOT EXISTS (SELECT 1 FROM event WHERE seq = seen.event) FROM seen \
         WHERE (id, scope) > (?1, ?2) ORDER BY id, scope LIMIT ?4",
    )?;
    let mut rows = statement.query(params![after.0, after.1, before, IDS as i64])?;
    let (mut old, mut last, mut looked) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let id = (row.get(0)?, row.get(1)?);
        looked += 1;
        if row.get(2)? {
            old.push(id.clone());
        }
        last = Some(id);
    }
    Ok((old, last.filter(|_| looked == IDS)))
}

fn remove_ids(tx: &Tx<'_>, ids: &[(String, String)]) -> rusqlite::Result<()> {
    let mut rows = tx.prepare_cached("DELETE FROM seen WHERE id = ?1 AND scope = ?2")?;
    for (id, scope) in ids {
        rows.execute([id, scope])?;
    }
    Ok(())
}

/// One round: everything over `keep` that may go.
pub async fn sweep(log: &Log, keep: Keep) -> Result<u64, LogError> {
    let before = micros_ago(keep.age);
    let mut removed = pass(log, Until::Older(before), Kind::Any, keep.dead, before).await?;
    // Over the size, synchronous calls go first, then whatever ended longest ago.
    for kind in [Kind::Synchronous, Kind::Any] {
        removed += pass(log, Until::Fits(keep.bytes), kind, keep.dead, before).await?;
    }
    log.bound.set(keep.bytes);
    log.bound.removed(live_bytes(log).await?);
    Ok(removed)
}

/// How far a pass goes through the log.
#[derive(Clone, Copy)]
enum Until {
    /// Up to the first event received at or after this.
    Older(i64),
    /// Until the log takes no more than so many bytes.
    Fits(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Synchronous,
    Any,
}

/// What a reader found in one chunk of the log.
struct Found {
    may_go: Vec<i64>,
    last: i64,
    end: bool,
}

/// Goes through the log from its oldest row, a chunk at a time: readers look, the writer only deletes.
/// Ids from outside that were met before `ids` go with their events.
async fn pass(log: &Log, until: Until, kind: Kind, dead: Duration, ids: i64) -> Result<u64, LogError> {
    let mut removed = 0;
    let mut after = 0;
    loop {
        if let Until::Fits(bytes) = until
            && live_bytes(log).await? <= bytes
        {
            return Ok(removed);
        }
        let found = log
            .read(move |connection| Ok::<_, LogError>(look(connection, after, until, kind, micros_ago(dead))?))
            .await?;
        let Found { may_go, last, end } = found;
        after = last;
        if !may_go.is_empty() {
            removed += may_go.len() as u64;
            log.write(move |tx| Ok::<_, LogError>(remove(tx, &may_go, ids)?)).await?;
        }
        if end {
            return Ok(removed);
        }
    }
}

/// Rows arrive in the order of time, so the first one that is too young ends the pass. What has ended stays ended:
/// what is found here may still go when the writer gets to it, unless a replay made a delivery of it meanwhile, or
/// another one came to wait for it.
fn look(connection: &Connection, after: i64, until: Until, kind: Kind, dead: i64) -> rusqlite::Result<Found> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT e.seq, e.received, coalesce(min(d.status), 10) >= 10, coalesce(max(d.publication), 1) = 0, \
         coalesce(max({IS_GIVEN_UP} AND d.ended > ?2 OR {HOLDS_UP}), 0) \
         FROM (SELECT seq, received FROM event WHERE seq > ?1 ORDER BY seq LIMIT ?3) e \
         LEFT JOIN delivery d ON d.event = e.seq GROUP BY e.seq ORDER BY e.seq"
    ))?;
    let now = micros_ago(Duration::ZERO);
    let mut rows = statement.query(params![after, dead, CHUNK as i64])?;
    let mut found = Found { may_go: Vec::new(), last: after, end: true };
    let mut seen = 0;
    while let Some(row) = rows.next()? {
        let received: i64 = row.get(1)?;
        let young = matches!(until, Until::Older(before) if received >= before);
        if young && received <= now {
            return Ok(found);
        }
        seen += 1;
        found.last = row.get(0)?;
        if young {
            // the clock was ahead when it came: what came after it may be older
            continue;
        }
        let (ended, synchronous, dead): (bool, bool, bool) = (row.get(2)?, row.get(3)?, row.get(4)?);
        if ended && !dead && (kind == Kind::Any || synchronous) {
            found.may_go.push(found.last);
        }
    }
    found.end = seen < CHUNK;
    Ok(found)
}

fn remove(tx: &Tx<'_>, events: &[i64], ids: i64) -> rusqlite::Result<()> {
    let mut open = tx.prepare_cached(&format!(
        "SELECT EXISTS (SELECT 1 FROM delivery d WHERE d.event = ?1 AND (d.status < 10 OR {HOLDS_UP}))"
    ))?;
    let mut attempts = tx.prepare_cached(
        "DELETE FROM attempt WHERE id IN (SELECT a.id FROM delivery d JOIN attempt a \
         ON a.id BETWEEN (d.seq << 12) AND (d.seq << 12 | 4095) WHERE d.event = ?1)",
    )?;
    let mut runs =
        tx.prepare_cached("DELETE FROM run WHERE delivery IN (SELECT seq FROM delivery WHERE event = ?1)")?;
    let mut deliveries = tx.prepare_cached("DELETE FROM delivery WHERE event = ?1")?;
    let mut seen = tx.prepare_cached(
        "DELETE FROM seen WHERE (id, scope) = (SELECT id, source FROM event WHERE seq = ?1 AND typeof(id) = 'text') \
         AND at < ?2",
    )?;
    let mut rows = tx.prepare_cached("DELETE FROM event WHERE seq = ?1")?;
    for event in events {
        if open.query_row([event], |row| row.get(0))? {
            continue;
        }
        attempts.execute([event])?;
        runs.execute([event])?;
        deliveries.execute([event])?;
        seen.execute([*event, ids])?;
        rows.execute([event])?;
    }
    Ok(())
}

async fn live_bytes(log: &Log) -> Result<u64, LogError> {
    log.read(|connection| Ok::<_, LogError>(bound::live_bytes(connection)?)).await
}

fn micros_ago(age: Duration) -> i64 {
    ambient::now().timestamp_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
