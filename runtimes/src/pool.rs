//! The instances of what serves of one function on this node, or of another version of it: who is idle, who is waited for,
//! who is started.
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
mod occupancy;
mod queue;
mod replacement;
mod room;
mod starting;
mod stay;

pub(crate) use counts::Counts;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bus::{Name, Outcome};
use tokio::sync::{Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

use queue::{Place, Waiter};

use crate::{
    budget::Budget,
    config::{FunctionConfig, KeepAlive, RuntimeKind},
    deploy::Orders,
    ground::Ground,
    instance::Instance,
    lease::{Lease, LeaseError},
    lock,
    process::Group,
    slots::{Admission, Backoff, Pace, Slots},
    version::Version,
};

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
    /// A handle of each that has several slots, is in use and goes on serving.
    shared: Vec<Instance>,
    /// Instances in use, and the invocations on them.
    busy: usize,
    running: usize,
    /// Instances that several invocations shared and that end: they count until they are gone.
    ending: usize,
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
            busy: self.busy + self.ending,
            starting: self.starting,
            each: self.version.as_ref().map_or(1, |version| version.slots as usize),
            running: self.running,
            open: self.shared.iter().map(Instance::open).sum(),
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

    /// After something ended: when nothing runs any more, how long what is idle stays. Whether the keeper is to look.
    fn rest(&mut self, now: Instant, budget: &Budget) -> bool {
        self.running == 0
            && self.waiters.is_empty()
            && self.stay.rested(now, || budget.price(now))
            && self.slots().expendable() > 0
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
                shared: Vec::new(),
                busy: 0,
                running: 0,
                ending: 0,
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

    /// Instances that wait for a call. What only holds loaded code, from which each call makes its own, is none.
    pub(crate) fn warm(&self) -> usize {
        let state = lock(&self.state);
        if state.limits.keeps { state.idle.len() } else { 0 }
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
                        let Some(mut instance) = state.take() else { continue };
                        // one that died is dropped, and the next is looked at
                        if instance.is_alive() {
                            state.enter(&instance);
                            drop(state);
                            if let Some(group) = instance.group() {
                                group.thaw();
                            }
                            self.counts.used(&mut instance);
                            return Ok(Lease::new(self.clone(), instance, false).asked(asked));
                        }
                        self.after(state.retire(&instance));
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
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.shared))
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
    fn give(self: &Arc<Self>, mut instance: Instance, mut from: From) {
        if from == From::Busy {
            instance.pay();
        }
        let budget = &self.ground.budget;
        let mut state = lock(&self.state);
        state.ran(instance.ran.take());
        if let Some(bytes) = instance.peak.take() {
            state.stay.measured(bytes);
            instance.counts(budget, bytes);
        }
        match from {
            From::Busy => state.leave(&instance),
            From::Start => state.starting -= 1,
            From::Deploy => {}
        }
        if from != From::Busy {
            state.lack.worked();
            state.stay.started(instance.birth.start + instance.birth.init);
            instance.counts(budget, state.stay.size());
        }
        if from == From::Busy {
            state.backoff.worked();
        } else if !state.closed {
            state.groups.extend(instance.group().cloned());
            self.wake.notify_one();
        }
        // a function that has none goes before one that has several
        let gives = from == From::Busy && instance.keeps() && instance.rests();
        let yields = gives && budget.starves() && state.slots().total() > 0;
        loop {
            if yields || !state.serves(&instance, from) {
                if yields {
                    state.lack.failed(Instant::now());
                    self.wake.notify_one();
                }
                let ends = state.retire(&instance);
                self.start_wanted(&mut state);
                state.rest(Instant::now(), budget);
                drop(state);
                drop(instance);
                return self.after(ends);
            }
            let Some(waiter) = state.waiters.pop_front() else {
                if instance.stays() && instance.rests() {
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
            state.enter(&instance);
            self.counts.used(&mut instance);
            // a lease that is not taken comes back to the pool: never under its lock
            drop(state);
            let cold = from != From::Busy && instance.keeps();
            let has_more = instance.shared().is_some();
            match waiter.tell.send(Ok(Lease::new(self.clone(), instance, cold))) {
                Ok(()) => {
                    self.counts.handed_out(cold);
                    if !has_more {
                        return;
                    }
                    state = lock(&self.state);
                    // the next who waits, if there is room for one
                    let Some(more) = state.open().filter(|_| !state.waiters.is_empty()) else { return };
                    (instance, from) = (more, From::Busy);
                    continue;
                }
                // who waited has just gone: the next
                Err(Ok(lease)) => match lease.refused() {
                    Some(back) => instance = back,
                    None => return,
                },
                Err(Err(_)) => return,
            }
            state = lock(&self.state);
            state.leave(&instance);
        }
    }

    /// An instance comes back in good health.
    pub(crate) fn release(self: &Arc<Self>, instance: Instance) {
        self.give(instance, From::Busy);
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
            let idle = (std::mem::take(&mut state.idle), std::mem::take(&mut state.shared));
            (idle, std::mem::take(&mut state.waiters))
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

/// Where an instance comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Busy,
    Start,
    Deploy,
}
