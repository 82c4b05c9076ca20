//! From code to a version that serves: copy it, start one instance of it, and only when that worked hand it to the
//! pool. What fails changes nothing for those who are served now.
//!
//! Functions are ordered by name and deployed in the background, a few at a time, one never twice at once. Who waits
//! for a function that has no version yet moves it to the front.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bus::{
    Name, Outcome,
    log::{LogError, Tx, version},
    outcome::Ending,
};
use tokio::{sync::Notify, task::JoinSet, time};
use tracing::{debug, info, warn};

use crate::{
    book::{self, Book},
    config::RuntimeKind,
    engine,
    fault::Lack,
    functions::{Function, Map},
    ground::Ground,
    instance::{Instance, NoInstance},
    lock,
    output::last_line,
    version::Version,
    watch::Watch,
};

/// Deploys at once: a start is mostly work for the processor.
const AT_ONCE: usize = 2;

/// Functions to be deployed.
#[derive(Default)]
pub(crate) struct Orders {
    queue: Mutex<VecDeque<Name>>,
    wake: Notify,
}

impl Orders {
    /// Deploys a function in its turn.
    pub(crate) fn add(&self, name: &Name) {
        let mut queue = lock(&self.queue);
        if !queue.contains(name) {
            queue.push_back(name.clone());
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Deploys a function next: somebody waits for it.
    pub(crate) fn urge(&self, name: &Name) {
        let mut queue = lock(&self.queue);
        queue.retain(|n| n != name);
        queue.push_front(name.clone());
        drop(queue);
        self.wake.notify_one();
    }

    fn next(&self, running: &BTreeSet<Name>) -> Option<Name> {
        let mut queue = lock(&self.queue);
        let at = queue.iter().position(|n| !running.contains(n))?;
        queue.remove(at)
    }
}

/// How far a function's code has come.
pub(crate) enum Deployment {
    /// Its first deploy is not over.
    Pending,
    /// A version serves. An error is of a later edit.
    Serving { refused: Option<String> },
    /// None ever worked.
    Failed(String),
}

/// Works off the orders, for ever.
pub(crate) async fn run(
    orders: Arc<Orders>,
    functions: Arc<ArcSwap<Map>>,
    ground: Arc<Ground>,
    watch: Option<Arc<Watch>>,
) {
    let mut running = BTreeSet::new();
    let mut deploys = JoinSet::new();
    let mut collected = false;
    loop {
        while deploys.len() < AT_ONCE
            && let Some(name) = orders.next(&running)
        {
            if let Some(function) = functions.load().get(&name).cloned() {
                running.insert(name.clone());
                let (ground, watch) = (ground.clone(), watch.clone());
                deploys.spawn(async move {
                    // a task of its own, so that a panic ends this deploy alone and its name is still given back
                    let _ = tokio::spawn(deploy(function, ground, watch)).await;
                    name
                });
            }
        }
        tokio::select! {
            () = orders.wake.notified() => {}
            Some(done) = deploys.join_next() => {
                if let Ok(name) = done {
                    running.remove(&name);
                }
                if deploys.is_empty() && !collected && lock(&orders.queue).is_empty() {
                    // every configured function has named its version
                    collected = true;
                    if let Err(error) = ground.collect().await {
                        debug!(%error, "code that is not used was not looked for");
                    }
                    let ground = ground.clone();
                    let _ = tokio::task::spawn_blocking(move || ground.tidy()).await;
                }
            }
        }
    }
}

async fn deploy(function: Arc<Function>, ground: Arc<Ground>, watch: Option<Arc<Watch>>) {
    loop {
        match try_deploy(&function, &ground, watch.clone()).await {
            Ok(()) => return,
            Err(NoInstance::Lack(lack)) => time::sleep_until(function.pool.lacks(&lack).into()).await,
            Err(NoInstance::Init(outcome)) => return refuse(&function, &outcome),
        }
    }
}

async fn try_deploy(function: &Function, ground: &Arc<Ground>, watch: Option<Arc<Watch>>) -> Result<(), NoInstance> {
    let begun = Instant::now();
    let config = lock(&function.config).clone();
    let timeout = config.timeout;
    let book = function.book(ground).await.map_err(|error| unrecorded(&error))?;
    hold_pinned(function, ground, book, timeout).await?;
    let (name, store) = (function.name.clone(), ground.clone());
    let copied = tokio::task::spawn_blocking(move || {
        if let Some(watch) = watch {
            // watched before it is read: an edit in between is seen
            watch.follow(&name, &config.code);
        }
        store.store.snapshot(&config)
    });
    let version = match copied.await {
        // the code is told its number as it starts
        Ok(Ok(version)) => Arc::new(Version { number: Some(lock(book).number_for(&version.id)), ..version }),
        Ok(Err(e)) => return Err(Lack::of(&e).map_or_else(|| missing(&e.to_string()), NoInstance::Lack)),
        Err(e) => return Err(missing(&e.to_string())),
    };
    let serves = function.pool.version().is_some_and(|current| current.id == version.id);
    let is_known_aside = || {
        let mut book = lock(book);
        let known = book.number_of(&version.id).filter(|_| book.live.pinned);
        book.latest = known.or(book.latest);
        known.is_some()
    };
    if serves || is_known_aside() {
        // nothing new, or a failed edit was taken back
        *lock(&function.deployment) = Deployment::Serving { refused: None };
        return Ok(());
    }
    let act = lock(book).act_of(&version.id);
    if let Some(outcome) = ground.refuses(&version, act) {
        return Err(NoInstance::Init(outcome));
    }
    let instance = Instance::start(ground, &function.name, version.clone(), timeout).await?;
    let _moving = function.moving.lock().await;
    let number = record(function, ground, book, &version).await.map_err(|error| unrecorded(&error))?;
    *lock(&function.deployment) = Deployment::Serving { refused: None };
    let (name, id) = (&function.name, version.id.clone());
    if let Some(pinned) = lock(book).live.version.filter(|serving| *serving != number) {
        info!(
            function.name = %name, function.version = %id,
            "`{name}` has a new version {number} ({id}); version {pinned} keeps serving, as it is pinned: \
             fnbus functions promote {name} {number}"
        );
    } else {
        function.pool.install(version.clone(), instance);
        let took = begun.elapsed().as_millis();
        info!(function.name = %name, function.version = %id, "`{name}` serves version {id} (number {number}) after {took} ms");
    }
    compile(ground, version);
    Ok(())
}

/// Has the version serve that is to stay, before anything else is looked at: whoever calls waits for it.
async fn hold_pinned(
    function: &Function,
    ground: &Arc<Ground>,
    book: &Mutex<Book>,
    timeout: Duration,
) -> Result<(), NoInstance> {
    let (name, pinned) = (&function.name, lock(book).live.clone());
    let Some(number) = pinned.version.filter(|_| pinned.pinned && function.pool.version().is_none()) else {
        return Ok(());
    };
    let restored = lock(book).kept(number).and_then(|kept| ground.store.restore(kept)).map(Arc::new);
    let Some(version) = restored else {
        warn!(function.name = %name, "`{name}` is pinned to version {number}, whose code is gone: the newest serves");
        lock(book).live.pinned = false;
        return Ok(());
    };
    let instance = Instance::start(ground, name, version.clone(), timeout).await?;
    let _moving = function.moving.lock().await;
    if lock(book).live.version != Some(number) {
        // another one was put into service meanwhile
        return Ok(());
    }
    *lock(&function.deployment) = Deployment::Serving { refused: None };
    let id = version.id.clone();
    function.pool.install(version, instance);
    info!(function.name = %name, function.version = %id, "`{name}` serves version {id} (number {number}), to which it is pinned");
    Ok(())
}

/// Keeps the version, and forgets those that are too many.
async fn record(
    function: &Function,
    ground: &Arc<Ground>,
    book: &Mutex<Book>,
    version: &Arc<Version>,
) -> Result<u32, LogError> {
    let (name, live) = (&function.name, lock(book).live.clone());
    let known = lock(book).number_of(&version.id).filter(|number| live.deployed(*number).is_none());
    if let Some(number) = known {
        lock(book).latest = Some(number);
        return Ok(number);
    }
    let (kept, moved) = book::record(&ground.log, name, version, live).await?;
    let number = kept.number;
    let expendable = {
        let mut book = lock(book);
        book.add(kept);
        book.latest = Some(number);
        book.live = moved.unwrap_or_else(|| book.live.clone());
        book.expendable(ground.settings.keep_versions)
    };
    if !expendable.is_empty() {
        let (function, numbers) = (name.clone(), expendable.clone());
        let forget = move |tx: &Tx<'_>| Ok::<_, LogError>(version::forget(tx, function.as_str(), &numbers)?);
        ground.log.write(forget).await?;
        lock(book).forget(&expendable);
        ground.collect().await?;
    }
    Ok(number)
}

fn compile(ground: &Arc<Ground>, version: Arc<Version>) {
    if version.runtime == RuntimeKind::Python {
        let ground = ground.clone();
        tokio::spawn(async move {
            if let Err(error) = engine::compile(&ground, &version).await {
                debug!(%error, "code was not compiled");
            }
        });
    }
}

fn refuse(function: &Function, outcome: &Outcome) {
    let name = &function.name;
    let mut reason = outcome.fault.as_ref().map_or_else(String::new, |f| format!("{}: {}", f.kind, f.message));
    // who just ends has told why, if at all, on its stderr
    if outcome.fault.as_ref().is_some_and(|fault| fault.kind == "Runtime.ExitError")
        && let Some(said) = last_line(&outcome.log)
    {
        let _ = write!(reason, "; it printed: {said}");
    }
    let current = function.pool.version();
    if let Some(current) = &current {
        let id = &current.id;
        warn!(function.name = %name, "`{name}` was not changed, version {id} keeps serving: {reason}");
        *lock(&function.deployment) = Deployment::Serving { refused: Some(reason) };
    } else {
        warn!(function.name = %name, "`{name}` cannot serve: {reason}");
        *lock(&function.deployment) = Deployment::Failed(reason);
    }
    if let Some(fault) = &outcome.fault {
        function.pool.counts.failed(fault);
    }
    if current.is_none() {
        function.pool.fail_waiting(outcome);
    }
}

fn unrecorded(error: &LogError) -> NoInstance {
    missing(&format!("its version cannot be recorded: {error}; it is tried again at the next call or edit"))
}

fn missing(reason: &str) -> NoInstance {
    NoInstance::Init(Box::new(Outcome::failure(Ending::InitError, "Runtime.CodeUnavailable", reason)))
}
