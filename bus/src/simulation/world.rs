//! A node, its broker, its workers and whoever sends to it, and the steps they take.

mod outside;
mod said;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use super::{
    broker::Broker,
    check::{Check, Journal},
    project, surroundings,
    worker::{self, Executions, Manner},
};
use crate::{
    Name, ambient,
    catalog::Catalog,
    log::{Log, LogError, Turns},
    owner::Owner,
    relay::Relay,
};

/// Everything has ended this long after the faults, or it never will.
const HEALED_WITHIN: Duration = Duration::from_mins(30);
/// So often dead letters are redriven that still block something, and dropped until they do not, or they do for good.
const REDRIVEN: u32 = 2;
const SETTLED_AFTER: u32 = 100;
/// Tables of the log, in the order they are compared.
const TABLES: [&str; 8] = ["event", "delivery", "attempt", "run", "replay", "mark", "seen", "identity"];

/// What happened so far: a number that any other happening would have made another, and on demand in words.
pub(super) struct Trace {
    sum: DefaultHasher,
    steps: u64,
    aloud: bool,
}

impl Trace {
    fn note(&mut self, what: &'static str, of: u64) {
        (what, of).hash(&mut self.sum);
        self.steps += 1;
        if self.aloud {
            let time = ambient::now().format("%H:%M:%S%.3f");
            println!("{:5} {time} {what} {of}", self.steps);
        }
    }
}

struct Node {
    owner: Owner,
    turns: Turns,
    /// It has recovered: events are accepted and workers work.
    up: Arc<AtomicBool>,
    /// Its log can no longer be written: it ends.
    ended: Arc<AtomicBool>,
}

pub(super) struct World {
    chance: Rng,
    trace: Trace,
    connection: Arc<Mutex<Connection>>,
    /// As it is written; for a while another one may be in force.
    catalog: Catalog,
    in_force: Arc<ArcSwap<Catalog>>,
    broker: Broker,
    node: Option<Node>,
    journal: Arc<Mutex<Journal>>,
    executions: Executions,
    check: Check,
    events: usize,
    disk_full: bool,
    /// Of what cannot go.
    log_full: bool,
}

impl World {
    pub(super) fn new(seed: u64, connection: &Arc<Mutex<Connection>>, aloud: bool) -> Self {
        let mut chance = Rng::with_seed(seed);
        surroundings::enter(chance.u64(..), chance.usize(1..4));
        let catalog = project::catalog(&mut chance);
        let mut world = Self {
            trace: Trace { sum: DefaultHasher::new(), steps: 0, aloud },
            connection: connection.clone(),
            in_force: Arc::new(ArcSwap::from_pointee(catalog.clone())),
            catalog,
            broker: Broker::new(chance.fork()),
            node: None,
            journal: Arc::default(),
            executions: Executions::default(),
            check: Check::default(),
            events: chance.usize(1..4),
            disk_full: false,
            log_full: false,
            chance,
        };
        world.empty();
        world.start();
        world
    }

    fn empty(&self) {
        let connection = self.connection.lock().unwrap();
        for table in &TABLES[..7] {
            connection.prepare_cached(&format!("DELETE FROM {table}")).unwrap().execute([]).unwrap();
        }
    }

    /// Begins the node on what its log says.
    fn start(&mut self) {
        let (log, turns) = Log::by_hand(self.connection.clone());
        log.fill_up(self.log_full);
        let (up, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (written, ends) = (log.clone(), ended.clone());
        ambient::spawn(async move {
            written.unsynced().await;
            ends.store(true, Ordering::Relaxed);
        });
        let owner = Owner::new(log, "node".into(), project::name("sim"), self.in_force.clone());
        let relay = Relay::new(owner.clone(), self.broker.clone());
        let (starting, ready, ends) = (owner.clone(), up.clone(), ended.clone());
        ambient::spawn(async move {
            if starting.recover().await.is_err() {
                return ends.store(true, Ordering::Relaxed);
            }
            ready.store(true, Ordering::Relaxed);
            relay.run(CancellationToken::new()).await;
        });
        self.broker.serve(Some(owner.clone()));
        self.node = Some(Node { owner, turns, up, ended });
    }

    /// The process is gone, whatever it was about to do; the log is as it was committed.
    fn kill(&mut self) {
        surroundings::kill();
        self.broker.serve(None);
        self.node = None;
        self.broker.node_ended(&mut self.chance);
        self.check.ended_stay(&self.connection.lock().unwrap());
        // no node begins in the millisecond in which another ended: in it the id of an attempt may come again
        self.wind(Duration::from_millis(1));
    }

    fn owner(&self) -> Option<Owner> {
        self.node.as_ref().filter(|node| node.up.load(Ordering::Relaxed)).map(|node| node.owner.clone())
    }

    /// Lets things happen in any order, faults included, then heals everything and waits for the end of it all. Gives
    /// the sum of what happened and what the log then says.
    pub(super) fn run(mut self) -> Result<u64, String> {
        for _ in 0..self.chance.usize(40..200) {
            self.any_step();
        }
        self.heal()?;
        let connection = self.connection.clone();
        let connection = connection.lock().unwrap();
        self.check.ended_stay(&connection);
        let journal = self.journal.lock().unwrap();
        self.check.all(&connection, &self.catalog, &journal, &self.executions.lock().unwrap())?;
        for table in TABLES {
            said::sum_table(&connection, table, &mut self.trace.sum);
        }
        Ok(self.trace.sum.finish())
    }

    /// A node that cannot write ends, and begins anew. Whether it did.
    fn began_anew(&mut self) -> bool {
        let ended = self.node.as_ref().is_some_and(|node| node.ended.load(Ordering::Relaxed));
        if ended {
            self.trace.note("the node ends by itself", 0);
            self.kill();
            self.start();
        }
        ended
    }

    fn any_step(&mut self) {
        if self.began_anew() {
            return;
        }
        let (ready, waiting) = (surroundings::ready(), self.node.as_ref().map_or(0, |node| node.turns.waiting()));
        let up = self.owner().is_some();
        let weight = |possible: bool, weight: u32| if possible { weight } else { 0 };
        let weights = [
            weight(ready > 0, 24),
            weight(waiting > 0, 10),
            weight(self.broker.sent() > 0, 8),
            weight(up && self.broker.waiting() > 0, 8),
            weight(up && self.events > 0, 4),
            3,
            2,
        ];
        let mut dice = self.chance.u32(..weights.iter().sum::<u32>());
        let kind = weights.iter().position(|weight| {
            let hit = dice < *weight;
            dice = dice.saturating_sub(*weight);
            hit
        });
        match kind {
            Some(0) => self.step_task(ready),
            Some(1) => {
                let most = self.chance.usize(1..=waiting);
                self.write(most);
            }
            Some(2) => {
                self.trace.note("a publication arrives", 0);
                self.broker.take(Some(&mut self.chance));
            }
            Some(3) => self.hand(false, false),
            Some(4) => self.submit(),
            Some(5) => {
                let by = match self.chance.u8(..8) {
                    0 => Duration::from_secs(self.chance.u64(1..40)),
                    1..4 => surroundings::until_next().unwrap_or_default(),
                    _ => Duration::from_millis(self.chance.u64(1..500)),
                };
                self.wind(by);
            }
            _ => self.fault(),
        }
    }

    fn step_task(&mut self, ready: usize) {
        let nth = self.chance.usize(..ready);
        self.trace.note("a task goes on", nth as u64);
        surroundings::step(nth);
    }

    fn write(&mut self, mut most: usize) {
        self.trace.note("the log commits", most as u64);
        if let Some(node) = &mut self.node {
            if self.disk_full && self.chance.u8(..4) > 0 {
                self.trace.note("the disk is full", 0);
                node.turns.spoil(LogError::Full, false);
                most = node.turns.waiting();
            }
            node.turns.take(&self.connection.lock().unwrap(), most);
        }
    }

    fn wind(&mut self, by: Duration) {
        self.trace.note("ms pass:", by.as_millis() as u64);
        surroundings::wind(by);
    }

    /// Gives a message, or those of a batch, to a worker.
    fn hand(&mut self, twice: bool, healthy: bool) {
        let Some(owner) = self.owner() else { return };
        let batching = |trigger: &Name, function: &Name| self.catalog.batching(trigger, function);
        let (handed, batching) = self.broker.hand(&mut self.chance, twice, batching);
        if handed.is_empty() {
            return;
        }
        let manner = Manner::of(&mut self.chance, healthy);
        for handed in &handed {
            self.trace.note("a worker gets message", handed.sequence);
            if self.trace.aloud {
                println!("      {:?} {manner:?}", handed.claim);
            }
        }
        let (broker, executions) = (self.broker.clone(), self.executions.clone());
        ambient::spawn(worker::work(owner, broker, executions, handed, batching.is_some(), manner));
    }

    /// No more faults: everything that was accepted comes to its end.
    fn heal(&mut self) -> Result<(), String> {
        self.trace.note("no more faults", 0);
        self.broker.connect(true);
        self.broker.fill_up(false);
        self.configure(self.catalog.clone());
        self.disk_full = false;
        // a log that is full of it keeps nothing from ending that was accepted
        let (mut waited, mut settled) = (Duration::ZERO, 0);
        loop {
            if self.began_anew() {
                continue;
            }
            let ready = surroundings::ready();
            let waiting = self.node.as_ref().map_or(0, |node| node.turns.waiting());
            if ready > 0 {
                self.step_task(ready);
            } else if waiting > 0 {
                self.write(waiting);
            } else if self.broker.sent() > 0 {
                self.trace.note("a publication arrives", 0);
                self.broker.take(None);
            } else if self.owner().is_some() && self.broker.waiting() > 0 {
                self.hand(false, true);
            } else {
                let unended = Check::unended(&self.connection.lock().unwrap());
                if unended.is_empty() {
                    return Ok(());
                }
                if self.owner().is_some() && Check::is_blocked(&self.connection.lock().unwrap()) {
                    // somebody looks at the letters; redriven ones may die again
                    settled += 1;
                    if settled > SETTLED_AFTER {
                        return Err(format!("{unended:?} stay blocked"));
                    }
                    if settled <= REDRIVEN {
                        self.replay(true);
                    } else {
                        self.drop_letters();
                    }
                    continue;
                }
                if waited > HEALED_WITHIN {
                    return Err(format!("{unended:?} has not ended"));
                }
                let Some(by) = surroundings::until_next() else { return Err("nothing goes on".to_owned()) };
                waited += by;
                self.wind(by);
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.trace.aloud {
            said::show(&self.connection.lock().unwrap());
            if let Some(node) = &self.node {
                println!("{:#?}", node.owner.window());
            }
        }
        surroundings::leave();
    }
}
