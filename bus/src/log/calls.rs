//! Synchronous calls in the log. Nobody waits for them: they gather in memory, bounded, and are written in bulk a
//! moment later. When the log cannot keep up or has no room they are dropped and counted; deliveries never are.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rusqlite::params;
use tokio::sync::Notify;

use super::{
    LogError, Status, Tx, attempt,
    bound::Bound,
    delivery::{self, Current, Placed, Rules},
    event::{self, Prepared},
    follow,
    writer::Writer,
};
use crate::{ambient, id::Born, name::Name, outcome::Outcome, payload::Format, target::Target};

/// Calls waiting at most.
const WAITING: usize = 8192;
/// So many are written without waiting for more.
const BATCH: usize = 512;
/// How long a lone call waits for company.
const LINGER: Duration = Duration::from_millis(100);

/// One finished synchronous call.
#[derive(Debug)]
pub struct CallRecord {
    pub event: Prepared,
    pub target: Target,
    pub format: Format,
    pub node: Arc<str>,
    pub outcome: Outcome,
}

/// The book of calls; clones share it.
#[derive(Clone)]
pub struct CallLog {
    book: Arc<Book>,
}

struct Book {
    writer: Writer,
    bound: Bound,
    waiting: Mutex<Vec<CallRecord>>,
    /// Held while calls are written, so that a flush also waits for what another one took before it.
    writing: tokio::sync::Mutex<()>,
    full: Notify,
    dropped: AtomicU64,
}

impl CallLog {
    pub(super) fn new(writer: Writer, bound: Bound) -> Self {
        Self {
            book: Arc::new(Book {
                writer,
                bound,
                waiting: Mutex::default(),
                writing: tokio::sync::Mutex::default(),
                full: Notify::new(),
                dropped: AtomicU64::new(0),
            }),
        }
    }

    /// Notes a call. Returns at once.
    pub fn note(&self, call: CallRecord) {
        let waiting = {
            let mut waiting = self.book.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= WAITING || self.book.bound.reached().is_some() {
                self.book.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.push(call);
            waiting.len()
        };
        match waiting {
            1 => {
                let log = self.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(LINGER, log.book.full.notified()).await;
                    log.flush().await;
                });
            }
            BATCH => self.book.full.notify_one(),
            _ => {}
        }
    }

    /// How many calls were dropped because the log lagged or was full.
    pub fn dropped(&self) -> u64 {
        self.book.dropped.load(Ordering::Relaxed)
    }

    /// Writes what is waiting; returns when everything noted before can be read.
    pub async fn flush(&self) {
        let _writing = self.book.writing.lock().await;
        let calls = std::mem::take(&mut *self.book.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if calls.is_empty() {
            return;
        }
        let count = calls.len() as u64;
        let written = self
            .book
            .writer
            .write(move |tx| Ok::<_, LogError>(calls.iter().try_for_each(|c| insert(tx, c).map(|_| ()))?), |()| ());
        if let Err(error) = written.await {
            self.book.dropped.fetch_add(count, Ordering::Relaxed);
            tracing::warn!(%error, calls = count, "synchronous calls could not be logged");
        }
    }
}

/// Writes a call that ended well, and what follows from its output.
pub(crate) fn insert_chained(tx: &Tx<'_>, call: &CallRecord, by: &Rules<'_>) -> rusqlite::Result<Vec<Placed>> {
    let row = insert(tx, call)?;
    match Current::read(tx, row)? {
        Some(current) => follow::place_outputs(tx, &call.event, &current, &call.outcome, by),
        None => Ok(Vec::new()),
    }
}

/// Writes a call; its delivery's row.
fn insert(tx: &Tx<'_>, call: &CallRecord) -> rusqlite::Result<i64> {
    let event = event::insert_row(tx, &call.event)?;
    let status = if call.outcome.fault.is_none() { Status::Done } else { Status::Dead };
    let ended = ambient::now().timestamp_micros();
    tx.prepare_cached(
        "INSERT INTO delivery (born, event, target, trigger, format, generation, publication, status, reason, \
         attempts, ended) VALUES (?1, ?2, ?3, ?4, ?5, 0, 0, ?6, ?7, 1, ?8)",
    )?
    .execute(params![
        Born::now().0,
        event,
        call.target.to_string(),
        call.event.trigger.as_ref().map(Name::as_str),
        delivery::format_number(call.format),
        status,
        (status == Status::Dead).then_some("synchronous"),
        ended,
    ])?;
    let row = tx.last_insert_rowid();
    attempt::insert_closed(tx, attempt::attempt_row(row, 1), &call.node, &call.outcome)?;
    Ok(row)
}
