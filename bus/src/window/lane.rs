//! What is on its way to one target.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{id::RowId, log::backlog::Due, target::Target};

/// How much may be on its way to one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// What it can run at once; 0 holds everything back.
    pub running: usize,
    /// What may wait beside it, of a function only as long as others leave room.
    pub ahead: usize,
}

/// One target's deliveries.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) limit: Limit,
    /// Rows up to here were loaded.
    pub(super) after: i64,
    /// Whether the log may have pending rows above `after`.
    pub(super) more: bool,
    /// The walk reads the log right now.
    pub(super) loading: bool,
    /// The log is being read; what ended since may still be among what was read.
    pub(super) gone: Option<BTreeSet<i64>>,
    /// Rows that are to be loaded although the walk from `after` has passed them or is not there yet.
    pub(super) again: BTreeSet<i64>,
    pub(super) open: BTreeMap<i64, Open>,
    /// Bytes of what is open and has not begun.
    pub(super) weight: Arc<AtomicUsize>,
    /// Something waits until that is less.
    pub(super) heavy: bool,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: RowId,
    pub(super) publication: u32,
    pub(super) attempts: u32,
    pub(super) state: State,
    /// Until it begins.
    pub(super) weight: Option<Load>,
}

#[derive(Debug)]
pub(super) enum State {
    Publishing {
        _body: Load,
    },
    /// `at`: when it was published, or last looked for.
    Published {
        sequence: u64,
        at: Instant,
    },
    Begun {
        attempt: RowId,
        lease: Instant,
    },
}

/// A body, counted as long as this lives.
#[derive(Debug)]
pub(super) struct Load {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Load {
    fn of(due: &Due, target: &Target, all: &Arc<AtomicUsize>) -> Self {
        // what goes outside the bus is bounded by its number
        let bytes = if target.name().is_some() { due.event.data.len() } else { 0 };
        all.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, all: all.clone() }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What one function may have on its way beyond what it can run.
#[derive(Clone, Copy)]
pub(super) struct Share {
    pub(super) ahead: usize,
    pub(super) weight: usize,
}

impl Lane {
    /// Whether the log has or may have something for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.more || !self.again.is_empty()
    }

    /// How many may be open.
    pub(super) fn most(&self, share: Share) -> usize {
        match self.limit {
            Limit { running: 0, .. } => 0,
            Limit { running, ahead } => running + ahead.min(share.ahead),
        }
    }

    pub(super) fn room(&self, share: Share) -> usize {
        self.most(share).saturating_sub(self.open.len())
    }

    /// Whether it has its share of bytes.
    pub(super) fn is_heavy(&self, share: Share) -> bool {
        self.weight.load(Ordering::Relaxed) >= share.weight
    }

    pub(super) fn open(&mut self, due: &Due, target: &Target, all: &Arc<AtomicUsize>) {
        let weight = Load::of(due, target, &self.weight);
        let state = State::Publishing { _body: Load::of(due, target, all) };
        let Due { row, id, publication, attempts, .. } = *due;
        self.open.insert(row, Open { id, publication, attempts, state, weight: Some(weight) });
    }

    /// Frees the place of what has ended.
    pub(super) fn free(&mut self, row: i64) {
        self.open.remove(&row);
        if let Some(gone) = &mut self.gone {
            gone.insert(row);
        }
    }
}
