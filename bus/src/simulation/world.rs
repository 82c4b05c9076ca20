//! A node, its broker, its workers and whoever sends to it, and the steps they take.

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
use rusqlite::{Connection, types::ValueRef};
use tokio_util::sync::CancellationToken;

use super::{
    broker::Broker,
    check::{Check, Journal, Submitted},
    project, surroundings,
    worker::{self, Executions, Manner},
};
use crate::{
    Event, EventId, ambient,
    catalog::Catalog,
    log::{Log, Turns, query::Selection, replay::Request},
    owner::Owner,
    relay::Relay,
};

/// Everything has ended this long after the faults, or it never will.
const HEALED_WITHIN: Duration = Duration::from_mins(30);
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
        let owner = Owner::new(log, "node".into(), project::name("sim"), self.in_force.clone());
        let relay = Relay::new(owner.clone(), self.broker.clone());
        let up = Arc::new(AtomicBool::new(false));
        let (starting, ready) = (owner.clone(), up.clone());
        ambient::spawn(async move {
            starting.recover().await.unwrap();
            ready.store(true, Ordering::Relaxed);
            relay.run(CancellationToken::new()).await;
        });
        self.broker.serve(Some(owner.clone()));
        self.node = Some(Node { owner, turns, up });
    }

    /// The process is gone, whatever it was about to do; the log is as it was committed.
    fn kill(&mut self) {
        surroundings::kill();
        self.broker.serve(None);
        self.node = None;
        self.broker.node_ended(&mut self.chance);
        self.check.ended_stay(&self.connection.lock().unwrap());
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
            sum_table(&connection, table, &mut self.trace.sum);
        }
        Ok(self.trace.sum.finish())
    }

    fn any_step(&mut self) {
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

    fn write(&mut self, most: usize) {
        self.trace.note("the log commits", most as u64);
        if let Some(node) = &mut self.node {
            node.turns.take(&self.connection.lock().unwrap(), most);
        }
    }

    fn wind(&mut self, by: Duration) {
        self.trace.note("ms pass:", by.as_millis() as u64);
        surroundings::wind(by);
    }

    /// Gives a message to a worker.
    fn hand(&mut self, twice: bool, healthy: bool) {
        let Some(owner) = self.owner() else { return };
        let Some(handed) = self.broker.hand(&mut self.chance, twice) else { return };
        let manner = Manner::of(&mut self.chance, healthy);
        self.trace.note("a worker gets message", handed.sequence);
        if self.trace.aloud {
            println!("      {:?} {manner:?}", handed.claim);
        }
        ambient::spawn(worker::work(owner, self.broker.clone(), self.executions.clone(), handed, manner));
    }

    /// Somebody sends an event: a new one, or one that was sent before, or another under the same id.
    fn submit(&mut self) {
        let Some(owner) = self.owner() else { return };
        let mut journal = self.journal.lock().unwrap();
        let known = journal.submitted.len();
        let again = known > 0 && self.chance.u8(..4) == 0;
        let event = if again {
            let mut event = journal.submitted[self.chance.usize(..known)].event.clone();
            if self.chance.bool() && matches!(event.id, EventId::Foreign(_)) {
                event.data = format!("{{\"key\":\"a\",\"n\":{known}}}").into();
            }
            // an id of ours is made for each event anew
            matches!(event.id, EventId::Foreign(_)).then_some(event)
        } else {
            None
        };
        let event = event.unwrap_or_else(|| {
            self.events -= 1;
            let key = ["a", "b"][self.chance.usize(..2)];
            let mut event = Event::new("/sim", "sent", format!("{{\"key\":\"{key}\",\"n\":{known}}}"));
            if self.chance.bool() {
                event.id = EventId::foreign(&format!("id-{known}"));
            }
            event.trigger = Some(project::name(project::TRIGGERS[self.chance.usize(..2)]));
            event
        });
        self.trace.note("an event is sent:", known as u64);
        if self.trace.aloud {
            println!("      {} by {:?}", event.id, event.trigger);
        }
        journal.submitted.push(Submitted { event: event.clone(), answer: None });
        let journal = self.journal.clone();
        ambient::spawn(async move {
            let answer = owner.accept(event, Vec::new()).await;
            journal.lock().unwrap().submitted[known].answer = Some(answer);
        });
    }

    fn fault(&mut self) {
        let kind = self.chance.u8(..12);
        self.trace.note("fault", kind.into());
        match kind {
            0 | 1 => {
                self.kill();
                if self.chance.bool() {
                    self.wind(Duration::from_secs(30));
                }
                self.start();
            }
            2 => self.broker.wipe(),
            3 => self.broker.cut(&mut self.chance),
            4 => self.broker.lose(&mut self.chance),
            5 => self.broker.connect(false),
            6 => self.broker.connect(true),
            7 => {
                let full = self.chance.bool();
                self.broker.fill_up(full);
            }
            8 => {
                let edited = if self.chance.bool() {
                    self.check.edited = true;
                    project::edited(&self.catalog, &mut self.chance)
                } else {
                    self.catalog.clone()
                };
                self.configure(edited);
            }
            9 => self.replay(),
            _ => self.hand(true, false),
        }
    }

    fn configure(&mut self, catalog: Catalog) {
        self.in_force.store(Arc::new(catalog));
        if let Some(node) = &self.node {
            node.owner.reconfigured();
        }
    }

    /// Dead letters are delivered again, or an event is.
    fn replay(&mut self) {
        let (Some(owner), true) = (self.owner(), self.events > 0) else { return };
        self.events -= 1;
        let request = Request { dead: self.chance.bool(), hold: self.chance.bool(), ..Request::default() };
        let mut selection = Selection::default();
        if !request.dead {
            let journal = self.journal.lock().unwrap();
            let Some(submitted) = journal.submitted.first() else { return };
            selection.ids.push(submitted.event.id.to_string());
        }
        ambient::spawn(async move {
            let _ = owner.replay(Request { selection, ..request }).await;
        });
    }

    /// No more faults: everything that was accepted comes to its end.
    fn heal(&mut self) -> Result<(), String> {
        self.trace.note("no more faults", 0);
        self.broker.connect(true);
        self.broker.fill_up(false);
        self.configure(self.catalog.clone());
        let mut waited = Duration::ZERO;
        loop {
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
            show(&self.connection.lock().unwrap());
            if let Some(node) = &self.node {
                println!("{:#?}", node.owner.window());
            }
        }
        surroundings::leave();
    }
}

/// What the log says, for people.
fn show(connection: &Connection) {
    let deliveries = "SELECT 'delivery ' || seq || ' of event ' || event || ' to ' || target || ' status ' || status || \
                      ' reason ' || coalesce(reason, '-') || ' attempts ' || attempts || ' key ' || coalesce(key, '-') || \
                      ' step ' || coalesce(run || ' ' || step, '-') FROM delivery ORDER BY seq";
    let attempts = "SELECT 'attempt ' || (id & 4095) || ' of ' || (id >> 12) || ' ' || coalesce(outcome, 'open') \
                    FROM attempt ORDER BY id";
    for sql in [deliveries, attempts] {
        let mut statement = connection.prepare(sql).unwrap();
        let lines = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        lines.for_each(|line| println!("{}", line.unwrap()));
    }
}

fn sum_table(connection: &Connection, table: &str, sum: &mut DefaultHasher) {
    let mut statement = connection.prepare_cached(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        for column in 0..columns {
            match row.get_ref(column).unwrap() {
                ValueRef::Null => 0.hash(sum),
                ValueRef::Integer(number) => number.hash(sum),
                ValueRef::Real(number) => number.to_bits().hash(sum),
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.hash(sum),
            }
        }
    }
}
