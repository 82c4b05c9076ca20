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
};
use rustix::process::Signal;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::{
    book::Book,
    config::{FunctionConfig, RuntimeKind},
    deploy::{self, Deployment, Orders},
    ground::{Ground, Settings},
    lease::{Lease, LeaseError},
    lock, orphans,
    pool::Pool,
    process::all_gone,
    version::starts_alike,
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
    _orphans: AbortOnDropHandle<()>,
}

pub(crate) struct Function {
    pub(crate) name: Name,
    pub(crate) config: Mutex<FunctionConfig>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) deployment: Mutex<Deployment>,
    book: OnceCell<Mutex<Book>>,
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
        let orphans = AbortOnDropHandle::new(tokio::spawn(orphans::watch()));
        let earlier = ground.clone();
        tokio::task::spawn_blocking(move || earlier.sweep());
        let configuring = Mutex::default();
        let registry =
            Registry { ground, functions, orders, watch, configuring, _deployer: deployer, _orphans: orphans };
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
                function.pool.limit(&config);
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
                Arc::new(Function { name: name.clone(), config, pool, deployment, book, moving })
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
            function.pool.close();
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
        match self.pool(function) {
            Some(pool) => pool.lease(wait).await,
            None => Err(LeaseError::Unknown(function.clone())),
        }
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
        let slots = self.pool(function)?.slots();
        Some(slots.concurrency.saturating_sub(slots.busy + slots.waiting))
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
        let mut groups: Vec<_> = functions.values().flat_map(|f| f.pool.stop()).collect();
        groups.extend(ground.passing_groups());
        for group in &groups {
            group.signal(Signal::TERM);
        }
        let graceful = tokio::time::timeout(grace, all_gone(&groups)).await.is_ok();
        for function in functions.values() {
            function.pool.close();
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

impl Function {
    /// Its versions, read from the log when they are first asked for.
    pub(crate) async fn book(&self, ground: &Ground) -> Result<&Mutex<Book>, LogError> {
        self.book.get_or_try_init(async || Book::open(&ground.log, &self.name).await.map(Mutex::new)).await
    }

    fn status(&self) -> FunctionStatus {
        let (state, refused) = match &*lock(&self.deployment) {
            Deployment::Pending => (State::Starting, None),
            Deployment::Serving { refused } => (State::Ready, refused.clone()),
            Deployment::Failed(message) => (State::Failed { message: message.clone() }, None),
        };
        let (slots, counts) = (self.pool.slots(), &self.pool.counts);
        let (memory, frozen) = self.pool.held();
        let version = self.pool.version().map(|v| v.id.to_string());
        let book = self.book.get().map(lock);
        let book = book.as_deref();
        FunctionStatus {
            name: self.name.clone(),
            runtime: lock(&self.config).runtime.as_str().to_owned(),
            number: version.as_ref().and_then(|id| book?.number_of(id)),
            version,
            latest: book.and_then(|book| book.latest),
            pinned: book.is_some_and(|book| book.live.pinned),
            state,
            refused,
            concurrency: slots.concurrency as u32,
            warm: slots.idle,
            busy: slots.busy,
            starting: slots.starting,
            waiting: slots.waiting,
            invocations: counts.invocations.load(Ordering::Relaxed),
            cold_starts: counts.cold_starts.load(Ordering::Relaxed),
            pre_warmed: counts.pre_warmed.load(Ordering::Relaxed),
            pre_warmed_used: counts.pre_warmed_used.load(Ordering::Relaxed),
            starts: counts.starts(),
            memory,
            frozen,
            errors: counts.errors.load(Ordering::Relaxed),
            last_error: lock(&counts.last_error).clone(),
        }
    }
}
