//! JetStream as the node meets it: a work queue that takes messages, hands them out until they are acknowledged, and
//! may be away, full, wiped or have lost its tail.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    context::{PublishError, PublishErrorKind},
    publish::PublishAck,
};
use fastrand::Rng;
use tokio::sync::{Notify, oneshot};

use super::worker;
use crate::{
    Name, RowId, Target, ambient,
    batch::Batching,
    carrier::{Ack, Carrier},
    log::backlog::Due,
    nats::stream::{ACK_WAIT, Incarnation, StreamError},
    owner::{Claim, Owner},
    window::Sent,
};

/// A message under an id that came so long ago is taken for the same.
const DUPLICATES: Duration = Duration::from_secs(20);

/// The broker; clones share it.
#[derive(Clone)]
pub(super) struct Broker {
    state: Arc<Mutex<State>>,
    connection: Arc<Connection>,
}

/// Whether the broker is there. A `watch` would wake who waits in an order of its own.
struct Connection {
    there: AtomicBool,
    changed: Notify,
}

impl Connection {
    fn is(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    async fn becomes(&self, there: bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is() == there {
                return;
            }
            changed.await;
        }
    }
}

struct State {
    full: bool,
    life: u32,
    last: u64,
    stored: BTreeMap<u64, Stored>,
    /// By the ids of messages.
    seen: HashMap<(RowId, u32), (u64, Instant)>,
    /// On the way here.
    sent: VecDeque<(Message, oneshot::Sender<Result<u64, PublishErrorKind>>)>,
    /// Runs what goes to no function.
    owner: Option<Owner>,
    /// How those attempts end.
    chance: Rng,
}

#[derive(Clone)]
struct Message {
    function: Name,
    delivery: RowId,
    publication: u32,
    /// Of its event.
    trigger: Option<Name>,
    id: String,
}

struct Stored {
    message: Message,
    /// In somebody's hands until then.
    until: Option<Instant>,
}

/// A message in a worker's hands.
pub(super) struct Handed {
    pub(super) sequence: u64,
    pub(super) claim: Claim,
    /// The id of its event.
    pub(super) event: String,
}

impl Broker {
    pub(super) fn new(chance: Rng) -> Self {
        let state = State {
            full: false,
            life: 0,
            last: 0,
            stored: BTreeMap::new(),
            seen: HashMap::new(),
            sent: VecDeque::new(),
            owner: None,
            chance,
        };
        let connection = Connection { there: AtomicBool::new(true), changed: Notify::new() };
        Self { state: Arc::new(state.into()), connection: Arc::new(connection) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is told how what goes outside has ended; none: the node is dead.
    pub(super) fn serve(&self, owner: Option<Owner>) {
        self.state().owner = owner;
    }

    pub(super) fn connect(&self, connected: bool) {
        self.connection.there.store(connected, Ordering::Relaxed);
        self.connection.changed.notify_waiters();
    }

    pub(super) fn fill_up(&self, full: bool) {
        self.state().full = full;
    }

    /// How many publications are on their way here.
    pub(super) fn sent(&self) -> usize {
        self.state().sent.len()
    }

    /// Takes the next publication, or not: it may be refused, and the answer may be lost.
    pub(super) fn take(&self, unreliable: Option<&mut Rng>) {
        let mut state = self.state();
        let Some((message, answer)) = state.sent.pop_front() else { return };
        let dice = unreliable.map_or(u8::MAX, |chance| chance.u8(..40));
        let away = !self.connection.is();
        if state.full || dice == 0 || away && dice < 30 {
            let _ = answer.send(Err(PublishErrorKind::TimedOut));
            return;
        }
        let sequence = state.store(message);
        let answered = if away || dice == 1 { Err(PublishErrorKind::TimedOut) } else { Ok(sequence) };
        let _ = answer.send(answered);
    }

    /// How many messages could be handed out.
    pub(super) fn waiting(&self) -> usize {
        let now = ambient::instant();
        if !self.connection.is() {
            return 0;
        }
        self.state().stored.values().filter(|stored| stored.until.is_none_or(|until| until <= now)).count()
    }

    /// Hands one out, or some that may share an invocation, and how those are gathered; `twice` also what somebody
    /// holds.
    pub(super) fn hand(
        &self,
        chance: &mut Rng,
        twice: bool,
        batching: impl Fn(&Name, &Name) -> Option<Batching>,
    ) -> (Vec<Handed>, Option<Batching>) {
        let now = ambient::instant();
        let mut state = self.state();
        let mut free: Vec<(u64, &mut Stored)> = state
            .stored
            .iter_mut()
            .filter(|(_, stored)| twice || stored.until.is_none_or(|until| until <= now))
            .map(|(sequence, stored)| (*sequence, stored))
            .collect();
        if free.is_empty() {
            return (Vec::new(), None);
        }
        let first = free.swap_remove(chance.usize(..free.len()));
        let kind = (first.1.message.trigger.clone(), first.1.message.function.clone());
        let batching = kind.0.as_ref().and_then(|trigger| batching(trigger, &kind.1));
        let others = free.into_iter().filter(|(_, stored)| {
            let Message { trigger, function, .. } = &stored.message;
            (trigger, function) == (&kind.0, &kind.1)
        });
        let room = batching.map_or(0, |batching| batching.size as usize - 1);
        let handed = std::iter::once(first).chain(others.take(room)).map(|(sequence, stored)| {
            stored.until = Some(now + ACK_WAIT);
            let Message { function, delivery, publication, id, .. } = stored.message.clone();
            Handed { sequence, claim: Claim { target: function.into(), delivery, publication }, event: id }
        });
        (handed.collect(), batching)
    }

    /// A message has served. What is acknowledged is what has that number now.
    pub(super) fn ack(&self, sequence: u64) {
        let mut state = self.state();
        if state.stored.get(&sequence).is_some_and(|stored| stored.until.is_some()) {
            state.stored.remove(&sequence);
        }
    }

    /// A message is still held.
    pub(super) fn progress(&self, sequence: u64) {
        if let Some(stored) = self.state().stored.get_mut(&sequence) {
            stored.until = Some(ambient::instant() + ACK_WAIT);
        }
    }

    /// All of it is gone, and another stream there.
    pub(super) fn wipe(&self) {
        let mut state = self.state();
        state.life += 1;
        state.last = 0;
        state.stored.clear();
        state.seen.clear();
    }

    /// What came last is gone, as after a power cut.
    pub(super) fn cut(&self, chance: &mut Rng) {
        let mut state = self.state();
        let last = chance.u64(state.last.saturating_sub(3)..=state.last);
        state.last = last;
        state.stored.retain(|sequence, _| *sequence <= last);
        state.seen.retain(|_, (sequence, _)| *sequence <= last);
    }

    /// One message is gone.
    pub(super) fn lose(&self, chance: &mut Rng) {
        let mut state = self.state();
        let nth = chance.usize(..state.stored.len().max(1));
        if let Some(sequence) = state.stored.keys().nth(nth).copied() {
            state.stored.remove(&sequence);
        }
    }

    /// The node ended: of what was on its way some arrives.
    pub(super) fn node_ended(&self, chance: &mut Rng) {
        let mut state = self.state();
        let sent = std::mem::take(&mut state.sent);
        for (message, _) in sent {
            if chance.bool() && !state.full {
                state.store(message);
            }
        }
    }
}

impl State {
    fn store(&mut self, message: Message) -> u64 {
        let (id, now) = ((message.delivery, message.publication), ambient::instant());
        if let Some((sequence, at)) = self.seen.get(&id)
            && *at + DUPLICATES > now
        {
            return *sequence;
        }
        self.last += 1;
        self.seen.insert(id, (self.last, now));
        self.stored.insert(self.last, Stored { message, until: None });
        self.last
    }
}

impl Carrier for Broker {
    async fn connected(&self) {
        self.connection.becomes(true).await;
    }

    async fn publish(&self, _class: &'static str, target: &Target, due: &Due) -> Result<Ack, PublishError> {
        let function = target.name().ok_or_else(|| PublishError::new(PublishErrorKind::Other))?;
        let (answer, answered) = oneshot::channel();
        let message = Message {
            function: function.clone(),
            delivery: due.id,
            publication: due.publication,
            trigger: due.event.trigger.clone(),
            id: due.event.id.to_string(),
        };
        self.state().sent.push_back((message, answer));
        Ok(Box::pin(async move {
            let sequence = answered.await.unwrap_or(Err(PublishErrorKind::TimedOut)).map_err(PublishError::new)?;
            let (stream, domain) = (String::new(), String::new());
            Ok(PublishAck { stream, sequence, domain, duplicate: false, value: None })
        }))
    }

    fn disconnected(&self) -> impl Future<Output = ()> + Send + 'static {
        let connection = self.connection.clone();
        async move { connection.becomes(false).await }
    }

    async fn is_stored(&self, sent: &Sent) -> bool {
        let stored = |state: &State| {
            let message = state.stored.get(&sent.sequence).map(|stored| &stored.message);
            message.is_some_and(|message| (message.delivery, message.publication) == (sent.id, sent.publication))
        };
        let stored = !self.connection.is() || stored(&self.state());
        super::surroundings::step_aside().await;
        stored
    }

    async fn incarnation(&self, _classes: &BTreeSet<&'static str>) -> Result<Incarnation, StreamError> {
        super::surroundings::step_aside().await;
        if !self.connection.is() {
            return Err(StreamError::JetStream("it is away".to_owned()));
        }
        let state = self.state();
        let first_sequence = state.stored.keys().next().copied().unwrap_or(state.last + 1);
        Ok(Incarnation { id: state.life.to_string(), first_sequence, last_sequence: state.last })
    }

    fn send(&self, target: &Target, due: Due) {
        let mut state = self.state();
        let Some(owner) = state.owner.clone() else { return };
        let fails = state.chance.u8(..4) == 0;
        ambient::spawn(worker::send(owner, target.clone(), due, fails));
    }
}
