//! The instances of what serves of one function on this node, or of another version of it: who is idle, who is waited for, who is started.
//!
//! Whoever invokes drives its instance; the pool only holds the idle ones, the queue and the counts, under one lock
//! that is never held across a wait. A released instance goes to the first who waits. One task per pool, the keeper,
//! sleeps until an idle instance is due to end or any instance dies; it holds the pool weakly.
//!
//! A new version changes what is started from then on: idle instances of the old one end at once, busy ones when
//! their invocation has ended.

mod ahead;
mod counts;
mod keeper;
mod room;
mod stay;

pub(crate) use counts::Counts;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bus::{Name, Outcome};
use tokio::{
    sync::{Notify, oneshot},
    time,
};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::{
    budget::Budget,
    config::{FunctionConfig, KeepAlive, RuntimeKind},
    deploy::Orders,
    fault::Lack,
    ground::Ground,
    instance::{Instance, NoInstance},
    lease::{Lease, LeaseError},
    lock,
    process::Group,
    slots::{Admission, Backoff, Pace, Slots},
    version::Version,
};

/// An instance that was idle for so long has come to rest: it is measured, and stopped.
const REST: Duration = Duration::from_secs(1);
pub(crate) struct Pool {
    name: Name,
    ground: Arc<Ground>,
    /// Asked for a version when there is none.
    orders: Arc<Orders>,
    pub(crate) counts: Counts,
    state: Mutex<Pooled>,
    /// Tells the keeper that there is something new to watch or to start.
    wake: Arc<Notify>,
    /// Ends with the pool.
    _keeper: AbortOnDropHandle<()>,
}

struct Pooled {
    /// What new instances are started from; none until the first version works.
    version: Option<Arc<Version>>,
    limits: Limits,
    stay: stay::Stay,
    /// How long invocations took lately.
    run: Option<Duration>,
    /// Calls since there was no instance.
    calls: u64,
    expected: Option<ahead::Expected>,
    /// The keeper looks when the next idle one has come to rest, and when who waits has waited for too long.
    watches_idle: bool,
    watches_queue: bool,
    /// Oldest first; the last one is handed out first, so that the others get old.
    idle: Vec<Idle>,
    busy: usize,
    starting: usize,
    waiters: VecDeque<Waiter>,
    next_waiter: u64,
    /// Every live instance, so that the keeper hears of its end, and a shutdown reaches it.
    groups: Vec<Arc<Group>>,
    backoff: Backoff,
    /// Waits for room on this machine: until then nothing is started.
    lack: Backoff,
    /// The function is no more, or the node ends.
    closed: bool,
}

struct Idle {
    instance: Instance,
    since: Instant,
    /// It came to rest, was measured and stopped.
    has_settled: bool,
    /// The budget's clock when it became idle.
    clock: f64,
}

struct Waiter {
    id: u64,
    since: Instant,
    tell: oneshot::Sender<Result<Lease, LeaseError>>,
}

/// What can change while instances live.
#[derive(Debug, Clone, Copy)]
struct Limits {
    concurrency: u32,
    warm: u32,
    keep_alive: KeepAlive,
    timeout: Duration,
    freeze: bool,
    /// Whether there is anything to keep between invocations.
    keeps: bool,
}

impl Limits {
    fn of(config: &FunctionConfig) -> Self {
        let &FunctionConfig { concurrency, keep_alive, timeout, freeze, .. } = config;
        // where each invocation has a process of its own there is nothing to keep, and nothing to start ahead
        let keeps = !matches!(config.runtime, RuntimeKind::Command | RuntimeKind::Wasm);
        let (warm, keep_alive) = match config.runtime {
            RuntimeKind::Command => (0, KeepAlive::For(Duration::ZERO)),
            RuntimeKind::Wasm => (0, keep_alive),
            _ => (config.warm, keep_alive),
        };
        Self { concurrency, warm, keep_alive, timeout, freeze, keeps }
    }
}

impl Pooled {
    fn slots(&self) -> Slots {
        let expects = self.expected.is_some_and(|expected| expected.from <= Instant::now());
        Slots {
            idle: self.idle.len(),
            busy: self.busy,
            starting: self.starting,
            waiting: self.waiters.len(),
            concurrency: self.limits.concurrency as usize,
            warm: self.limits.warm.max(u32::from(expects)) as usize,
            pace: self.run.zip(self.stay.start()).map(|(run, start)| Pace { run, start }),
            waited: self.waiters.front().map_or(Duration::ZERO, |first| first.since.elapsed()),
        }
    }

    /// Somebody calls: what was expected has come.
    fn called(&mut self, now: Instant) {
        self.calls += 1;
        self.stay.called(now);
        self.expected = self.expected.filter(|expected| expected.from > now);
    }

    /// An invocation took so long.
    fn ran(&mut self, took: Option<Duration>) {
        let Some(took) = took else { return };
        self.run = Some(self.run.map_or(took, |known| (known * 4 + took) / 5));
    }

    /// What the idle one is worth that has been idle for longest; none when it may not end.
    fn worth(&self) -> Option<f64> {
        let slots = self.slots();
        let first = self.idle.first().filter(|_| slots.expendable() > 0)?;
        Some(first.clock + self.calls as f64 * self.stay.worth() / slots.total() as f64)
    }

    /// Stops those that have come to rest, so that nothing that goes on in them takes a core, and gives them to be measured.
    fn settle(&mut self, now: Instant) -> (Vec<Arc<Group>>, Option<Instant>) {
        let mut settled = Vec::new();
        for idle in self.idle.iter_mut().filter(|idle| !idle.has_settled && idle.since + REST <= now) {
            idle.has_settled = true;
            if let Some(group) = idle.instance.group() {
                if self.limits.freeze {
                    group.freeze();
                }
                settled.push(group.clone());
            }
        }
        let next = self.idle.iter().filter(|idle| !idle.has_settled).map(|idle| idle.since + REST).min();
        self.watches_idle = next.is_some();
        (settled, next)
    }

    /// After something ended: when nothing runs any more, how long what is idle stays. Whether the keeper is to look.
    fn rest(&mut self, now: Instant, budget: &Budget) -> bool {
        self.busy == 0
            && self.waiters.is_empty()
            && self.stay.rested(now, || budget.price(now))
            && self.slots().expendable() > 0
    }

    /// Whether an instance may go on serving.
    fn serves(&self, instance: &Instance) -> bool {
        let current = self.version.as_ref().is_some_and(|v| Arc::ptr_eq(v, &instance.version));
        current && !self.closed && self.slots().total() < self.limits.concurrency as usize
    }
}

impl Pool {
    pub(crate) fn new(name: Name, ground: Arc<Ground>, orders: Arc<Orders>, config: &FunctionConfig) -> Arc<Self> {
        let wake = Arc::new(Notify::new());
        let (limits, prices) = (Limits::of(config), ground.settings.prices);
        let pool = Arc::new_cyclic(|pool| Self {
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper::keep(pool.clone(), wake.clone()))),
            name,
            ground,
            orders,
            counts: Counts::default(),
            state: Mutex::new(Pooled {
                version: None,
                stay: stay::Stay::new(limits.keep_alive, prices),
                run: None,
                calls: 0,
                expected: None,
                watches_idle: false,
                watches_queue: false,
                limits,
                idle: Vec::new(),
                busy: 0,
                starting: 0,
                waiters: VecDeque::new(),
                next_waiter: 0,
                groups: Vec::new(),
                backoff: Backoff::default(),
                lack: Backoff::default(),
                closed: false,
            }),
            wake,
        });
        pool.ground.joined(&Arc::downgrade(&pool));
        pool
    }

    pub(crate) fn timeout(&self) -> Duration {
        lock(&self.state).limits.timeout
    }

    pub(crate) fn concurrency(&self) -> u32 {
        lock(&self.state).limits.concurrency
    }

    pub(crate) fn slots(&self) -> Slots {
        lock(&self.state).slots()
    }

    pub(crate) fn version(&self) -> Option<Arc<Version>> {
        lock(&self.state).version.clone()
    }

    /// An instance to run one invocation on, at most after this long if all are busy. One that is being started is
    /// waited for.
    pub(crate) async fn lease(self: &Arc<Self>, wait: Duration) -> Result<Lease, LeaseError> {
        let asked = Instant::now();
        let (place, told) = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(LeaseError::Unknown(self.name.clone()));
            }
            state.called(asked);
            loop {
                match state.slots().admit() {
                    Admission::Refuse => return Err(LeaseError::Stopped),
                    Admission::HandOut => {
                        let Some(Idle { mut instance, .. }) = state.idle.pop() else { continue };
                        // one that died is dropped, and the next is looked at
                        if instance.is_alive() {
                            state.busy += 1;
                            drop(state);
                            if let Some(group) = instance.group() {
                                group.thaw();
                            }
                            self.counts.used(&mut instance);
                            return Ok(Lease::new(self.clone(), instance, false).asked(asked));
                        }
                    }
                    Admission::Wait => break,
                }
            }
            let (tell, told) = oneshot::channel();
            let id = state.next_waiter;
            state.next_waiter += 1;
            state.waiters.push_back(Waiter { id, tell, since: asked });
            if state.version.is_none() {
                // asked for after taking the place, so that the answer finds it
                self.orders.urge(&self.name);
            }
            self.start_wanted(&mut state);
            if state.slots().held_back().is_some() && !std::mem::replace(&mut state.watches_queue, true) {
                self.wake.notify_one();
            }
            (Place { pool: self, id }, told)
        };
        place.wait(told, wait).await.map(|lease| lease.asked(asked))
    }

    /// Starts what is waited for, as far as the limits go.
    fn start_wanted(self: &Arc<Self>, state: &mut Pooled) {
        let Some(version) = state.version.clone().filter(|_| !state.closed) else { return };
        while state.lack.until(Instant::now()).is_none() {
            let slots = state.slots();
            let waited_for = slots.starts_for_waiting();
            let warm = slots.starts_for_warmth() && state.backoff.until(Instant::now()).is_none();
            if !waited_for && !warm {
                break;
            }
            let ahead = !waited_for && slots.total() >= state.limits.warm as usize;
            self.start_one(state, version.clone(), ahead);
        }
    }

    /// There is no room for another instance now: whoever waits goes on waiting, and a start is tried again then.
    pub(crate) fn lacks(&self, lack: &Lack) -> Instant {
        let (mut state, now) = (lock(&self.state), Instant::now());
        // those that were started together fail together
        let first = state.lack.until(now).is_none();
        // of a limit that was chosen nothing has to be said twice
        let news = first && (!lack.is_limit || state.lack.has_worked());
        if first {
            state.lack.failed(now);
        }
        let again = state.lack.until(now).unwrap_or(now);
        drop(state);
        if news {
            let wait = (again - now).as_millis();
            warn!(
                function.name = %self.name,
                "there is no room for another instance of `{}`: {lack}; trying again in {wait} ms", self.name
            );
        }
        self.wake.notify_one();
        again
    }

    fn start_one(self: &Arc<Self>, state: &mut Pooled, version: Arc<Version>, ahead: bool) {
        state.starting += 1;
        tokio::spawn(start(Starting { pool: Some(self.clone()), ahead }, version, state.limits.timeout));
    }

    /// A pool for a version that was in service before.
    pub(crate) fn of(
        name: Name,
        ground: Arc<Ground>,
        orders: Arc<Orders>,
        config: &FunctionConfig,
        version: Arc<Version>,
    ) -> Arc<Self> {
        let pool = Self::new(name, ground, orders, config);
        lock(&pool.state).version = Some(version);
        pool
    }

    /// Takes a version into service, with the instance that showed that it works.
    pub(crate) fn install(self: &Arc<Self>, version: Arc<Version>, instance: Instance) {
        let old = {
            let mut state = lock(&self.state);
            if let Some(old) = state.version.as_ref().filter(|old| old.id != version.id) {
                self.ground.zygotes.end_one(&self.name, &old.id);
            }
            state.version = Some(version);
            state.backoff.worked();
            std::mem::take(&mut state.idle)
        };
        drop(old);
        self.give(instance, From::Deploy);
        self.ground.trim();
    }

    /// Tells everybody who waits for the first version that there is none.
    pub(crate) fn fail_waiting(&self, outcome: &Outcome) {
        let waiters = std::mem::take(&mut lock(&self.state).waiters);
        for waiter in waiters {
            let _ = waiter.tell.send(Err(LeaseError::Init(Box::new(outcome.clone()))));
        }
    }

    /// Gives an instance to the first who waits, else keeps it as idle, if it may still serve.
    fn give(self: &Arc<Self>, mut instance: Instance, from: From) {
        if from == From::Busy {
            instance.pay();
        }
        let budget = &self.ground.budget;
        let mut state = lock(&self.state);
        state.ran(instance.ran.take());
        match from {
            From::Busy => state.busy -= 1,
            From::Start => state.starting -= 1,
            From::Deploy => {}
        }
        if from != From::Busy {
            state.lack.worked();
            state.stay.started(instance.birth.start + instance.birth.init);
            if let Some(group) = instance.group() {
                group.counts(budget, state.stay.size());
            }
        }
        if from == From::Busy {
            state.backoff.worked();
        } else if !state.closed {
            state.groups.extend(instance.group().cloned());
            self.wake.notify_one();
        }
        // a function that has none goes before one that has several
        let yields = from == From::Busy && instance.keeps() && budget.starves() && state.slots().total() > 0;
        loop {
            if yields || !state.serves(&instance) {
                if yields {
                    state.lack.failed(Instant::now());
                    self.wake.notify_one();
                }
                self.start_wanted(&mut state);
                state.rest(Instant::now(), budget);
                drop(state);
                return drop(instance);
            }
            let Some(waiter) = state.waiters.pop_front() else {
                if instance.stays() {
                    instance.pay();
                    let since = Instant::now();
                    state.idle.push(Idle { instance, since, has_settled: false, clock: budget.clock() });
                    let watches = std::mem::replace(&mut state.watches_idle, true);
                    let rests = from == From::Busy && state.rest(since, budget);
                    if rests || from == From::Busy && !watches {
                        self.wake.notify_one();
                    }
                    drop(state);
                    budget.rested();
                }
                return;
            };
            state.busy += 1;
            self.counts.used(&mut instance);
            // a lease that is not taken comes back to the pool: never under its lock
            drop(state);
            let cold = from != From::Busy && instance.keeps();
            match waiter.tell.send(Ok(Lease::new(self.clone(), instance, cold))) {
                Ok(()) => return self.counts.handed_out(cold),
                // who waited has just gone: the next
                Err(Ok(lease)) => match lease.refused() {
                    Some(back) => instance = back,
                    None => return,
                },
                Err(Err(_)) => return,
            }
            state = lock(&self.state);
            state.busy -= 1;
        }
    }

    /// An instance comes back in good health.
    pub(crate) fn release(self: &Arc<Self>, instance: Instance) {
        self.give(instance, From::Busy);
    }

    /// An instance comes back that cannot be used any more: it is killed, and replaced if somebody waits or it was the
    /// last. Only once: when the replacement does not start, the next who asks tries again.
    pub(crate) fn ended(self: &Arc<Self>, mut instance: Instance) {
        instance.pay();
        let kept = instance.keeps();
        let ran = instance.ran.take();
        drop(instance);
        let mut state = lock(&self.state);
        state.busy -= 1;
        state.ran(ran);
        self.start_wanted(&mut state);
        state.rest(Instant::now(), &self.ground.budget);
        let lost = kept && !state.closed && state.slots().starts_first();
        let now = Instant::now();
        if lost
            && state.backoff.until(now).is_none()
            && state.lack.until(now).is_none()
            && let Some(version) = state.version.clone()
        {
            self.start_one(&mut state, version, false);
        }
    }

    /// Other limits, for instances that live on.
    pub(crate) fn limit(self: &Arc<Self>, config: &FunctionConfig) {
        let (ended, stopped) = {
            let mut state = lock(&self.state);
            state.limits = Limits::of(config);
            let keep = state.limits.keep_alive;
            state.stay.keep(keep);
            for idle in &mut state.idle {
                // if they are to rest, they do so again
                idle.has_settled = false;
                if let Some(group) = idle.instance.group() {
                    group.thaw();
                }
            }
            let surplus = state.slots().surplus();
            let ended: Vec<Idle> = state.idle.drain(..surplus).collect();
            let stopped = if config.concurrency == 0 { std::mem::take(&mut state.waiters) } else { VecDeque::new() };
            self.start_wanted(&mut state);
            (ended, stopped)
        };
        drop(ended);
        for waiter in stopped {
            let _ = waiter.tell.send(Err(LeaseError::Stopped));
        }
        self.wake.notify_one();
    }

    /// Ends the pool: nobody is served any more, idle instances are killed, busy ones end when they are done.
    pub(crate) fn close(&self) {
        let (idle, waiters) = {
            let mut state = lock(&self.state);
            state.closed = true;
            if let Some(version) = &state.version {
                self.ground.zygotes.end_one(&self.name, &version.id);
            }
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.waiters))
        };
        drop(idle);
        for waiter in waiters {
            let _ = waiter.tell.send(Err(LeaseError::Unknown(self.name.clone())));
        }
    }

    /// Serves nobody any more, and gives all that live, to be ended with grace before [`Pool::close`].
    pub(crate) fn stop(&self) -> Vec<Arc<Group>> {
        let mut state = lock(&self.state);
        state.closed = true;
        state.groups.clone()
    }
}

/// A place in the queue; given up when it is dropped.
struct Place<'a> {
    pool: &'a Pool,
    id: u64,
}

impl Place<'_> {
    async fn wait(
        &self,
        mut told: oneshot::Receiver<Result<Lease, LeaseError>>,
        wait: Duration,
    ) -> Result<Lease, LeaseError> {
        loop {
            match time::timeout(wait, &mut told).await {
                Ok(Ok(answer)) => return answer,
                Ok(Err(_)) => return Err(LeaseError::Busy),
                // slow to load is not busy: a start ends by its own limit, and tells
                Err(_) if self.is_being_started_for() => {}
                Err(_) => {
                    // from here on nothing can be sent; what was sent before is taken
                    told.close();
                    return told.try_recv().unwrap_or(Err(LeaseError::Busy));
                }
            }
        }
    }

    /// Whether an instance for this place is under way: a start for everybody before it and for itself, or the first
    /// deploy, which serves or tells all who wait.
    fn is_being_started_for(&self) -> bool {
        let state = lock(&self.pool.state);
        let before = state.waiters.iter().position(|w| w.id == self.id);
        let lacks = state.lack.until(Instant::now()).is_some();
        let deploys = state.version.is_none() && !lacks;
        !state.closed && before.is_some_and(|before| deploys || before < state.starting)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.pool.state);
        if let Some(at) = state.waiters.iter().position(|w| w.id == self.id) {
            state.waiters.remove(at);
        }
    }
}

/// Where an instance comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Busy,
    Start,
    Deploy,
}

/// A start that is under way, counted as long as this lives.
struct Starting {
    pool: Option<Arc<Pool>>,
    /// Nobody has called.
    ahead: bool,
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            lock(&pool.state).starting -= 1;
        }
    }
}

async fn start(mut starting: Starting, version: Arc<Version>, timeout: Duration) {
    let Some(pool) = starting.pool.clone() else { return };
    let size = lock(&pool.state).stay.size();
    // until the instance itself is counted
    let _room = match version.runtime {
        // there is no process but for an invocation
        RuntimeKind::Command => None,
        _ => match pool.ground.make_room(size) {
            Ok(room) => Some(room),
            Err(lack) => {
                drop(starting);
                return pool.wait_for_room(&lack).await;
            }
        },
    };
    let started = Instance::start(&pool.ground, &pool.name, version, timeout).await;
    let failed = match started {
        Ok(mut instance) => {
            instance.is_ahead = starting.ahead;
            pool.counts.started(starting.ahead);
            // from now on counted as what it becomes
            starting.pool = None;
            return pool.give(instance, From::Start);
        }
        Err(NoInstance::Lack(lack)) => {
            drop(starting);
            pool.lacks(&lack);
            return;
        }
        Err(NoInstance::Init(failed)) => failed,
    };
    drop(starting);
    if let Some(fault) = &failed.fault {
        warn!(function.name = %pool.name, "`{}` could not be started: {}", pool.name, fault.message);
        pool.counts.failed(fault);
    }
    let first = {
        let mut state = lock(&pool.state);
        state.backoff.failed(Instant::now());
        state.waiters.pop_front()
    };
    if let Some(waiter) = first {
        let _ = waiter.tell.send(Err(LeaseError::Init(failed)));
    }
    pool.start_wanted(&mut lock(&pool.state));
    pool.wake.notify_one();
}
