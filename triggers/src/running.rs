//! The triggers that run by themselves: one task each, by name, as the config says.
//!
//! [`Running::configure`] says what shall run; [`Running::run`] owns the tasks and makes it so. A trigger whose config
//! did not change goes on undisturbed; a changed one ends, having finished what it had begun, and only then its new
//! form starts, so that two of one name never run at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bus::{Bus, Name, Sink, presence::SteerError, sink::Accepted};
use chrono::Utc;
use futures_util::FutureExt;
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{TriggerConfig, TriggerKind},
    cron::{self, Cron},
    file::Files,
    queue::Queue,
    status::{Live, Status},
};

/// Before a trigger that broke down is started again.
const AGAIN: Duration = Duration::from_secs(5);

/// A handle; clones share the triggers.
#[derive(Clone)]
pub struct Running {
    bus: Bus,
    wanted: Arc<watch::Sender<Wanted>>,
    live: Arc<Mutex<HashMap<Name, Live>>>,
}

/// What shall run, and since when.
#[derive(Default, Clone)]
struct Wanted {
    triggers: BTreeMap<Name, TriggerKind>,
    since: Option<SystemTime>,
}

/// A trigger whose task runs.
struct Task {
    kind: TriggerKind,
    stop: CancellationToken,
    id: Id,
}

impl Running {
    pub fn new(bus: Bus) -> Self {
        Self { bus, wanted: Arc::default(), live: Arc::default() }
    }

    /// What shall run from now on. Those that others serve, `http` and `event`, are passed over.
    pub fn configure(&self, triggers: &BTreeMap<Name, TriggerConfig>, paused: &BTreeSet<Name>) {
        let ours = triggers.iter().filter(|(name, trigger)| runs(&trigger.kind) && !paused.contains(*name));
        let triggers = ours.map(|(name, trigger)| (name.clone(), trigger.kind.clone())).collect();
        self.wanted.send_replace(Wanted { triggers, since: Some(SystemTime::now()) });
    }

    /// Takes a time of a cron trigger now. It is an event like any other of that trigger, whatever its schedule says.
    pub async fn fire(&self, name: &Name, trigger: &TriggerConfig) -> Result<Accepted, SteerError> {
        let instead = match &trigger.kind {
            TriggerKind::Cron(config) => {
                let event = cron::fired(config, name, source(&self.bus, name), Utc::now());
                return Ok(self.bus.accept(event).await?);
            }
            TriggerKind::Http(_) => "send a request; `fnbus up` prints the calls to try".to_owned(),
            TriggerKind::File(_) => "put a file into the watched folder, or `touch` one".to_owned(),
            TriggerKind::Queue(queue) => {
                format!("publish a message: fnbus nats publish {} -d '{{}}'", one_of(&queue.queue.subject))
            }
            TriggerKind::Event(_) => "put an event on the bus: fnbus emit TYPE -d '{}'".to_owned(),
        };
        Err(SteerError::NotThis { instead })
    }

    /// What a trigger tells of itself; nothing when it does not run.
    pub fn status(&self, trigger: &Name) -> Status {
        self.lives().get(trigger).map(Live::get).unwrap_or_default()
    }

    /// Runs the triggers until shut down; returns when all have ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        let mut set = JoinSet::new();
        let mut tasks = HashMap::new();
        loop {
            let want = wanted.borrow_and_update().clone();
            self.adjust(&want, &mut tasks, &mut set);
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { break },
                Some(ended) = set.join_next_with_id(), if !set.is_empty() => forget(&mut tasks, &ended),
                () = shutdown.cancelled() => break,
            }
        }
        for task in tasks.values() {
            task.stop.cancel();
        }
        while set.join_next().await.is_some() {}
    }

    /// Tells to end what is no longer wanted, and starts what is wanted and not there.
    fn adjust(&self, wanted: &Wanted, tasks: &mut HashMap<Name, Task>, set: &mut JoinSet<()>) {
        let want = &wanted.triggers;
        for (name, task) in tasks.iter() {
            if want.get(name) != Some(&task.kind) {
                task.stop.cancel();
            }
        }
        self.lives().retain(|name, _| want.contains_key(name) || tasks.contains_key(name));
        for (name, kind) in want {
            // One that is ending is looked for again when it has ended.
            if tasks.contains_key(name) {
                continue;
            }
            let one = One {
                bus: self.bus.clone(),
                trigger: name.clone(),
                kind: kind.clone(),
                since: wanted.since.unwrap_or_else(SystemTime::now),
                live: Live::default(),
                stop: CancellationToken::new(),
            };
            self.lives().insert(name.clone(), one.live.clone());
            let stop = one.stop.clone();
            let id = set.spawn(one.kept()).id();
            tasks.insert(name.clone(), Task { kind: kind.clone(), stop, id });
        }
    }

    fn lives(&self) -> MutexGuard<'_, HashMap<Name, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A subject that a pattern means, and that a shell takes as it is.
fn one_of(pattern: &str) -> String {
    pattern.replace(['*', '>'], "x")
}

/// The source of a trigger's events.
fn source(bus: &Bus, trigger: &Name) -> Arc<str> {
    format!("/{}/{trigger}", bus.subjects().namespace()).into()
}

/// Whether a trigger has a task of its own.
fn runs(kind: &TriggerKind) -> bool {
    match kind {
        TriggerKind::Cron(_) | TriggerKind::File(_) | TriggerKind::Queue(_) => true,
        TriggerKind::Http(_) | TriggerKind::Event(_) => false,
    }
}

fn forget(tasks: &mut HashMap<Name, Task>, ended: &Result<(Id, ()), JoinError>) {
    let id = match ended {
        Ok((id, ())) => *id,
        Err(error) => error.id(),
    };
    tasks.retain(|_, task| task.id != id);
}

/// One trigger to run.
#[derive(Clone)]
struct One {
    bus: Bus,
    trigger: Name,
    kind: TriggerKind,
    /// When it was asked for.
    since: SystemTime,
    live: Live,
    stop: CancellationToken,
}

impl One {
    /// Runs it until it is told to end, again when it breaks down.
    async fn kept(self) {
        loop {
            if AssertUnwindSafe(self.clone().run()).catch_unwind().await.is_ok() {
                return;
            }
            tracing::error!(trigger = %self.trigger, "the trigger broke down; it is started again");
            self.live.state("broke down");
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn run(self) {
        let Self { bus, trigger, kind, since, live, stop } = self;
        let source = source(&bus, &trigger);
        match kind {
            TriggerKind::Cron(config) => Cron { sink: bus, trigger, source, config, live }.run(stop).await,
            TriggerKind::File(config) => Files { sink: bus, trigger, source, config, since, live }.run(stop).await,
            TriggerKind::Queue(config) => Queue { bus, trigger, source, config, live }.run(stop).await,
            TriggerKind::Http(_) | TriggerKind::Event(_) => {}
        }
    }
}
