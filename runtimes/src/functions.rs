//! The registry: which functions there are, and the way to an instance of each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bus::{
    Name,
    log::{Log, LogError},
    presence::{FunctionState as State, FunctionStatus, LogLine},
    target::Qualifier,
};
use chrono::Utc;
use rustix::process::Signal;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use uuid::Uuid;

use crate::{
    book::Book,
    canary,
    config::{FunctionConfig, RuntimeKind},
    deploy::{self, Deployment, Orders},
    gate::Gate,
    ground::{Ground, Settings},
    lease::{Lease, LeaseError},
    lifecycle::Act,
    lock, orphans,
    pool::{Counts, Pool},
    process::all_gone,
    route,
    slots::Slots,
    version::{Version, starts_alike},
    watch::Watch,
};

/// How long a killed process may take to be gone.
const KILLED: Duration = Duration::from_secs(2);

pub(crate) type Map = BTreeMap<Name, Arc<Function>>;

/// The functions of a node. Clones share them; the last one dropped kills every instance.
#[derive(Clone)]
pub struct Functions {
    pub(crate) registry: Arc<Registry>,
}

pub(crate) struct Registry {
    pub(crate) ground: Arc<Ground>,
    functions: Arc<ArcSwap<Map>>,
    orders: Arc<Orders>,
    watch: Option<Arc<Watch>>,
    /// One reload at a time.
    configuring: Mutex<()>,
    /// Ends with the registry.
    _deployer: AbortOnDropHandle<()>,
    /// Too.
    _canaries: AbortOnDropHandle<()>,
    /// Too.
    _orphans: AbortOnDropHandle<()>,
    /// Too.
    _storage: AbortOnDropHandle<()>,
}

pub(crate) struct Function {
    pub(crate) name: Name,
    pub(crate) config: Mutex<FunctionConfig>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) deployment: Mutex<Deployment>,
    book: OnceCell<Mutex<Book>>,
    /// Of versions that are called and are not what serves, by their numbers.
    sides: Mutex<BTreeMap<u32, Arc<Pool>>>,
    gate: Arc<Gate>,
    /// Held while another version is put into service.
    pub(crate) moving: AsyncMutex<()>,
}

impl Functions {
    /// No functions yet; the log keeps their versions. Must be called inside a tokio runtime, in which all of it then runs.
    pub fn new(settings: Settings, log: Log) -> Self {
        let watched = settings.watch;
        let ground = Arc::new(Ground::new(settings, log));
        let (orders, functions) = (Arc::new(Orders::default()), Arc::new(ArcSwap::default()));
        let watch = watched.then(|| Watch::new(&ground.settings.data, orders.clone()));
        let watch = watch.transpose().unwrap_or_else(|e| {
            warn!("edits of code are not seen: {e}; raise fs.inotify.max_user_instances, then restart");
            None
        });
        let watch = watch.map(Arc::new);
        let deployer = deploy::run(orders.clone(), functions.clone(), ground.clone(), watch.clone());
        let deployer = AbortOnDropHandle::new(tokio::spawn(deployer));
        let canaries = AbortOnDropHandle::new(tokio::spawn(canary::watch(functions.clone(), ground.clone())));
        let orphans = AbortOnDropHandle::new(tokio::spawn(orphans::watch()));
        let storage = AbortOnDropHandle::new(tokio::spawn(ground.storage.clone().watch()));
        let earlier = ground.clone();
        tokio::task::spawn_blocking(move || earlier.sweep());
        let configuring = Mutex::default();
        let registry = Registry {
            ground,
            functions,
            orders,
            watch,
            configuring,
            _deployer: deployer,
            _canaries: canaries,
            _orphans: orphans,
            _storage: storage,
        };
        Self { registry: Arc::new(registry) }
    }

    /// Makes these the functions of the node: at start, and at each reload. Returns at once; code is deployed behind it.
    /// Functions that are gone finish what they run.
    pub fn configure(&self, functions: BTreeMap<Name, FunctionConfig>) {
        let Registry { ground, orders, watch, configuring, .. } = &*self.registry;
        let _one_at_a_time = lock(configuring);
        let old = self.registry.functions.load_full();
        let (mut map, mut changed) = (Map::new(), Vec::new());
        for (name, config) in functions {
            let function = if let Some(function) = old.get(&name) {
                function.limit(&config);
                let before = std::mem::replace(&mut *lock(&function.config), config.clone());
                if !starts_alike(&before, &config) {
                    changed.push(name.clone());
                    if let Some(watch) = watch.as_ref().filter(|_| before.code != config.code) {
                        watch.forget(&name);
                    }
                }
                function.clone()
            } else {
                changed.push(name.clone());
                let pool = Pool::new(name.clone(), ground.clone(), orders.clone(), &config);
                let (config, deployment) = (Mutex::new(config), Mutex::new(Deployment::Pending));
                let (book, moving) = (OnceCell::new(), AsyncMutex::default());
                let (sides, gate) = (Mutex::default(), Arc::<Gate>::default());
                gate.limit(lock(&config).calls());
                Arc::new(Function { name: name.clone(), config, pool, deployment, book, sides, gate, moving })
            };
            map.insert(name, function);
        }
        let gone: Vec<_> = old.values().filter(|f| !map.contains_key(&f.name)).collect();
        let on_node = map.values().any(|f| lock(&f.config).runtime == RuntimeKind::Node);
        self.registry.functions.store(Arc::new(map));
        if !on_node {
            ground.spares.end();
        }
        for function in gone {
            function.close();
            if let Some(watch) = watch {
                watch.forget(&function.name);
            }
        }
        for name in &changed {
            orders.add(name);
        }
    }

    /// An instance of a function to run one invocation on, at most after this long if all are busy. One that is being
    /// started is waited for.
    pub async fn lease(&self, function: &Name, wait: Duration) -> Result<Lease, LeaseError> {
        self.lease_of(&Wanted::new(function.clone(), None, Uuid::now_v7()), wait).await
    }

    /// The same of the version that is wanted, or that the call has its place at.
    pub async fn lease_of(&self, wanted: &Wanted, wait: Duration) -> Result<Lease, LeaseError> {
        loop {
            let unknown = || LeaseError::Unknown(wanted.function.clone());
            let function = self.function(&wanted.function).ok_or_else(unknown)?;
            let (pool, number) = function.pool_for(wanted, &self.registry).await?;
            let ground = &self.registry.ground;
            if ground.settings.enforce
                && let Some(outcome) = pool.version().and_then(|version| ground.refuses(&version, Act::Invoke))
            {
                return Err(LeaseError::Init(outcome));
            }
            let bounded = !lock(&function.sides).is_empty();
            let entered = function.gate.enter(bounded, wait).await.ok_or(LeaseError::Busy)?;
            match pool.lease(wait).await {
                // another version was put in its place, or its part of the calls was taken away
                Err(LeaseError::Unknown(_)) if function.left_out(number, &pool) => {}
                leased => return leased.map(|lease| lease.entered(entered)),
            }
        }
    }

    /// Which version a call would go to now, for those that are gathered.
    pub fn version_for(&self, wanted: &Wanted) -> Option<u32> {
        let function = self.function(&wanted.function)?;
        lock(function.book.get()?).choose(wanted.version.as_ref(), wanted.place).ok()?
    }

    pub fn status(&self) -> Vec<FunctionStatus> {
        self.registry.functions.load().values().map(|f| f.status()).collect()
    }

    pub fn concurrency(&self, function: &Name) -> Option<u32> {
        self.pool(function).map(|pool| pool.concurrency())
    }

    pub fn timeout(&self, function: &Name) -> Option<Duration> {
        self.pool(function).map(|pool| pool.timeout())
    }

    /// How many more invocations of a function can begin now without waiting for one to end.
    pub fn free(&self, function: &Name) -> Option<usize> {
        let function = self.function(function)?;
        let slots: Vec<_> = function.pools().iter().map(|pool| pool.slots()).collect();
        let taken: usize = slots.iter().map(|slots| slots.running + slots.waiting).sum();
        let most = slots.first().map_or(0, |slots| slots.concurrency * slots.each);
        Some(most.saturating_sub(taken + function.gate.waiting()))
    }

    /// Bytes that all functions may hold together from now on; none: half of what there is.
    pub fn limit_memory(&self, most: Option<u64>) {
        self.registry.ground.budget.limit(most);
    }

    /// A call of a function is expected then.
    pub fn expect(&self, function: &Name, at: Instant) {
        if let Some(pool) = self.pool(function) {
            pool.expect(at);
        }
    }

    /// How long an invocation of a function takes, as far as is known.
    pub(crate) fn run(&self, function: &Name) -> Duration {
        self.pool(function).map(|pool| pool.run()).unwrap_or_default()
    }

    /// Every function's runtime, as its worker class.
    pub fn runtime(&self, function: &Name) -> Option<RuntimeKind> {
        self.registry.functions.load().get(function).map(|f| lock(&f.config).runtime)
    }

    /// Hears every line the functions print from now on.
    pub fn logs(&self) -> tokio::sync::broadcast::Receiver<LogLine> {
        self.registry.ground.settings.logs.subscribe()
    }

    /// Ends all instances: TERM, grace, KILL. Invocations that still run end as crashed: finish them before.
    pub async fn shutdown(&self, grace: Duration) {
        let functions = self.registry.functions.swap(Arc::default());
        let ground = &self.registry.ground;
        ground.spares.end();
        ground.zygotes.end();
        let mut groups: Vec<_> = functions.values().flat_map(|f| f.pools()).flat_map(|pool| pool.stop()).collect();
        groups.extend(ground.passing_groups());
        for group in &groups {
            group.signal(Signal::TERM);
        }
        let graceful = tokio::time::timeout(grace, all_gone(&groups)).await.is_ok();
        for function in functions.values() {
            function.close();
        }
        if !graceful {
            for group in &groups {
                group.signal(Signal::KILL);
            }
            // what does not even die (a broken disk) is not waited for
            let _ = tokio::time::timeout(KILLED, all_gone(&groups)).await;
        }
    }

    fn pool(&self, function: &Name) -> Option<Arc<Pool>> {
        self.function(function).map(|f| f.pool.clone())
    }

    pub(crate) fn function(&self, function: &Name) -> Option<Arc<Function>> {
        self.registry.functions.load().get(function).cloned()
    }
}

/// Which function is called, and which version of it.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub function: Name,
    /// None: what serves.
    pub version: Option<Qualifier>,
    /// Where several versions have a part of the calls it says which of them, from 0 to 1.
    place: f64,
}

impl Wanted {
    /// `id`: the same at each attempt of one thing.
    pub fn new(function: Name, version: Option<Qualifier>, id: Uuid) -> Self {
        Self { function, version, place: route::place(id) }
    }
}

impl Function {
    /// The pool for a call, and its version where that is not what serves.
    async fn pool_for(&self, wanted: &Wanted, registry: &Registry) -> Result<(Arc<Pool>, Option<u32>), LeaseError> {
        if wanted.version.is_none() && self.opened().is_none() {
            // before its first deploy there is nothing to choose from
            return Ok((self.pool.clone(), None));
        }
        let book = match self.book(&registry.ground).await {
            Ok(book) => book,
            // without its log a node runs what it has
            Err(_) if wanted.version.is_none() => return Ok((self.pool.clone(), None)),
            Err(_) => return Err(LeaseError::Busy),
        };
        let gone = |version: &str| LeaseError::NoVersion { function: self.name.clone(), version: version.to_owned() };
        let (number, kept) = {
            let book = lock(book);
            let chosen = book.choose(wanted.version.as_ref(), wanted.place).map_err(|version| gone(&version))?;
            match chosen.filter(|number| book.live.version != Some(*number)) {
                Some(number) => (number, book.kept(number).cloned()),
                None => return Ok((self.pool.clone(), None)),
            }
        };
        let mut sides = lock(&self.sides);
        if let Some(pool) = sides.get(&number) {
            return Ok((pool.clone(), Some(number)));
        }
        let version = kept.and_then(|kept| registry.ground.store.restore(&kept)).map(Arc::new);
        let version = version.ok_or_else(|| gone(&number.to_string()))?;
        let config = self.config_of(&version);
        let pool = Pool::of(self.name.clone(), registry.ground.clone(), registry.orders.clone(), &config, version);
        sides.insert(number, pool.clone());
        Ok((pool, Some(number)))
    }

    /// The function's limits for a version beside the one that serves.
    fn config_of(&self, version: &Version) -> FunctionConfig {
        FunctionConfig { runtime: version.runtime, warm: 0, ..lock(&self.config).clone() }
    }

    /// Whether a pool was taken out of service while the function stays.
    fn left_out(&self, number: Option<u32>, pool: &Arc<Pool>) -> bool {
        number.is_some_and(|number| lock(&self.sides).get(&number).is_none_or(|now| !Arc::ptr_eq(now, pool)))
    }

    /// Ends the pools of versions that no alias leads to; who calls one by its number gets another.
    pub(crate) fn close_unused(&self) {
        let Some(book) = self.book.get() else { return };
        let used = lock(book).led_to();
        let (sides, unused): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut *lock(&self.sides)).into_iter().partition(|(number, _)| used.contains(number));
        lock(&self.sides).extend(sides);
        for pool in unused.into_values() {
            pool.close();
            self.pool.counts.add(&pool.counts);
        }
    }

    /// Invocations and errors of a version beside the one that serves, since this was asked last.
    pub(crate) fn fresh(&self, number: u32) -> (u64, u64) {
        lock(&self.sides).get(&number).map_or((0, 0), |pool| pool.counts.fresh())
    }

    /// The same, and the next who asks is told again.
    pub(crate) fn unseen(&self, number: u32) -> (u64, u64) {
        lock(&self.sides).get(&number).map_or((0, 0), |pool| pool.counts.unseen())
    }

    pub(crate) fn pools(&self) -> Vec<Arc<Pool>> {
        std::iter::once(self.pool.clone()).chain(lock(&self.sides).values().cloned()).collect()
    }

    fn limit(&self, config: &FunctionConfig) {
        self.pool.limit(config);
        self.gate.limit(config.calls());
        for pool in lock(&self.sides).values() {
            let runtime = pool.version().map_or(config.runtime, |version| version.runtime);
            pool.limit(&FunctionConfig { runtime, warm: 0, ..config.clone() });
        }
    }

    fn close(&self) {
        for pool in self.pools() {
            pool.close();
        }
    }

    /// Its versions, if they were asked for.
    pub(crate) fn opened(&self) -> Option<&Mutex<Book>> {
        self.book.get()
    }

    /// Its versions, read from the log when they are first asked for.
    pub(crate) async fn book(&self, ground: &Ground) -> Result<&Mutex<Book>, LogError> {
        let open = async || {
            let book = Book::open(&ground.log, &self.name).await?;
            if book.live.canary.is_some() {
                ground.canaries.notify_one();
            }
            Ok(Mutex::new(book))
        };
        self.book.get_or_try_init(open).await
    }

    fn status(&self) -> FunctionStatus {
        let (state, refused) = match &*lock(&self.deployment) {
            Deployment::Pending => (State::Starting, None),
            Deployment::Serving { refused } => (State::Ready, refused.clone()),
            Deployment::Failed(message) => (State::Failed { message: message.clone() }, None),
        };
        let pools = self.pools();
        let slots: Vec<Slots> = pools.iter().map(|pool| pool.slots()).collect();
        let sum = |of: fn(&Slots) -> usize| slots.iter().map(of).sum::<usize>();
        let counts = Counts::default();
        for pool in &pools {
            counts.add(&pool.counts);
        }
        let held = pools.iter().map(|pool| pool.held());
        let (memory, frozen) = held.fold(<_>::default(), |(all, frozen), (more, idle)| (all + more, frozen + idle));
        let (runtime, notice) = {
            let config = lock(&self.config);
            (config.runtime_name().to_owned(), config.notice(Utc::now()))
        };
        let version = self.pool.version().map(|v| v.id.to_string());
        let book = self.book.get().map(lock);
        let book = book.as_deref();
        FunctionStatus {
            name: self.name.clone(),
            runtime,
            notice,
            number: version.as_ref().and_then(|id| book?.number_of(id)),
            version,
            latest: book.and_then(|book| book.latest),
            pinned: book.is_some_and(|book| book.live.pinned),
            state,
            refused,
            concurrency: self.pool.concurrency(),
            slots: self.pool.version().map_or(1, |version| version.slots),
            warm: pools.iter().map(|pool| pool.warm()).sum(),
            busy: sum(|slots| slots.running),
            starting: sum(|slots| slots.starting),
            waiting: sum(|slots| slots.waiting) + self.gate.waiting(),
            invocations: counts.invocations.load(Ordering::Relaxed),
            cold_starts: counts.cold_starts.load(Ordering::Relaxed),
            pre_warmed: counts.pre_warmed.load(Ordering::Relaxed),
            pre_warmed_used: counts.pre_warmed_used.load(Ordering::Relaxed),
            starts: counts.starts(),
            memory,
            frozen,
            errors: counts.errors.load(Ordering::Relaxed),
            last_error: lock(&counts.last_error).clone(),
            shares: book.map(Book::shares).unwrap_or_default(),
        }
    }
}
