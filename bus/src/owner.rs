//! The owner of what this node accepted: every decision about an event and its deliveries is made here, and nowhere
//! else. The log remembers ([`crate::log`]), the window allows ([`crate::window`]), the relay carries.

// Attempts, from their beginning to what becomes of them.
mod attempts;
// What is taken in.
mod intake;

pub use attempts::Claim;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Notify, oneshot};

use crate::{
    ambient,
    catalog::Catalog,
    failpoint::{self, Failpoint},
    foresight::{Ahead, Foresight},
    id::RowId,
    log::{
        Log, LogError, Tx,
        backlog::{self, Due},
        delivery::{self, End, Ended, Place, Placed, Rules},
        run,
    },
    name::Name,
    outcome::Outcome,
    target::Target,
    window::{Limit, Window},
};

/// Deliveries of one function on their way beyond its slots, where others leave so much room: enough that a worker never
/// waits for the next.
const AHEAD: usize = 256;
/// Deliveries of one function that run at most, in batches.
const BATCHED: u32 = 1024;
/// Deliveries to one pipeline that are being made into runs at once.
const RUNS: usize = 256;

/// Of each target, the lowest deliveries that may have been running when the last node ended.
const SUSPECTS: usize = 64;

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
    namespace: Name,
    /// Up to which row deliveries may have been running when the last node ended.
    suspects: OnceLock<HashMap<Target, i64>>,
    /// Attempts that began and are not written yet.
    begun: Mutex<BTreeSet<RowId>>,
    /// Who waits for the end of a delivery: synchronous calls of pipelines.
    waiting: Mutex<HashMap<i64, oneshot::Sender<Outcome>>>,
    /// New deliveries that are open and wait for the relay.
    ready: Mutex<Vec<(Target, Due)>>,
    /// Retries: when the next one is due, as far as is known.
    next_due: Mutex<Option<DateTime<Utc>>>,
    /// Wakes the relay.
    wake: Notify,
    foresight: Foresight,
    /// Outcomes that came too late to count.
    late: AtomicU64,
    /// Events that came under the id of another one.
    conflicts: AtomicU64,
}

impl Inner {
    fn rules<'a>(&'a self, catalog: &'a Catalog) -> Rules<'a> {
        Rules { catalog, namespace: &self.namespace, node: &self.node }
    }
}

impl Owner {
    pub fn new(log: Log, node: Arc<str>, namespace: Name, catalog: Arc<ArcSwap<Catalog>>) -> Self {
        let owner = Self {
            inner: Arc::new(Inner {
                log,
                node,
                catalog,
                namespace,
                window: Mutex::default(),
                suspects: OnceLock::new(),
                begun: Mutex::default(),
                waiting: Mutex::default(),
                ready: Mutex::default(),
                next_due: Mutex::default(),
                wake: Notify::new(),
                foresight: Foresight::default(),
                late: AtomicU64::new(0),
                conflicts: AtomicU64::new(0),
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
        let inner = self.inner.clone();
        let ends = self.log().write(move |tx| {
            let catalog = inner.catalog.load();
            Ok::<_, LogError>(delivery::recover(tx, &inner.rules(&catalog))?)
        });
        let ends = ends.await?;
        let lost = ends.len();
        for end in ends {
            self.settle(end);
        }
        failpoint::reach(Failpoint::RecoverCommitted);
        let (backlog, due) =
            self.log().read(|c| Ok::<_, LogError>((backlog::lowest(c, SUSPECTS)?, delivery::next_due(c)?))).await?;
        let mut suspects = HashMap::new();
        for (target, last) in backlog {
            if let Ok(target) = target.parse::<Target>() {
                self.window().arrived(&target, 1);
                suspects.insert(target, last);
            }
        }
        let _ = self.inner.suspects.set(suspects);
        *self.next_due_lock() = due;
        self.wake();
        Ok(lost)
    }

    /// The catalog has changed: functions may run more, less or nothing now.
    pub fn reconfigured(&self) {
        let catalog = self.catalog();
        let functions = catalog.functions.iter().map(|(name, f)| {
            let batches = catalog.triggers.keys().filter_map(|trigger| catalog.batching(trigger, name));
            let size = batches.map(|batch| batch.size).max().unwrap_or(1);
            let running = f.concurrency.saturating_mul(size).min(BATCHED) as usize;
            (name.clone().into(), Limit { running, ahead: ambient::bound(AHEAD) })
        });
        let pipelines = catalog
            .pipelines
            .keys()
            .map(|name| (name.clone().into(), Limit { running: ambient::bound(RUNS), ahead: 0 }));
        let limits: HashMap<Target, Limit> = functions.chain(pipelines).collect();
        self.window().limits(&limits);
        self.wake();
    }

    /// Warns of what waits for functions and pipelines that are not in the config.
    pub async fn warn_of_stranded(&self) {
        let unended = match self.log().read(|c| Ok::<_, LogError>(backlog::unended(c)?)).await {
            Ok(unended) => unended,
            Err(error) => {
                tracing::warn!(%error, "what waits in the log could not be looked at");
                return;
            }
        };
        let catalog = self.catalog().clone();
        for (target, deliveries) in unended {
            let Ok(target) = target.parse::<Target>() else { continue };
            let Some(name) = target.name() else { continue };
            if !catalog.functions.contains_key(name) && !catalog.pipelines.contains_key(name) {
                tracing::warn!(
                    deliveries,
                    "`{name}` is not in the config and deliveries wait for it: they stay in the log and go on when it \
                     is there again (fnbus events --function {name})"
                );
            }
        }
    }

    /// How many events were refused because another one had their id and another body, since the start.
    pub fn conflicts(&self) -> u64 {
        self.inner.conflicts.load(Ordering::Relaxed)
    }

    /// How many outcomes came too late to count, since the start: their attempts had been taken for lost.
    pub fn late_outcomes(&self) -> u64 {
        self.inner.late.load(Ordering::Relaxed)
    }

    /// Wakes whoever carries them. What is new and comes at once need not be read from the log again.
    pub(crate) fn placed(&self, placed: Vec<Placed>) {
        let mut ready = Vec::new();
        {
            let mut window = self.window();
            for Placed { row, target, place, path } in placed {
                if path.len() > 1 {
                    self.inner.foresight.say(Ahead::Path(path));
                }
                match place {
                    Place::New(due) if window.offered(&target, &due) => ready.push((target, *due)),
                    Place::New(_) | Place::Last => window.arrived(&target, row),
                    Place::Freed => window.freed(&target, row),
                    Place::Held => {}
                }
            }
        }
        if !ready.is_empty() {
            lock(&self.inner.ready).append(&mut ready);
        }
        self.wake();
    }

    /// New deliveries that are open already, for whoever carries them.
    pub(crate) fn take_ready(&self) -> Vec<(Target, Due)> {
        std::mem::take(&mut *lock(&self.inner.ready))
    }

    /// What an end leads to goes on its way.
    fn settle(&self, End { ended, placed, run }: End) -> Ended {
        if let Ended::RetryAt(at) = ended {
            let mut next = self.next_due_lock();
            *next = Some(next.map_or(at, |known| known.min(at)));
        }
        if let Some((delivery, outcome)) = run {
            self.answer(delivery, outcome);
        }
        self.placed(placed);
        ended
    }

    /// Ends pending deliveries that are not to run, in their way, with what was to follow from them.
    pub(crate) async fn end_unrun(
        &self,
        target: &Target,
        rows: Vec<i64>,
        how: impl Fn(&Tx<'_>, i64, &Rules<'_>) -> rusqlite::Result<Option<End>> + Send + 'static,
    ) -> Result<(), LogError> {
        let (inner, owner, target, old) = (self.inner.clone(), self.clone(), target.clone(), rows.clone());
        let write = move |tx: &Tx<'_>| {
            let catalog = inner.catalog.load();
            let by = inner.rules(&catalog);
            let ends: Vec<Option<End>> = old.iter().map(|row| how(tx, *row, &by)).collect::<rusqlite::Result<_>>()?;
            Ok::<_, LogError>(ends)
        };
        let settle = move |ends: Vec<Option<End>>| {
            for row in rows {
                owner.window().gone(&target, row);
            }
            for end in ends.into_iter().flatten() {
                owner.settle(end);
            }
        };
        self.log().write_and(write, settle).await
    }

    /// Makes a pending delivery to a pipeline into a run.
    pub(crate) async fn start_run(&self, pipeline: &Name, due: Due) -> Result<(), LogError> {
        let target: Target = pipeline.clone().into();
        let machine = self.catalog().pipelines.get(pipeline).cloned();
        let Some(machine) = machine else {
            // Taken out of the config since this was loaded: it waits in the log, and not here.
            self.window().reload(&target, due.row);
            return Ok(());
        };
        let (inner, owner, name, row) = (self.inner.clone(), self.clone(), pipeline.clone(), due.row);
        let write = move |tx: &Tx<'_>| Ok::<_, LogError>(run::start(tx, &due, &name, &machine, &inner.node)?);
        let gone = target.clone();
        let settle = move |placed: Option<Vec<Placed>>| {
            owner.window().gone(&gone, row);
            owner.placed(placed.unwrap_or_default());
        };
        self.log().write_and(write, settle).await.inspect_err(|_| self.window().reload(&target, row))
    }

    fn answer(&self, delivery: i64, outcome: Outcome) {
        if let Some(waiting) = lock(&self.inner.waiting).remove(&delivery) {
            // A caller that went away does not want to know.
            let _ = waiting.send(outcome);
        }
    }

    /// Publishes deliveries again under another publication number: what is on its way becomes stale, and JetStream may
    /// still know the last one.
    pub(crate) async fn publish_anew(&self, deliveries: &[(Target, i64)]) -> Result<(), LogError> {
        let rows: Vec<i64> = deliveries.iter().map(|(_, row)| *row).collect();
        self.log().write(move |tx| Ok::<_, LogError>(delivery::publish_anew(tx, &rows)?)).await?;
        {
            let mut window = self.window();
            for (target, row) in deliveries {
                window.reload(target, *row);
            }
        }
        self.wake();
        Ok(())
    }

    /// How an event's data is fetched when its message goes without it.
    pub async fn data_of(&self, delivery: RowId) -> Result<Option<bytes::Bytes>, LogError> {
        let row = delivery.row();
        self.log().read(move |c| Ok::<_, LogError>(backlog::data(c, row)?.map(bytes::Bytes::from))).await
    }

    /// What is known to be called soon.
    pub fn foresight(&self) -> &Foresight {
        &self.inner.foresight
    }

    /// A trigger's next time: what it feeds is called then.
    pub fn foresee(&self, trigger: &Name, at: DateTime<Utc>) {
        let catalog = self.catalog();
        let Some(binding) = catalog.triggers.get(trigger) else { return };
        let first = |target: &Target| {
            let name = target.name()?;
            Some(match catalog.pipelines.get(name) {
                Some(machine) => machine.path(&machine.begin(), 0).remove(0),
                None => vec![name.clone()],
            })
        };
        let functions = binding.to.iter().filter_map(first).flatten().collect();
        self.inner.foresight.say(Ahead::At(at, functions));
    }

    pub(crate) fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.inner.window)
    }

    pub(crate) fn next_due(&self) -> Option<DateTime<Utc>> {
        *self.next_due_lock()
    }

    /// Makes due retries pending, and says whether there may be more.
    pub(crate) async fn take_due(&self, now: DateTime<Utc>, chunk: usize) -> Result<bool, LogError> {
        let owner = self.clone();
        let write = move |tx: &Tx<'_>| Ok::<_, LogError>((delivery::due(tx, now, chunk)?, delivery::next_due(tx)?));
        // in the order of the commits: a retry that was decided after this one is not forgotten
        let carry = move |(placed, next): (Vec<Placed>, Option<DateTime<Utc>>)| {
            if !placed.is_empty() {
                failpoint::reach(Failpoint::DueCommitted);
            }
            *owner.next_due_lock() = next;
            let more = placed.len() == chunk;
            owner.placed(placed);
            more
        };
        self.log().write_and(write, carry).await
    }

    /// The wall clock was set back: what waits for a time waits no longer for that.
    pub(crate) async fn clock_was_set_back(&self, by: TimeDelta) -> Result<(), LogError> {
        let owner = self.clone();
        let write = move |tx: &Tx<'_>| {
            delivery::retry_earlier(tx, by)?;
            Ok::<_, LogError>(delivery::next_due(tx)?)
        };
        // in the order of the commits, as in `take_due`
        self.log().write_and(write, move |next| *owner.next_due_lock() = next).await
    }

    pub(crate) fn wake(&self) {
        self.inner.wake.notify_one();
    }

    pub(crate) async fn woken(&self) {
        self.inner.wake.notified().await;
    }

    fn next_due_lock(&self) -> MutexGuard<'_, Option<DateTime<Utc>>> {
        lock(&self.inner.next_due)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
