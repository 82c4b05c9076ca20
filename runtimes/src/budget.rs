//! The memory that all functions of a node may hold together: instances, the processes they are forked from, and those that
//! wait for a function. Before a start would pass it, idle instances end that are worth least; where there is none, the start
//! waits.
//!
//! What a process holds is measured when it comes to rest; until then it counts as much as the last one of its function.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;

use crate::{cgroups, fault::Lack, lock, policy::scarcity::Scarcity};

/// Of what the machine has, or its control group may have.
const PART: u64 = 2;
/// Where neither says.
const UNKNOWN: u64 = 2 << 30;

pub(crate) struct Budget {
    most: AtomicU64,
    held: AtomicU64,
    /// Rises with each instance that is ended for room: what was used long ago is worth less.
    clock: AtomicU64,
    /// Functions without any instance for which there was no room.
    starving: AtomicUsize,
    /// All for which there was none.
    waiting: AtomicUsize,
    /// Told when something may have become free.
    freed: Notify,
    scarcity: Mutex<(Scarcity, Instant)>,
}

impl Budget {
    /// `price` is what memory is worth where it is neither short nor plenty.
    pub(crate) fn new(most: Option<u64>, price: f64) -> Arc<Self> {
        Arc::new(Self {
            most: AtomicU64::new(most.unwrap_or_else(usual)),
            held: AtomicU64::default(),
            clock: AtomicU64::default(),
            starving: AtomicUsize::default(),
            waiting: AtomicUsize::default(),
            freed: Notify::new(),
            scarcity: Mutex::new((Scarcity::new(price), Instant::now())),
        })
    }

    pub(crate) fn limit(&self, most: Option<u64>) {
        self.most.store(most.unwrap_or_else(usual), Ordering::Relaxed);
        self.freed.notify_waiters();
    }

    /// Takes so many bytes for something that is about to start, if they are there. What is alone is never too large.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Result<Share, Lack> {
        let most = self.most.load(Ordering::Relaxed);
        let fits = |held: u64| (held == 0 || held + bytes <= most).then_some(held + bytes);
        match self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Share { budget: self.clone(), bytes: AtomicU64::new(bytes) }),
            Err(held) => {
                let mib = |bytes: u64| bytes.div_ceil(1 << 20);
                let reason = format!(
                    "functions hold {} MiB of the {} MiB they may have, and it needs {}; raise [pool] memory",
                    mib(held),
                    mib(most),
                    mib(bytes)
                );
                Err(Lack { reason, is_limit: true })
            }
        }
    }

    /// Whether more is held than may be.
    pub(crate) fn is_over(&self) -> bool {
        self.held.load(Ordering::Relaxed) > self.most.load(Ordering::Relaxed)
    }

    /// Waits until something may have become free. `starves`: for a function that has no instance at all.
    pub(crate) async fn freed(&self, starves: bool) {
        let _waiting = Counted::new(&self.waiting);
        let _starving = starves.then(|| Counted::new(&self.starving));
        self.freed.notified().await;
    }

    /// Something is idle now that may be ended, or holds less than before.
    pub(crate) fn rested(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Whether a function waits for room that has no instance at all: who has several gives one up.
    pub(crate) fn starves(&self) -> bool {
        self.starving.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn clock(&self) -> f64 {
        f64::from_bits(self.clock.load(Ordering::Relaxed))
    }

    /// An instance was ended for room that was worth so much.
    pub(crate) fn ended(&self, worth: f64) {
        self.clock.store(worth.max(self.clock()).to_bits(), Ordering::Relaxed);
    }

    /// What memory is worth now.
    pub(crate) fn price(&self, now: Instant) -> f64 {
        let share = self.held.load(Ordering::Relaxed) as f64 / self.most.load(Ordering::Relaxed).max(1) as f64;
        let (scarcity, since) = &mut *lock(&self.scarcity);
        let passed = now.saturating_duration_since(std::mem::replace(since, now));
        scarcity.after(passed.as_secs_f64(), share)
    }
}

/// What one process holds; given back when it is dropped.
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: AtomicU64,
}

impl Share {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), bytes: AtomicU64::default() }
    }

    /// It holds so much now, whatever there is: it has it already.
    pub(crate) fn set(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_sub(before, Ordering::Relaxed);
        if bytes < before {
            self.budget.rested();
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Half of the memory of the machine, or of what its control group allows.
fn usual() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("MemTotal:")));
    let machine = machine.and_then(|kb| kb.split_whitespace().next()?.parse::<u64>().ok()).map(|kb| kb * 1024);
    cgroups::allowed_memory().into_iter().chain(machine).min().unwrap_or(UNKNOWN) / PART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_what_is_alone_always_fits() {
        let budget = Budget::new(Some(100), 1.0);
        let large = budget.take(500).ok().unwrap();
        assert!(budget.take(1).err().unwrap().to_string().contains("raise [pool] memory"));
        large.set(60);
        let small = budget.take(40).ok().unwrap();
        assert!(budget.take(1).is_err());
        drop(large);
        assert!(budget.take(60).is_ok());
        small.set(130);
        assert!(budget.take(1).is_err(), "it has more than there is");
        drop(small);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_machine_has_more_than_nothing() {
        assert!(usual() > 64 << 20);
    }
}
