//! The config in force, with the triggers that are paused, and everything it reaches.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus::{
    Bus, Name,
    log::retention::Keep,
    presence::{Steer, SteerError, Steered, TriggerStatus},
    sink::AcceptError,
};
use runtimes::Functions;
use triggers::{
    Running,
    http::{HttpServer, Table, table::Collision},
};

use super::catalog::{catalog, triggers};
use crate::config::Config;

/// Clones share it.
#[derive(Clone)]
pub(super) struct Force {
    pub(super) bus: Bus,
    pub(super) functions: Functions,
    pub(super) running: Running,
    pub(super) http: HttpServer<Bus>,
    now: Arc<Mutex<Now>>,
}

#[derive(Clone)]
struct Now {
    config: Arc<Config>,
    paused: Arc<BTreeSet<Name>>,
}

impl Force {
    /// What a node has just been started with.
    pub(super) fn new(
        bus: Bus,
        functions: Functions,
        running: Running,
        http: HttpServer<Bus>,
        config: Config,
        paused: BTreeSet<Name>,
    ) -> Self {
        let now = Now { config: Arc::new(config), paused: Arc::new(paused) };
        functions.configure(now.config.functions.clone());
        running.configure(&now.config.triggers, &now.paused);
        Self { bus, functions, running, http, now: Arc::new(Mutex::new(now)) }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.now().config.clone()
    }

    /// Puts another config in force; when its routes collide nothing changes.
    pub(super) fn put(&self, config: Config) -> Result<(), Vec<Collision>> {
        let mut now = self.now();
        let next = Now { config: Arc::new(config), paused: now.paused.clone() };
        let table = table(&next)?;
        self.functions.limit_memory(next.config.pool.memory);
        self.functions.configure(next.config.functions.clone());
        self.bind(&next, table);
        *now = next;
        Ok(())
    }

    /// Tells a trigger of the config to do something.
    pub(super) async fn steer(self, trigger: Name, steer: Steer) -> Result<Steered, SteerError> {
        let paused = match steer {
            Steer::Fire => return self.fire(trigger).await,
            Steer::Pause => true,
            Steer::Resume => false,
        };
        // on disk first: a pause that was confirmed is one after a crash
        self.bus.pause(&trigger, paused).await.map_err(AcceptError::from)?;
        let mut now = self.now();
        let mut all = (*now.paused).clone();
        let changed = if paused { all.insert(trigger.clone()) } else { all.remove(&trigger) };
        let next = Now { config: now.config.clone(), paused: Arc::new(all) };
        if let Ok(table) = table(&next) {
            self.bind(&next, table);
            *now = next;
        }
        Ok(Steered { trigger, changed, event: None, deliveries: None })
    }

    async fn fire(&self, trigger: Name) -> Result<Steered, SteerError> {
        let config = self.config();
        let Some(kind) = config.triggers.get(&trigger) else {
            return Err(SteerError::Gone { trigger });
        };
        let accepted = self.running.fire(&trigger, kind).await?;
        let (event, deliveries) = (Some(accepted.id.to_string()), Some(accepted.deliveries));
        Ok(Steered { trigger, changed: true, event, deliveries })
    }

    /// Says which versions and aliases the config names and are not there.
    pub(super) fn warn_of_unknown_versions(&self) {
        let config = self.config();
        for unknown in config.unknown_versions(&runtimes::kept(&config.bus.data)) {
            tracing::warn!("{unknown}");
        }
    }

    /// What `fnbus triggers` shows.
    pub(super) fn triggers(&self) -> Vec<TriggerStatus> {
        let Now { config, paused } = self.now().clone();
        triggers(&config, &self.running, &paused)
    }

    fn bind(&self, next: &Now, table: Table) {
        let Now { config, paused } = next;
        self.http.reload(table);
        self.bus.reconfigure(catalog(config, paused), Keep::from(&config.log));
        // after the catalog: what a new trigger takes must already be bound
        self.running.configure(&config.triggers, paused);
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn table(Now { config, paused }: &Now) -> Result<Table, Vec<Collision>> {
    Table::new(&config.bus.namespace, &config.http, &config.triggers, paused)
}
