//! What the owner has on its way to workers: a pure state machine, the in-memory side of `begin` and `end`.
//!
//! The backlog stays in the log. Of each function at most so many deliveries as it can run and its share of what may wait
//! on the way, lowest first, are open here: loaded, published and perhaps begun. The log decides what is true; the window
//! decides what is allowed next, without waiting for the log:
//!
//! ```text
//!   in the log, pending ──load──> publishing ──ack──> published ──begin──> begun ──end──> gone
//!                       <──────────failed──┘     <──────────── retry due, lease lost ──┘
//! ```

// What is on its way to one target.
mod lane;

pub use lane::Limit;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    ambient,
    id::{Born, RowId},
    log::{attempt::attempt_row, backlog::Due},
    target::Target,
};

use lane::{Lane, Open, Share, State};

/// A begun attempt that is not renewed for so long is lost.
pub const LEASE: Duration = Duration::from_secs(20);

/// Deliveries on their way to one target outside the bus.
const OUTSIDE: usize = 16;

/// Bytes of bodies in memory at most, of deliveries to functions that NATS does not have yet: beyond, they wait in the
/// log alone.
pub const LOAD: usize = 64 << 20;

/// Deliveries that may be on their way to functions beyond what those can run, shared equally by the functions that have
/// any: what a worker takes off the stream must not be of one function, however many wait for it.
const AHEAD: usize = 1024;
/// A function's part is not smaller than this.
const LEAST: usize = 8;
/// Bytes of the bodies of what is on its way to functions and has not begun, shared in the same way.
const WEIGHT: usize = 64 << 20;

/// The open deliveries of every target.
#[derive(Debug, Default)]
pub struct Window {
    /// In the order of their targets, so that the same happenings lead to the same decisions.
    lanes: BTreeMap<Target, Lane>,
    load: Arc<AtomicUsize>,
    /// Functions that had anything on its way, or waiting to be, at the last look.
    laden: usize,
}

/// A message that JetStream should have: published, and nobody asked to begin it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub target: Target,
    pub id: RowId,
    pub publication: u32,
    pub sequence: u64,
}

/// What to load next of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    pub target: Target,
    pub again: Vec<i64>,
    pub after: i64,
    /// How many rows above `after` at most; 0: none.
    pub room: usize,
    /// Bytes of bodies after which no further row is loaded.
    pub bytes: usize,
}

/// The owner's answer to a worker that wants to run a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Run it, as this attempt.
    Run { attempt: RowId, n: u32 },
    /// Not this message: it was published anew, or has moved on.
    Stale,
    /// An attempt is open.
    Busy,
    /// Not open here; the log must be asked.
    Unknown,
}

impl Window {
    /// Applies a config: lanes of functions it does not name are closed.
    pub fn limits(&mut self, limits: &HashMap<Target, Limit>) {
        for (target, lane) in &mut self.lanes {
            let whole = || target.name().and_then(|name| limits.get(&name.clone().into()));
            lane.limit = limits.get(target).or_else(whole).copied().unwrap_or_else(|| unlisted(target));
        }
        for (name, limit) in limits {
            let lane = self.lanes.entry(name.clone()).or_default();
            lane.limit = *limit;
        }
    }

    /// A pending row is in the log.
    pub fn arrived(&mut self, target: &Target, row: i64) {
        let lane = self.lane(target);
        if row > lane.after {
            lane.more = true;
        } else if !lane.open.contains_key(&row) {
            lane.again.insert(row);
        }
    }

    /// A row that was just written, with all it carries. Opened at once where nothing waits before it; else it has
    /// merely arrived. A row that the walk has passed is never opened so: it may have run and ended since.
    pub fn offered(&mut self, target: &Target, due: &Due) -> bool {
        let (laden, load, share) = (self.is_laden(target), self.load.clone(), self.share());
        let lane = self.lane(target);
        let next = due.row > lane.after && !lane.more && !lane.loading && lane.again.is_empty();
        if !next || laden || lane.room(share) == 0 || lane.is_heavy(share) {
            return false;
        }
        lane.after = due.row;
        lane.open(due, target, &load);
        true
    }

    /// What one function may have of what they share.
    fn share(&self) -> Share {
        let functions = self.laden.max(1);
        Share { ahead: (ambient::bound(AHEAD) / functions).max(LEAST), weight: WEIGHT / functions }
    }

    /// No more bodies for this target fit into memory until NATS has taken some.
    pub fn is_laden(&self, target: &Target) -> bool {
        target.name().is_some() && self.is_full()
    }

    fn is_full(&self) -> bool {
        self.load.load(Ordering::Relaxed) >= LOAD
    }

    /// A row that was held back behind another may go. It may lie anywhere; what is above it was not looked for.
    pub fn freed(&mut self, target: &Target, row: i64) {
        self.lane(target).again.insert(row);
    }

    /// Lanes with room and something to load, each at most `chunk` rows, so that no function holds up another. A
    /// lane is filled again only when half of it is free: loading is cheaper in bulk. What is to be loaded is wanted no
    /// more: what arrives while the log is read is wanted anew, and so is never missed.
    pub fn fills(&mut self, chunk: usize) -> Vec<Fill> {
        let full = self.is_full();
        let functions = self.lanes.iter().filter(|(target, _)| target.name().is_some());
        self.laden =
            functions.filter(|(_, lane)| lane.limit.running > 0 && (lane.is_wanted() || !lane.open.is_empty())).count();
        let share = self.share();
        let lanes = self.lanes.iter_mut().filter_map(|(name, lane)| {
            let room = lane.room(share).min(chunk);
            let wanted = lane.is_wanted() && !(full && name.name().is_some());
            let due = room >= lane.most(share).div_ceil(2).min(chunk);
            lane.heavy = wanted && lane.is_heavy(share);
            (wanted && due && room > 0 && !lane.heavy).then(|| {
                let again: Vec<i64> = lane.again.iter().copied().take(room).collect();
                for row in &again {
                    lane.again.remove(row);
                }
                let room = if lane.more { room - again.len() } else { 0 };
                if room > 0 {
                    lane.more = false;
                    lane.loading = true;
                }
                lane.gone = Some(BTreeSet::new());
                let bytes = share.weight - lane.weight.load(Ordering::Relaxed);
                Fill { target: name.clone(), again, after: lane.after, room, bytes }
            })
        });
        lanes.collect()
    }

    /// The log could not be read for a fill: it is wanted again.
    pub fn unfilled(&mut self, fill: &Fill) {
        let lane = self.lane(&fill.target);
        lane.again.extend(&fill.again);
        lane.gone = None;
        if fill.room > 0 {
            (lane.more, lane.loading) = (true, false);
        }
    }

    /// Takes what was loaded for a fill, and says which of it is to be published. `cut`: it was more than fits into
    /// memory at once, and of what was wanted again nothing from `left` on was read.
    pub fn loaded(&mut self, fill: &Fill, rows: Vec<Due>, cut: bool, left: &[i64]) -> Vec<Due> {
        let load = self.load.clone();
        let Some(lane) = self.lanes.get_mut(&fill.target) else { return Vec::new() };
        lane.again.extend(left);
        let above = |due: &&Due| due.row > fill.after;
        let walked = rows.iter().filter(above).filter(|due| !fill.again.contains(&due.row));
        lane.after = walked.map(|due| due.row).fold(lane.after, i64::max);
        // what was wanted again may stand among what was walked over, so the walk counts it: at worst it looks once more
        let above = rows.iter().filter(above).count();
        lane.loading &= fill.room == 0;
        if fill.room > 0 && (cut || above >= fill.room) {
            lane.more = true;
        }
        let gone = lane.gone.take().unwrap_or_default();
        let mut fresh = Vec::with_capacity(rows.len());
        for due in rows.into_iter().filter(|due| !gone.contains(&due.row)) {
            if !lane.open.contains_key(&due.row) {
                lane.open(&due, &fill.target, &load);
                fresh.push(due);
            }
        }
        fresh
    }

    /// Opens one delivery that a worker asked for and the log says is pending.
    pub fn adopt(&mut self, target: &Target, due: &Due, now: Instant) {
        let load = self.load.clone();
        let lane = self.lane(target);
        lane.again.remove(&due.row);
        if !lane.open.contains_key(&due.row) {
            lane.open(due, target, &load);
        }
        if let Some(open) = lane.open.get_mut(&due.row)
            && matches!(open.state, State::Publishing { .. })
        {
            open.state = State::Published { sequence: 0, at: now };
        }
    }

    /// Whether this is still to be published.
    pub fn is_publishing(&self, target: &Target, row: i64, publication: u32) -> bool {
        let open = self.find(target, row);
        open.is_some_and(|open| open.publication == publication && matches!(open.state, State::Publishing { .. }))
    }

    /// JetStream has it.
    pub fn published(&mut self, target: &Target, row: i64, publication: u32, sequence: u64, now: Instant) {
        if let Some(open) = self.open(target, row)
            && open.publication == publication
            && matches!(open.state, State::Publishing { .. })
        {
            open.state = State::Published { sequence, at: now };
        }
    }

    /// JetStream does not have it, or nobody knows: it is loaded and published again.
    pub fn reload(&mut self, target: &Target, row: i64) {
        if let Some(lane) = self.lanes.get_mut(target)
            && !matches!(lane.open.get(&row), Some(Open { state: State::Begun { .. }, .. }))
        {
            lane.open.remove(&row);
            lane.again.insert(row);
        }
    }

    /// A worker holds the message and wants to run it.
    pub fn begin(&mut self, target: &Target, delivery: RowId, publication: u32, born: Born, now: Instant) -> Begin {
        let Some(open) = self.open(target, delivery.row()) else { return Begin::Unknown };
        if open.id != delivery || open.publication != publication {
            return Begin::Stale;
        }
        if matches!(open.state, State::Begun { .. }) {
            return Begin::Busy;
        }
        let n = open.attempts + 1;
        let attempt = RowId::new(born, attempt_row(delivery.row(), n));
        open.attempts = n;
        open.state = State::Begun { attempt, lease: now + LEASE };
        open.weight = None;
        Begin::Run { attempt, n }
    }

    /// Whether more of this target can be loaded only now that one began.
    pub fn is_lighter(&mut self, target: &Target) -> bool {
        let share = self.share();
        self.lanes.get_mut(target).is_some_and(|lane| !lane.is_heavy(share) && std::mem::take(&mut lane.heavy))
    }

    /// The beginning of an attempt could not be written: who holds the message may ask again. Should nobody do so, the
    /// message counts as lost.
    pub fn not_begun(&mut self, target: &Target, row: i64, attempt: RowId, now: Instant) {
        if let Some(open) = self.open(target, row)
            && matches!(open.state, State::Begun { attempt: current, .. } if current == attempt)
        {
            open.attempts -= 1;
            open.state = State::Published { sequence: 0, at: now };
        }
    }

    /// Whether this attempt is the current one. Its lease is renewed: the outcome is about to be written.
    pub fn is_current(&mut self, target: &Target, delivery: i64, attempt: RowId, now: Instant) -> bool {
        let Some(open) = self.open(target, delivery) else { return false };
        match &mut open.state {
            State::Begun { attempt: current, lease } if *current == attempt => {
                *lease = now + LEASE;
                true
            }
            _ => false,
        }
    }

    /// Whether this publication is the current one, and no attempt of it has begun.
    pub fn is_published(&self, target: &Target, delivery: RowId, publication: u32) -> bool {
        self.find(target, delivery.row()).is_some_and(|open| {
            open.id == delivery && open.publication == publication && !matches!(open.state, State::Begun { .. })
        })
    }

    /// The delivery ended or waits for its retry: its place is free, unless another attempt has it by now.
    pub fn ended(&mut self, target: &Target, row: i64, attempt: RowId) {
        if let Some(lane) = self.lanes.get_mut(target)
            && matches!(lane.open.get(&row), Some(Open { state: State::Begun { attempt: current, .. }, .. }) if *current == attempt)
        {
            lane.free(row);
        }
    }

    /// The log knows better what this delivery is about: it is asked again.
    pub fn refused(&mut self, target: &Target, row: i64, attempt: RowId) {
        self.ended(target, row, attempt);
        self.lane(target).again.insert(row);
    }

    /// It ended before an attempt could begin: its place is free.
    pub fn gone(&mut self, target: &Target, row: i64) {
        if let Some(lane) = self.lanes.get_mut(target)
            && !matches!(lane.open.get(&row), Some(Open { state: State::Begun { .. }, .. }))
        {
            lane.free(row);
        }
    }

    /// Nobody could be heard of for a while, because we were not there to hear: the leases begin anew.
    pub fn renew(&mut self, now: Instant) {
        for open in self.lanes.values_mut().flat_map(|lane| lane.open.values_mut()) {
            if let State::Begun { lease, .. } = &mut open.state {
                *lease = now + LEASE;
            }
        }
    }

    /// Begun attempts whose worker has not been heard of.
    pub fn lost(&self, now: Instant) -> Vec<(Target, RowId)> {
        self.each()
            .filter_map(|(name, _, open)| match open.state {
                State::Begun { attempt, lease } if lease < now => Some((name.clone(), attempt)),
                _ => None,
            })
            .collect()
    }

    /// What nobody asked to begin for `age`, at most so many: those that were not looked for longest. They count as
    /// looked for now.
    pub fn silent(&mut self, now: Instant, age: Duration, most: usize) -> Vec<Sent> {
        let mut silent: Vec<(Instant, Sent)> =
            self.sent().filter_map(|(sent, at)| (at + age <= now).then_some((at, sent))).collect();
        silent.sort_by_key(|(at, _)| *at);
        silent.truncate(most);
        for (_, sent) in &silent {
            if let Some(Open { state: State::Published { at, .. }, .. }) = self.open(&sent.target, sent.id.row()) {
                *at = now;
            }
        }
        silent.into_iter().map(|(_, sent)| sent).collect()
    }

    /// The message that JetStream took last, of those that nobody asked to begin: where a tail is lost, it is lost too.
    pub fn last_sent(&self) -> Option<Sent> {
        self.sent().map(|(sent, _)| sent).max_by_key(|sent| sent.sequence)
    }

    /// Whether nobody has asked to begin this meanwhile.
    pub fn is_sent(&self, sent: &Sent) -> bool {
        let open = self.find(&sent.target, sent.id.row());
        open.is_some_and(|open| open.publication == sent.publication && matches!(open.state, State::Published { .. }))
    }

    /// Deliveries to functions that were not begun: all of them, or those that JetStream had before this sequence.
    pub fn unbegun(&self, before: Option<u64>) -> Vec<(Target, i64)> {
        let lost = |state: &State| match state {
            State::Publishing { .. } => before.is_none(),
            State::Published { sequence, .. } => before.is_none_or(|before| *sequence < before),
            State::Begun { .. } => false,
        };
        self.each()
            .filter(|(target, _, open)| target.name().is_some() && lost(&open.state))
            .map(|(target, row, _)| (target.clone(), row))
            .collect()
    }

    fn sent(&self) -> impl Iterator<Item = (Sent, Instant)> {
        self.each().filter_map(|(target, _, open)| match open.state {
            State::Published { sequence, at } => {
                Some((Sent { target: target.clone(), id: open.id, publication: open.publication, sequence }, at))
            }
            _ => None,
        })
    }

    fn lane(&mut self, target: &Target) -> &mut Lane {
        if !self.lanes.contains_key(target) {
            // a version of a function has as much as the function
            let whole = target.name().and_then(|name| self.lanes.get(&name.clone().into()));
            let limit = whole.map_or_else(|| unlisted(target), |lane| lane.limit);
            self.lanes.insert(target.clone(), Lane { limit, ..Lane::default() });
        }
        self.lanes.entry(target.clone()).or_default()
    }

    fn find(&self, target: &Target, row: i64) -> Option<&Open> {
        self.lanes.get(target)?.open.get(&row)
    }

    fn open(&mut self, target: &Target, row: i64) -> Option<&mut Open> {
        self.lanes.get_mut(target)?.open.get_mut(&row)
    }

    fn each(&self) -> impl Iterator<Item = (&Target, i64, &Open)> {
        self.lanes.iter().flat_map(|(name, lane)| lane.open.iter().map(move |(row, open)| (name, *row, open)))
    }
}

/// The limit of a target that no config lists: what is outside the bus needs no config.
fn unlisted(target: &Target) -> Limit {
    Limit { running: if target.name().is_some() { 0 } else { OUTSIDE }, ahead: 0 }
}

#[cfg(test)]
mod tests;
