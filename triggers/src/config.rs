//! `[http]` and `[triggers.NAME]`: what turns the world into events.

mod cron;
mod file;
mod http;
mod keys;
mod kind;
mod queue;
mod reading;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use bus::{Target, batch::Batching, config::Word, event::FileChange, order::Order, sink::LogMode};

use crate::{cron::Expression, file::Pattern, http::route::RoutePath, queue::QueueSource};

pub use cron::Zone;

/// `[http]`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpConfig {
    /// Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Largest request body in bytes; default 6 MiB.
    pub max_body: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8080)), max_body: 6 << 20 }
    }
}

/// `[triggers.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerConfig {
    pub kind: TriggerKind,
    /// At least one.
    pub to: Vec<Target>,
    pub payload: PayloadKey,
    /// Events with one key are delivered one at a time, in their order.
    pub order_by: Option<Order>,
    /// What to try it with.
    pub example: Option<String>,
}

/// The key that names a trigger's kind, with what belongs to that kind.
#[derive(Debug, Clone, PartialEq)]
pub enum TriggerKind {
    Http(HttpTrigger),
    Cron(CronTrigger),
    File(FileTrigger),
    Queue(QueueTrigger),
    Event(EventTrigger),
}

/// `http = "POST /orders/{region}"`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpTrigger {
    pub routes: Vec<RoutePath>,
    pub mode: Mode,
    /// How long a synchronous caller waits; default: the function's timeout.
    pub timeout: Option<Duration>,
    /// Overrides `[http] max_body`.
    pub max_body: Option<u64>,
    pub log: LogMode,
}

/// Whether the HTTP answer is the function's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The answer is the function's response.
    #[default]
    Sync,
    /// The answer is 202 and the event's id, as soon as the event is on disk.
    Async,
}

/// `cron = "0 2 * * *"`.
#[derive(Debug, Clone, PartialEq)]
pub struct CronTrigger {
    /// At least one.
    pub expressions: Vec<Expression>,
    /// The zone the expressions are in.
    pub zone: Zone,
    pub overlap: Overlap,
    pub missed: Missed,
    /// Slots that were missed longer ago than this are not made up for.
    pub missed_within: Duration,
}

/// What happens at a slot while an event of an earlier one is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// The slot is left out.
    #[default]
    Skip,
    /// They run side by side.
    Allow,
}

/// What happens with slots at which nothing ran, because fnbus did not run or the log did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Missed {
    /// The last of them is made up for.
    #[default]
    Last,
    /// Each is made up for.
    All,
    /// They are left out.
    None,
}

/// `file = "inbox/*.csv"`.
#[derive(Debug, Clone, PartialEq)]
pub struct FileTrigger {
    /// At least one.
    pub patterns: Vec<Pattern>,
    /// What is told.
    pub on: Vec<FileChange>,
    /// A file is finished when nothing about it changed for so long.
    pub settle: Duration,
    /// The content goes with the event.
    pub body: bool,
    /// The folder of the config file: paths are told from there.
    pub base: PathBuf,
}

/// `queue = "nats:payments.>"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueTrigger {
    pub queue: QueueSource,
    pub dedup: Dedup,
    /// Functions get so many messages at once; none: one by one.
    pub batch: Option<Batching>,
}

/// What tells that two messages are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dedup {
    /// Their place in the stream.
    #[default]
    Place,
    /// What their sender called them: `Nats-Msg-Id`, where it is given.
    MsgId,
}

impl Word for Dedup {
    const WORDS: &'static [(&'static str, Self)] = &[("place", Self::Place), ("msg-id", Self::MsgId)];
}

impl Word for Overlap {
    const WORDS: &'static [(&'static str, Self)] = &[("skip", Self::Skip), ("allow", Self::Allow)];
}

impl Word for Missed {
    const WORDS: &'static [(&'static str, Self)] = &[("last", Self::Last), ("all", Self::All), ("none", Self::None)];
}

/// `event = { type = ["order.priced"] }`: events already on the bus, by equality of their attributes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventTrigger {
    /// Attribute (`type`, `source`, `subject`, `trigger` or an extension) -> any of these values.
    pub attributes: BTreeMap<String, Vec<String>>,
}

impl Word for Mode {
    const WORDS: &'static [(&'static str, Self)] = &[("sync", Self::Sync), ("async", Self::Async)];
}

/// What the function gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadKey {
    /// The shape AWS Lambda gives for this kind of trigger.
    #[default]
    Lambda,
    Body,
    CloudEvent,
}

impl Word for PayloadKey {
    const WORDS: &'static [(&'static str, Self)] =
        &[("lambda", Self::Lambda), ("body", Self::Body), ("cloudevent", Self::CloudEvent)];
}
