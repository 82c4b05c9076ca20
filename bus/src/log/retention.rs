//! What may go, and when: a background task that deletes a little at a time, so that no writer waits long.
//!
//! Never touched: what is unended, and dead letters younger than [`DEAD_KEEP`]. Ids that came from outside outlive
//! their bodies: a late duplicate is still recognised.

use std::time::Duration;

use chrono::Utc;
use rusqlite::params;
use tokio_util::sync::CancellationToken;

use super::{Log, LogError, Tx};

/// Dead letters are kept this long, whatever `keep` says.
pub const DEAD_KEEP: Duration = Duration::from_hours(24 * 14);
const EVERY: Duration = Duration::from_mins(1);
const CHUNK: usize = 500;

/// `[log]`: how much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    pub age: Duration,
    pub bytes: u64,
}

/// Deletes what is over `keep` until shut down. `keep` is asked each round, so a reload applies.
pub async fn run(log: Log, keep: impl Fn() -> Keep + Send, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = sweep(&log, keep()).await {
            tracing::warn!(%error, "old events could not be removed from the log");
        }
    }
}

/// One round: everything over `keep` that may go.
pub async fn sweep(log: &Log, keep: Keep) -> Result<u64, LogError> {
    let mut removed = 0;
    let oldest = micros_ago(keep.age);
    loop {
        let gone = log.write(move |tx| Ok::<_, LogError>(remove(tx, oldest, "1")?)).await?;
        removed += gone;
        if gone < CHUNK as u64 {
            break;
        }
    }
    // Over the size, synchronous calls go first, then whatever ended longest ago.
    for kind in ["d.publication = 0", "1"] {
        while live_bytes(log).await? > keep.bytes {
            let gone = log.write(move |tx| Ok::<_, LogError>(remove(tx, i64::MAX, kind)?)).await?;
            removed += gone;
            if gone == 0 {
                break;
            }
        }
    }
    Ok(removed)
}

/// Deletes up to a chunk of the lowest ended events that were received before `before`.
fn remove(tx: &Tx<'_>, before: i64, kind: &str) -> rusqlite::Result<u64> {
    let sql = format!(
        "SELECT e.seq FROM event e LEFT JOIN delivery d ON d.event = e.seq WHERE e.received < ?1 \
         GROUP BY e.seq HAVING coalesce(min({kind}), 1) AND coalesce(min(d.status), 10) >= 10 \
         AND NOT coalesce(max(d.status = 11 AND d.publication > 0 AND d.ended > ?2), 0) ORDER BY e.seq LIMIT ?3"
    );
    let dead_after = micros_ago(DEAD_KEEP);
    let rows: Vec<i64> = tx
        .prepare_cached(&sql)?
        .query_map(params![before, dead_after, CHUNK as i64], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut attempts = tx.prepare_cached(
        "DELETE FROM attempt WHERE id IN (SELECT a.id FROM delivery d JOIN attempt a \
         ON a.id BETWEEN (d.seq << 12) AND (d.seq << 12 | 4095) WHERE d.event = ?1)",
    )?;
    let mut deliveries = tx.prepare_cached("DELETE FROM delivery WHERE event = ?1")?;
    let mut events = tx.prepare_cached("DELETE FROM event WHERE seq = ?1")?;
    for row in &rows {
        attempts.execute([row])?;
        deliveries.execute([row])?;
        events.execute([row])?;
    }
    Ok(rows.len() as u64)
}

/// Bytes in use: the file less its free pages, which are used again before it grows.
async fn live_bytes(log: &Log) -> Result<u64, LogError> {
    log.read(|connection| {
        let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        Ok((pages * pragma("page_size")?) as u64)
    })
    .await
}

fn micros_ago(age: Duration) -> i64 {
    Utc::now().timestamp_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX))
}
