//! Deliveries that wait for company: those of one function, trigger and shape go into one invocation.
//!
//! The first one opens a batch, and whoever added it runs it: when the batch is full or its window is over, and an
//! instance is there. Until then others join. So a busy function gets fuller batches and an idle one does not wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bus::{Name, Target, batch::Batching, payload::Format};
use tokio::{sync::Notify, time::timeout};

use crate::lock;

/// A batch takes no more once its events are so large together.
const MAX_BYTES: usize = 6 << 20;

/// What may share an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) target: Target,
    /// The version of the function they go to now.
    pub(crate) version: Option<u32>,
    pub(crate) trigger: Name,
    pub(crate) format: Format,
}

/// The batches that others may still join.
pub(crate) struct Gathering<T> {
    open: Mutex<HashMap<Kind, Arc<Batch<T>>>>,
}

/// The deliveries of one invocation to come.
pub(crate) struct Batch<T> {
    gathered: Mutex<Gathered<T>>,
    full: Notify,
}

struct Gathered<T> {
    items: Vec<T>,
    bytes: usize,
    closed: bool,
}

impl<T> Default for Gathering<T> {
    fn default() -> Self {
        Self { open: Mutex::default() }
    }
}

impl<T> Gathering<T> {
    /// Adds an item of so many bytes. A batch that is given back is new, and is to be run by whoever gets it.
    pub(crate) fn add(&self, kind: Kind, item: T, bytes: usize, batching: Batching) -> Option<Arc<Batch<T>>> {
        let mut open = lock(&self.open);
        let item = match open.get(&kind) {
            Some(batch) => batch.join(item, bytes, batching.size as usize)?,
            None => item,
        };
        let gathered = Mutex::new(Gathered { items: vec![item], bytes, closed: false });
        let batch = Arc::new(Batch { gathered, full: Notify::new() });
        open.insert(kind, batch.clone());
        Some(batch)
    }
}

impl<T> Batch<T> {
    /// Adds an item; gives it back when the batch takes no more.
    fn join(&self, item: T, bytes: usize, size: usize) -> Option<T> {
        let mut gathered = lock(&self.gathered);
        if gathered.bytes + bytes > MAX_BYTES {
            gathered.closed = true;
        }
        if gathered.closed {
            self.full.notify_one();
            return Some(item);
        }
        gathered.items.push(item);
        gathered.bytes += bytes;
        if gathered.items.len() >= size {
            gathered.closed = true;
            self.full.notify_one();
        }
        None
    }

    /// Returns when it is full, or when it was open for so long.
    pub(crate) async fn filled(&self, window: Duration) {
        if !window.is_zero() && !lock(&self.gathered).closed {
            // a batch that fills up now has stored its notification
            let _ = timeout(window, self.full.notified()).await;
        }
    }

    /// All that came; from now on nobody joins.
    pub(crate) fn take(&self) -> Vec<T> {
        let mut gathered = lock(&self.gathered);
        gathered.closed = true;
        std::mem::take(&mut gathered.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCHING: Batching = Batching { size: 3, window: Duration::from_hours(1) };

    fn kind(function: &str) -> Kind {
        Kind { target: function.parse().unwrap(), version: Some(1), trigger: "t".parse().unwrap(), format: Format::Sqs }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_filled_by_its_size_and_the_next_one_opens_another() {
        let gathering = Gathering::default();
        let first = gathering.add(kind("f"), 1, 10, BATCHING).unwrap();
        assert!(gathering.add(kind("f"), 2, 10, BATCHING).is_none());
        assert!(gathering.add(kind("g"), 9, 10, BATCHING).is_some());
        assert!(gathering.add(kind("f"), 3, 10, BATCHING).is_none());
        first.filled(BATCHING.window).await;
        let second = gathering.add(kind("f"), 4, 10, BATCHING).unwrap();
        assert_eq!((first.take(), second.take()), (vec![1, 2, 3], vec![4]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_ends_a_batch_that_does_not_fill_up() {
        let gathering = Gathering::default();
        let batch = gathering.add(kind("f"), 1, 10, BATCHING).unwrap();
        batch.filled(BATCHING.window).await;
        assert_eq!(batch.take(), [1]);
        assert!(gathering.add(kind("f"), 2, 10, BATCHING).is_some());
    }

    #[test]
    fn a_batch_takes_no_more_than_one_invocation_may_carry() {
        let gathering = Gathering::default();
        let first = gathering.add(kind("f"), 1, MAX_BYTES - 5, BATCHING).unwrap();
        assert!(gathering.add(kind("f"), 2, 10, BATCHING).is_some());
        assert_eq!(first.take(), [1]);
    }
}
