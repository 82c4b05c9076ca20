//! From the log to what is no function: `nats:`, `https:` and `file:` targets, executed here by the owner with the same
//! attempts, retries and dead letters as functions; and `event:` targets, which the commit of their end executes. Each gets the delivery's id with it, the same at each
//! attempt, so that a receiver can tell a repetition.

mod file;
mod nats;
mod web;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::time::{interval, sleep};

use crate::{
    Outcome, ambient,
    failpoint::{self, Failpoint},
    log::backlog::Due,
    nats::Nats,
    outcome::{Ending, Start, Times},
    owner::{Claim, Owner},
    target::Target,
    window::{Begin, LEASE},
};

pub use web::Webhooks;

/// Before an end that could not be recorded is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Sends deliveries outside. Clones share it.
#[derive(Clone)]
pub struct Sender {
    inner: Arc<Inner>,
}

struct Inner {
    owner: Owner,
    nats: Nats,
    web: web::Poster,
    files: file::Files,
}

/// What a target answered, or why it did not take it.
type Sent = Result<Bytes, Refused>;

/// Why a target did not take a delivery.
#[derive(Debug)]
struct Refused {
    kind: &'static str,
    message: String,
}

impl Sender {
    /// `base` is the folder relative paths begin at.
    pub fn new(owner: Owner, nats: Nats, base: PathBuf, webhooks: Webhooks) -> Self {
        let inner = Inner { owner, nats, web: web::Poster::new(webhooks), files: file::Files::new(base) };
        Self { inner: Arc::new(inner) }
    }

    /// One attempt, from its beginning to the record of its end.
    pub async fn send(&self, target: &Target, due: Due) {
        let owner = &self.inner.owner;
        let claim = Claim { target: target.clone(), delivery: due.id, publication: due.publication };
        let attempt = loop {
            match owner.begin(std::slice::from_ref(&claim)).await.as_deref() {
                Ok([Begin::Run { attempt, .. }]) => break *attempt,
                // it has moved on
                Ok(_) => return,
                Err(error) if error.is_final() => return,
                Err(error) => tracing::warn!(%error, %target, "a delivery could not begin"),
            }
            // nobody else brings it again
            sleep(AGAIN).await;
        };
        let (started, clock) = (ambient::now(), Instant::now());
        let sent = async {
            match target {
                Target::Event(_) => Ok(due.event.data.clone()),
                Target::Nats(subject) => nats::publish(&self.inner.nats, subject, &due).await,
                Target::Web(url) => self.inner.web.post(url, &due).await,
                Target::File(path) => self.inner.files.append(path, &due).await,
                Target::Named(name) | Target::Version(name, _) => {
                    Err(Refused::new("Target.Unknown", format!("`{name}` is not outside the bus")))
                }
            }
        };
        let sent = renewed(sent, LEASE / 4, || owner.renew(target, attempt)).await;
        failpoint::reach(Failpoint::OutsideSent);
        let mut outcome = match sent {
            Ok(answer) => Outcome {
                ending: Ending::Ok,
                output: answer,
                fault: None,
                log: String::new(),
                request_id: None,
                version: "".into(),
                start: Start::Warm,
                started,
                times: Times::default(),
                shared: false,
            },
            Err(Refused { kind, message }) => {
                tracing::warn!(%target, event.id = %due.event.id, "{target} did not take a delivery: {message}");
                Outcome::failure(Ending::Error, kind, message)
            }
        };
        outcome.started = started;
        outcome.times.run = clock.elapsed();
        // Sent is sent: until that is written it is not sent again.
        while let Err(error) = owner.end(target, attempt, outcome.clone()).await {
            tracing::error!(%error, %target, "the end of a delivery could not be recorded");
            if error.is_final() {
                return;
            }
            sleep(AGAIN).await;
        }
    }
}

/// Waits for an attempt however long it takes, so that it is not taken for lost meanwhile and made a second time.
async fn renewed<T>(attempt: impl Future<Output = T>, every: Duration, renew: impl Fn()) -> T {
    let mut attempt = std::pin::pin!(attempt);
    let mut tick = interval(every);
    loop {
        tokio::select! {
            ended = &mut attempt => return ended,
            _ = tick.tick() => renew(),
        }
    }
}

impl Refused {
    fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn an_attempt_that_takes_long_is_renewed_until_it_ends() {
        let (renewals, enough) = (Cell::new(0), Notify::new());
        let renew = || {
            renewals.set(renewals.get() + 1);
            if renewals.get() == 5 {
                enough.notify_one();
            }
        };
        renewed(enough.notified(), Duration::from_millis(1), renew).await;
        assert!(renewals.get() >= 5, "{}", renewals.get());
    }
}
