//! Where a fault happens: a node with a project that has some of everything, a load on it, and in the end the checker.

use std::{
    collections::HashMap,
    fs,
    process::ExitStatus,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep};

use super::{
    Dice, Tally, Trial,
    checker::{Shape, judge},
    history::{FOLLOWED, History, done, unended},
    producer::{Answers, Producer, Traffic},
    recorder::{CODE, RECORD},
};
use crate::{Node, Process, Project};

/// Everything ends so soon after the fault is over.
const HEALED: Duration = Duration::from_mins(1);
/// No process of a node is left so long after its end.
const GONE: Duration = Duration::from_secs(2);
/// A value that only the environment of the functions may have.
const SECRET: &str = "canary-7f3a9d5e1c";

/// A started node, its load and what was found so far.
pub struct Arena {
    pub node: Node,
    pub dice: Dice,
    /// What breaks a promise on the way is counted here.
    pub tally: Tally,
    /// What the checker expects of the project; changed by a fault that brings functions of its own.
    pub shape: Shape,
    producer: Option<Producer>,
    /// When the node was killed.
    kills: Vec<i64>,
    /// What was done at a kill, and when it was.
    done: HashMap<i64, i64>,
}

impl Arena {
    /// The usual project: `POST /jobs` to `work` whose output `follow` gets and then a file, `POST /runs` to the pipeline
    /// `flow`, which is `step` twice, and `POST /keyed` to `keyed`, ordered by `key`. All of them are recorders.
    pub fn project() -> Project {
        let project = Project::new();
        let record = project.path().join(RECORD);
        let function = |name: &str, keys: &str| {
            format!(
                "[functions.{name}]\nruntime = 'python'\ncode = 'recorder'\nconcurrency = 2\nfolders = {{ write = 'notes' }}\n\
                 env = {{ RECORD = '{}', SECRET = {{ secret = 'env:FNBUS_SECRET' }} }}\n\
                 retry = {{ attempts = 5, wait = '50ms', max_wait = '200ms' }}\n{keys}\n",
                record.display()
            )
        };
        let trigger = |name: &str, to: &str, keys: &str| {
            format!("[triggers.{name}]\nhttp = 'POST /{name}'\nmode = 'async'\npayload = 'body'\nto = '{to}'\n{keys}\n")
        };
        let config = [
            function("work", "then = 'follow'"),
            function("follow", &format!("then = 'file:{FOLLOWED}'")),
            function("step", ""),
            function("keyed", ""),
            "[pipelines.flow]\nsteps = ['step', 'step']\n".to_owned(),
            trigger("jobs", "work", ""),
            trigger("runs", "flow", ""),
            trigger("keyed", "keyed", "order_by = 'data.key'"),
        ];
        project.file("recorder/app.py", CODE).variable("FNBUS_SECRET", SECRET).config(&config.concat())
    }

    /// Starts the usual project.
    pub async fn open(trial: &Trial) -> Self {
        Self::of(trial, Self::project()).await
    }

    /// Starts a project, such as the usual one with a `nats` of its own, more environment or a program in front.
    pub async fn of(trial: &Trial, project: Project) -> Self {
        let node = project.start().await;
        Self {
            node,
            dice: trial.dice(),
            tally: Tally::default(),
            shape: Shape::default(),
            producer: None,
            kills: Vec::new(),
            done: HashMap::new(),
        }
    }

    /// Begins to send.
    pub fn produce(&mut self, traffic: &Traffic) {
        self.producer = Some(Producer::start(self.node.http(), self.node.path(), traffic, &mut self.dice));
    }

    /// What the load was answered so far.
    pub fn answers(&self) -> Answers {
        self.producer.as_ref().map(Producer::answers).unwrap_or_default()
    }

    /// Waits until so many more events were accepted.
    pub async fn accepted(&self, more: usize) {
        let wanted = self.answers().accepted + more;
        crate::eventually(&format!("{more} more events are accepted"), || async {
            (self.answers().accepted >= wanted).then_some(())
        })
        .await;
    }

    /// Waits until so many more deliveries are done.
    pub async fn finished(&self, more: usize) {
        let count = || done(&self.node.data()).map_or(0, |done| done.len());
        let wanted = count() + more;
        crate::eventually(&format!("{more} more deliveries are done"), || async { (count() >= wanted).then_some(()) })
            .await;
    }

    /// Ends the load; what it was answered is judged.
    pub async fn quiet(&mut self) -> Answers {
        let Some(producer) = self.producer.take() else { return Answers::default() };
        let answers = producer.stop().await;
        for wrong in &answers.wrong {
            self.tally.broken(wrong);
        }
        answers
    }

    /// Kills the node with SIGKILL and looks at what it left.
    pub async fn kill(&mut self) {
        self.node.kill();
        self.died().await;
    }

    /// The node has died by itself: looks at what it left.
    pub async fn died(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.kills.push(now.as_micros() as i64);
        self.nothing_is_left().await;
        self.done_stays_done();
    }

    /// Starts the node again, and waits until it is ready.
    pub async fn restart(&mut self) {
        self.node.restart().await;
        self.moved();
    }

    /// The same for a node that may die before it is ready; then how it ended.
    pub async fn try_restart(&mut self) -> Result<(), ExitStatus> {
        let started = self.node.try_restart().await;
        self.moved();
        started
    }

    /// The load goes to where the node is now.
    pub fn moved(&self) {
        if let Some(producer) = &self.producer {
            producer.address(self.node.http());
        }
    }

    /// Counts what outlives the node by more than two seconds, and ends it.
    async fn nothing_is_left(&mut self) {
        let deadline = Instant::now() + GONE;
        let mut left = self.node.processes();
        while !left.is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
            left = self.node.processes();
        }
        for process in left.iter().filter(|process| process.is_there()) {
            self.tally.orphan(format!("process {} outlives its node: {}", process.pid, process.command));
            process.kill();
        }
    }

    /// The log of an earlier kill is in its place again: what was done since is not.
    pub fn restored(&mut self, killed: i64) {
        self.kills.push(killed);
        self.done.clear();
    }

    /// What was done at an earlier kill still is, since the same moment.
    fn done_stays_done(&mut self) {
        let Ok(now) = done(&self.node.data()) else { return };
        let now: HashMap<i64, i64> = now.into_iter().collect();
        for (delivery, ended) in &self.done {
            if now.get(delivery).is_none_or(|then| then != ended) {
                self.tally.doubled(format!("delivery {delivery} was done, and was ended again"));
            }
        }
        self.done = now;
    }

    /// How many deliveries are unended.
    pub fn unended(&self) -> usize {
        unended(&self.node.data()).unwrap_or(usize::MAX)
    }

    /// Waits until everything has ended, for as long as each minute something ends.
    pub async fn drained(&self) {
        let (mut left, mut since) = (self.unended(), Instant::now());
        while left > 0 {
            assert!(since.elapsed() < HEALED, "nothing of what waits has ended for a minute: {left}");
            sleep(Duration::from_millis(50)).await;
            let now = self.unended();
            if now < left {
                since = Instant::now();
            }
            left = now;
        }
    }

    /// The fault is over and the node runs: everything is given a minute to end.
    pub async fn heal(&mut self) {
        self.quiet().await;
        let deadline = Instant::now() + HEALED;
        while self.unended() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Heals, ends the node in order and holds everything that was written down against the promises.
    pub async fn check(mut self) -> Tally {
        self.heal().await;
        self.no_secret_is_shown();
        let status = self.node.stop().await;
        self.tally.must(status.success(), || format!("the node did not end in order: {status}"));
        self.nothing_is_left().await;
        self.done_stays_done();
        match History::read(self.node.path(), &self.node.data()) {
            Ok(history) => self.tally.add(judge(&History { kills: self.kills, ..history }, &self.shape)),
            Err(error) => self.tally.lost(format!("the log cannot be read: {error}")),
        }
        if !self.tally.is_clean() {
            eprintln!("--- fnbus said:\n{}---", self.node.said());
        }
        self.tally
    }

    /// A secret of the environment stands neither in what is written nor in what everybody can see of a process.
    fn no_secret_is_shown(&mut self) {
        let mut shown: Vec<String> = Vec::new();
        for name in [".fnbus/log.db", ".fnbus/log.db-wal", "up.log"] {
            let text = fs::read(self.node.path().join(name)).unwrap_or_default();
            if text.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()) {
                shown.push(name.to_owned());
            }
        }
        shown.extend(Process::showing(SECRET).iter().map(|process| process.command.clone()));
        for place in shown {
            self.tally.broken(format!("a secret can be read in {place}"));
        }
    }
}
