//! The owner of what this node accepted: every decision about an event and its deliveries is made here, and nowhere
//! else. The log remembers ([`crate::log`]), the window allows ([`crate::window`]), the relay carries.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::{
    catalog::Catalog,
    event::Event,
    id::{Born, RowId},
    log::{
        Log, LogError, Status,
        delivery::{self, Due, Ended, Placed},
        event::{self as rows, Inserted},
        mark,
        query::QueryError,
        replay,
    },
    name::Name,
    outcome::Outcome,
    retry::RetryPolicy,
    sink::{AcceptError, Accepted, Mark},
    window::{Begin, Window},
};

/// Deliveries of one function on their way beyond its free slots: enough that a worker never waits for the next.
const AHEAD: usize = 64;

/// A handle to the decisions of this node; clones are cheap.
#[derive(Clone)]
pub struct Owner {
    inner: Arc<Inner>,
}

struct Inner {
    log: Log,
    node: Arc<str>,
    catalog: Arc<ArcSwap<Catalog>>,
    window: Mutex<Window>,
    /// Retries: when the next one is due, as far as is known.
    next_due: Mutex<Option<DateTime<Utc>>>,
    /// Wakes the relay.
    wake: Notify,
}

/// A worker's wish to run a delivery it holds a message for.
#[derive(Debug, Clone)]
pub struct Claim {
    pub function: Name,
    pub delivery: RowId,
    pub publication: u32,
}

impl Owner {
    pub fn new(log: Log, node: Arc<str>, catalog: Arc<ArcSwap<Catalog>>) -> Self {
        let owner = Self {
            inner: Arc::new(Inner {
                log,
                node,
                catalog,
                window: Mutex::default(),
                next_due: Mutex::default(),
                wake: Notify::new(),
            }),
        };
        owner.reconfigured();
        owner
    }

    pub fn log(&self) -> &Log {
        &self.inner.log
    }

    pub fn node(&self) -> &Arc<str> {
        &self.inner.node
    }

    pub fn catalog(&self) -> arc_swap::Guard<Arc<Catalog>> {
        self.inner.catalog.load()
    }

    /// Brings everything that is unended in the log back under way. Run once, before the relay.
    pub async fn recover(&self) -> Result<usize, LogError> {
        let lost = self.log().write(|tx| Ok::<_, LogError>(delivery::recover(tx)?)).await?;
        let (backlog, due) =
            self.log().read(|c| Ok::<_, LogError>((delivery::backlog(c)?, delivery::next_due(c)?))).await?;
        for (target, _) in &backlog {
            if let Ok(function) = target.parse::<Name>() {
                self.window().arrived(&function, 1);
            }
        }
        *self.next_due_lock() = due;
        self.wake();
        Ok(lost)
    }

    /// The catalog has changed: functions may run more, less or nothing now.
    pub fn reconfigured(&self) {
        let limit = |concurrency: u32| if concurrency == 0 { 0 } else { concurrency as usize + AHEAD };
        let limits: HashMap<Name, usize> =
            self.catalog().functions.iter().map(|(name, f)| (name.clone(), limit(f.concurrency))).collect();
        self.window().limits(&limits);
        self.wake();
    }

    /// Writes the event and its deliveries, and what its trigger remembers. When this returns they are on disk.
    pub async fn accept(&self, event: Event, marks: Vec<Mark>) -> Result<Accepted, AcceptError> {
        let matches = self.catalog().matches(&event);
        let id = event.id.clone();
        let count = matches.len();
        let placed = self.log().write(move |tx| -> Result<Option<Vec<Placed>>, AcceptError> {
            mark::write(tx, &marks)?;
            match rows::insert(tx, &event)? {
                Inserted::New(row) => Ok(Some(delivery::place(tx, row, &matches, Status::Pending)?)),
                Inserted::Duplicate => Ok(None),
            }
        });
        let Some(placed) = placed.await? else { return Ok(Accepted { id, deliveries: 0, duplicate: true }) };
        self.placed(&placed);
        Ok(Accepted { id, deliveries: count, duplicate: false })
    }

    /// Delivers logged events again.
    pub async fn replay(&self, request: replay::Request) -> Result<replay::Created, QueryError> {
        self.log().calls().flush().await;
        let (created, placed) = self.log().write(move |tx| replay::create(tx, &request)).await?;
        self.placed(&placed);
        Ok(created)
    }

    fn placed(&self, placed: &[Placed]) {
        {
            let mut window = self.window();
            for Placed { row, target } in placed {
                window.arrived(target, *row);
            }
        }
        self.wake();
    }

    /// Answers whether each delivery may run now, and as which attempt. The attempt is recorded behind the caller's
    /// back: a crash before it is on disk repeats the delivery, which it may.
    pub async fn begin(&self, claims: &[Claim]) -> Result<Vec<Begin>, LogError> {
        let mut answers = Vec::with_capacity(claims.len());
        for claim in claims {
            let mut answer = self.begin_known(claim);
            if answer == Begin::Unknown {
                answer = self.begin_unknown(claim).await?;
            }
            if let Begin::Run { attempt, .. } = answer {
                let node = self.inner.node.clone();
                self.log().post(move |tx| Ok(delivery::begin(tx, attempt, &node)?));
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    fn begin_known(&self, claim: &Claim) -> Begin {
        self.window().begin(&claim.function, claim.delivery, claim.publication, Born::now(), Instant::now())
    }

    /// A message from before a restart, or from outside the window: the log says whether it is still wanted.
    async fn begin_unknown(&self, claim: &Claim) -> Result<Begin, LogError> {
        let row = claim.delivery.row();
        let due: Option<Due> = self.log().write(move |tx| Ok::<_, LogError>(delivery::pending_row(tx, row)?)).await?;
        let Some(due) = due.filter(|due| due.id == claim.delivery && due.publication == claim.publication) else {
            return Ok(Begin::Stale);
        };
        self.window().adopt(&claim.function, &due, Instant::now());
        Ok(self.begin_known(claim))
    }

    /// Records an outcome and everything that follows from it. Returns when it is on disk.
    pub async fn end(&self, function: &Name, attempt: RowId, outcome: Outcome) -> Result<Ended, LogError> {
        let (row, _) = delivery::delivery_of(attempt.row());
        if !self.window().is_current(function, row, attempt, Instant::now()) {
            return Ok(Ended::Stale);
        }
        let policy = self.policy(function);
        let node = self.inner.node.clone();
        let ended = self
            .log()
            .write(move |tx| Ok::<_, LogError>(delivery::end(tx, attempt, &node, &outcome, &policy, dice(attempt))?))
            .await?;
        self.window().ended(function, row);
        if let Ended::RetryAt(at) = ended {
            let mut next = self.next_due_lock();
            *next = Some(next.map_or(at, |known| known.min(at)));
        }
        self.wake();
        Ok(ended)
    }

    /// The worker still runs these attempts.
    pub fn renew(&self, function: &Name, attempt: RowId) {
        let (row, _) = delivery::delivery_of(attempt.row());
        self.window().is_current(function, row, attempt, Instant::now());
    }

    /// A worker cannot run this delivery now (its function was stopped or removed): it goes back to the log and is
    /// published anew when it may run.
    pub async fn give_back(&self, claim: &Claim) -> Result<(), LogError> {
        let row = claim.delivery.row();
        self.log().write(move |tx| Ok::<_, LogError>(delivery::publish_anew(tx, &[row])?)).await?;
        self.window().reload(&claim.function, row);
        self.wake();
        Ok(())
    }

    /// How an event's data is fetched when its message goes without it.
    pub async fn data_of(&self, delivery: RowId) -> Result<Option<bytes::Bytes>, LogError> {
        let row = delivery.row();
        self.log().read(move |c| Ok::<_, LogError>(delivery::data(c, row)?.map(bytes::Bytes::from))).await
    }

    pub(crate) fn policy(&self, function: &Name) -> RetryPolicy {
        self.catalog().functions.get(function).map(|f| f.retry).unwrap_or_default()
    }

    pub(crate) fn window(&self) -> MutexGuard<'_, Window> {
        self.inner.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_due(&self) -> Option<DateTime<Utc>> {
        *self.next_due_lock()
    }

    /// Makes due retries pending, and says whether there may be more.
    pub(crate) async fn take_due(&self, now: DateTime<Utc>, chunk: usize) -> Result<bool, LogError> {
        let (placed, next) = self
            .log()
            .write(move |tx| Ok::<_, LogError>((delivery::due(tx, now, chunk)?, delivery::next_due(tx)?)))
            .await?;
        *self.next_due_lock() = next;
        let more = placed.len() == chunk;
        let mut window = self.window();
        for Placed { row, target } in &placed {
            window.arrived(target, *row);
        }
        Ok(more)
    }

    pub(crate) fn wake(&self) {
        self.inner.wake.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.inner.wake.notified().await;
    }

    fn next_due_lock(&self) -> MutexGuard<'_, Option<DateTime<Utc>>> {
        self.inner.next_due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number in 0..1 that differs from attempt to attempt.
fn dice(attempt: RowId) -> f64 {
    (attempt.born().0 & 0x0fff) as f64 / 4096.0
}
