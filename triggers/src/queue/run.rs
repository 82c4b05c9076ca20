//! Takes messages, accepts them, and says so to where they came from.

use std::{sync::Arc, time::Duration};

use bus::{
    Bus, Name, Sink,
    nats::inbox::{Inbox, InboxError, Incoming},
    sink::AcceptError,
};
use futures_util::future::join_all;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::event::{event_of, place};
use crate::{config::QueueTrigger, status::Live};

/// Before trying again what the log did not take.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest wait before the queue is opened again.
const LONGEST: Duration = Duration::from_secs(10);

/// A queue trigger that runs.
pub(crate) struct Queue {
    pub(crate) bus: Bus,
    pub(crate) trigger: Name,
    /// `/<namespace>/<trigger>`.
    pub(crate) source: Arc<str>,
    pub(crate) config: QueueTrigger,
    pub(crate) live: Live,
}

impl Queue {
    /// Runs until shut down.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut wait = Duration::from_millis(100);
        loop {
            let error = tokio::select! {
                opened = self.open() => match opened {
                    Ok(inbox) => {
                        wait = Duration::from_millis(100);
                        let Err(error) = self.drain(inbox, &shutdown).await else { return };
                        error
                    }
                    Err(error) => error,
                },
                () = shutdown.cancelled() => return,
            };
            self.live.state("waiting for NATS");
            if self.bus.nats().is_connected() {
                tracing::warn!(trigger = %self.trigger, queue = %self.config.queue, %error, "the queue is opened again");
                self.live.state(error.to_string());
            }
            tokio::select! {
                () = sleep(wait) => wait = (wait * 2).min(LONGEST),
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn open(&self) -> Result<Inbox, InboxError> {
        self.bus.nats().connected().await;
        let subject = &self.config.queue.subject;
        let inbox = Inbox::open(self.bus.nats(), self.bus.subjects(), &self.trigger, subject).await?;
        if inbox.made {
            tracing::info!(
                trigger = %self.trigger, stream = inbox.stream(),
                "no stream covered `{subject}`: one was made for it"
            );
        }
        self.live.state(format!("reading {}", inbox.stream()));
        self.live.lag(Some(inbox.waiting));
        Ok(inbox)
    }

    /// Takes messages until shut down; what was begun is finished.
    async fn drain(&self, mut inbox: Inbox, shutdown: &CancellationToken) -> Result<(), InboxError> {
        let lost = self.bus.nats().disconnected();
        tokio::pin!(lost);
        loop {
            let batch = tokio::select! {
                batch = inbox.next() => batch?,
                // What was on its way is looked for when it is opened again.
                () = &mut lost => return Err(InboxError::Lost),
                () = shutdown.cancelled() => {
                    inbox.close().await;
                    return Ok(());
                }
            };
            // one commit for all of them
            join_all(batch.iter().map(|message| self.take(message, shutdown))).await;
            self.live.lag(Some(inbox.waiting));
        }
    }

    /// Accepts a message and acknowledges it. While the log does not take it, it stays where it is.
    async fn take(&self, message: &Incoming, shutdown: &CancellationToken) {
        let ours = format!("/{}/", self.bus.subjects().namespace());
        loop {
            let event = event_of(message, &self.trigger, &self.source, &ours, self.config.dedup);
            let taken = match self.bus.accept(event).await {
                Err(AcceptError::Conflict { id, .. }) => self.keep_conflict(message, &id).await,
                other => other.map(drop),
            };
            match taken {
                Ok(()) => {
                    self.live.goes_on(&self.trigger);
                    return message.ack().await;
                }
                Err(error) => {
                    self.live.waits(&self.trigger, &error);
                    tokio::select! {
                        () = sleep(AGAIN) => {}
                        () = shutdown.cancelled() => return,
                    }
                }
            }
        }
    }

    /// Another message had the same id and another body. Its sender cannot be told, so it is kept under the id of its
    /// place, as a dead letter.
    async fn keep_conflict(&self, message: &Incoming, id: &str) -> Result<(), AcceptError> {
        tracing::error!(
            trigger = %self.trigger, id, sequence = message.sequence,
            "a message has the id of another one with another body; it is kept as a dead letter: fnbus dead list"
        );
        let ours = format!("/{}/", self.bus.subjects().namespace());
        let mut event = event_of(message, &self.trigger, &self.source, &ours, self.config.dedup);
        event.id = place(message);
        event.source = self.source.clone();
        match self.bus.owner().keep_conflict(event, id.to_owned()).await {
            // its place can be told once: it was kept before
            Err(AcceptError::Conflict { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
