//! Whether the log can be written: what its disk did to it is noted by whoever meets it, and known to all.
//!
//! A full disk passes, so every change tries anew. A disk that did not keep what it was given, or a damaged page, does not
//! pass: from then on nothing is written any more, because what is said to be on disk has to be there.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::LogError;
use crate::ambient;

/// How long a disk that was full is taken to be full.
const FULL: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(super) struct Health {
    /// What ended the writing, for good.
    trouble: Arc<watch::Sender<Option<LogError>>>,
    /// When a change last found no space; none once another found some.
    full: Arc<Mutex<Option<Instant>>>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { trouble: Arc::new(watch::Sender::new(None)), full: Arc::default() }
    }

    /// Notes how a change, a query or a checkpoint ended.
    pub(super) fn note(&self, error: &LogError) {
        if matches!(error, LogError::Full) {
            *self.full.lock().unwrap_or_else(PoisonError::into_inner) = Some(ambient::instant());
        } else if error.is_final() && !matches!(error, LogError::Closed) {
            let first = self.trouble.send_if_modified(|trouble| {
                let first = trouble.is_none();
                trouble.get_or_insert_with(|| error.clone());
                first
            });
            if first {
                tracing::error!("{error}; nothing is accepted any more (docs/operating.md says what to do)");
            }
        }
    }

    /// A change was written.
    pub(super) fn written(&self) {
        *self.full.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// An error when nothing is ever written again.
    pub(super) fn check(&self) -> Result<(), LogError> {
        self.trouble.borrow().clone().map_or(Ok(()), Err)
    }

    /// Whether the last change found no space; an error when that was just now.
    pub(super) fn was_full(&self) -> Result<bool, LogError> {
        match *self.full.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(at) if ambient::instant().duration_since(at) < FULL => Err(LogError::Full),
            other => Ok(other.is_some()),
        }
    }

    /// Waits until nothing is ever written again, and says why.
    pub(super) async fn trouble(&self) -> LogError {
        let mut trouble = self.trouble.subscribe();
        match trouble.wait_for(Option::is_some).await {
            Ok(trouble) => trouble.clone().unwrap_or(LogError::Closed),
            Err(_) => LogError::Closed,
        }
    }
}
