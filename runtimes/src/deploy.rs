//! From code to a version that serves: copy it, start one instance of it, and only when that worked hand it to the
//! pool. What fails changes nothing for those who are served now.
//!
//! Functions are ordered by name and deployed in the background, a few at a time, one never twice at once. Who waits
//! for a function that has no version yet moves it to the front.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bus::{Name, Outcome, outcome::Ending};
use tokio::{sync::Notify, task::JoinSet, time};
use tracing::{debug, info, warn};

use crate::{
    config::RuntimeKind,
    engine,
    fault::Lack,
    functions::{Function, Map},
    ground::Ground,
    instance::{Instance, NoInstance},
    lock,
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
                    let ground = ground.clone();
                    let _ = tokio::task::spawn_blocking(move || ground.collect()).await;
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
    let (name, store) = (function.name.clone(), ground.clone());
    let copied = tokio::task::spawn_blocking(move || {
        if let Some(watch) = watch {
            // watched before it is read: an edit in between is seen
            watch.follow(&name, &config.code);
        }
        store.store.snapshot(&config)
    });
    let version = match copied.await {
        Ok(Ok(version)) => Arc::new(version),
        Ok(Err(e)) => return Err(Lack::of(&e).map_or_else(|| missing(&e.to_string()), NoInstance::Lack)),
        Err(e) => return Err(missing(&e.to_string())),
    };
    if function.pool.version().is_some_and(|current| current.id == version.id) {
        // nothing new, or a failed edit was taken back
        *lock(&function.deployment) = Deployment::Serving { refused: None };
        return Ok(());
    }
    let instance = Instance::start(ground, &function.name, version.clone(), timeout).await?;
    serve(function, version.clone(), instance, begun.elapsed());
    if version.runtime == RuntimeKind::Python {
        let ground = ground.clone();
        tokio::spawn(async move {
            if let Err(error) = engine::compile(&ground, &version).await {
                debug!(%error, "code was not compiled");
            }
        });
    }
    Ok(())
}

fn serve(function: &Function, version: Arc<Version>, instance: Instance, took: Duration) {
    let (name, id) = (&function.name, version.id.clone());
    *lock(&function.deployment) = Deployment::Serving { refused: None };
    function.pool.install(version, instance);
    info!(function.name = %name, function.version = %id, "`{name}` serves version {id} after {} ms", took.as_millis());
}

fn refuse(function: &Function, outcome: &Outcome) {
    let name = &function.name;
    let reason = outcome.fault.as_ref().map_or_else(String::new, |f| format!("{}: {}", f.kind, f.message));
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

fn missing(reason: &str) -> NoInstance {
    NoInstance::Init(Box::new(Outcome::failure(Ending::InitError, "Runtime.CodeUnavailable", reason)))
}
