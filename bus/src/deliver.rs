//! From JetStream to a worker: one durable consumer per class of workers, pulled continuously.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{AckKind, consumer::pull, message::Acker};
use futures_util::StreamExt;
use tokio::time::sleep;

use crate::{
    Event, Name, RowId, Target, headers,
    nats::{Nats, stream},
    payload::Format,
    subject::Subjects,
    target::Qualifier,
    wire,
};

/// Messages asked for at once; the next request goes out before these are used up.
const PULL: usize = 64;
const RETRY: Duration = Duration::from_millis(500);
/// How long one request for messages waits, and how often the server says that it is still there: a consumer that was
/// deleted without a word is noticed by the second silence.
const EXPIRES: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);

/// One class' deliveries, as they come.
pub struct Source {
    nats: Nats,
    subjects: Arc<Subjects>,
    class: &'static str,
    messages: Option<pull::Stream>,
}

/// One delivery in a worker's hands. It is given back to JetStream only by [`Delivered::ack`], or by time.
pub struct Delivered {
    delivery: Delivery,
    acker: Acker,
}

/// What a message of the stream says.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub function: Name,
    /// Which version of it; none: what serves.
    pub version: Option<Qualifier>,
    pub id: RowId,
    pub publication: u32,
    pub format: Format,
    pub replay: Option<String>,
    /// The data stayed with the owner; see [`crate::owner::Owner::data_of`].
    pub by_reference: bool,
    pub event: Event,
}

impl Delivery {
    pub fn target(&self) -> Target {
        Target::of(self.function.clone(), self.version.clone())
    }
}

impl std::ops::Deref for Delivered {
    type Target = Delivery;

    fn deref(&self) -> &Delivery {
        &self.delivery
    }
}

impl Source {
    pub fn new(nats: Nats, subjects: Arc<Subjects>, class: &'static str) -> Self {
        Self { nats, subjects, class, messages: None }
    }

    /// The next delivery. Waits out NATS and never ends; drop the future to stop.
    pub async fn next(&mut self) -> Delivered {
        loop {
            let Some(messages) = &mut self.messages else {
                self.messages = self.open().await;
                continue;
            };
            match messages.next().await {
                Some(Ok(message)) => {
                    let (message, acker) = message.split();
                    match read(&message) {
                        Ok(delivery) => return Delivered { delivery, acker },
                        Err(what) => {
                            tracing::error!(what, "a message in the stream of deliveries is not one; it is removed");
                            let _ = acker.ack_with(AckKind::Term).await;
                        }
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, class = self.class, "pulling deliveries was interrupted");
                    self.messages = None;
                }
                None => self.messages = None,
            }
        }
    }

    async fn open(&self) -> Option<pull::Stream> {
        self.nats.connected().await;
        let opened = async {
            let stream = stream::open(&self.nats, &self.subjects).await?;
            let consumer = stream::consumer(&stream, &self.subjects, self.class).await?;
            let messages = consumer.stream().max_messages_per_batch(PULL).expires(EXPIRES).heartbeat(HEARTBEAT);
            let messages = messages.messages().await;
            messages.map_err(|error| stream::StreamError::JetStream(error.to_string()))
        };
        match opened.await {
            Ok(messages) => Some(messages),
            Err(error) => {
                tracing::warn!(%error, class = self.class, "deliveries cannot be pulled; trying again");
                sleep(RETRY).await;
                None
            }
        }
    }
}

fn read(message: &async_nats::Message) -> Result<Delivery, &'static str> {
    let map = message.headers.as_ref().ok_or("it has no headers")?;
    let get = |name: &str| map.get(name).map(async_nats::HeaderValue::as_str);
    let function = message.subject.rsplit('.').next().and_then(|name| name.parse().ok());
    Ok(Delivery {
        function: function.ok_or("its subject names no function")?,
        version: get(headers::VERSION).and_then(|version| version.parse().ok()),
        id: get(headers::DELIVERY).and_then(|id| id.parse().ok()).ok_or("it has no delivery id")?,
        publication: get(headers::PUBLICATION).and_then(|n| n.parse().ok()).ok_or("it has no publication")?,
        format: get(headers::FORMAT).and_then(Format::parse).unwrap_or_default(),
        replay: get(headers::REPLAY).map(str::to_owned),
        by_reference: get(headers::BY_REFERENCE).is_some(),
        event: wire::decode(map, message.payload.clone()).map_err(|malformed| malformed.what)?,
    })
}

impl Delivered {
    /// The message has served: JetStream may forget it. Unconfirmed on purpose, because a second delivery of it is
    /// answered by `begin`.
    pub async fn ack(&self) {
        if let Err(error) = self.acker.ack().await {
            tracing::debug!(%error, delivery = %self.id, "a message could not be acknowledged");
        }
    }

    /// Not for us: JetStream may give it to somebody else at once.
    pub async fn release(&self) {
        let _ = self.acker.ack_with(AckKind::Nak(None)).await;
    }

    /// Still held: do not give it to anybody else yet.
    pub async fn progress(&self) {
        let _ = self.acker.ack_with(AckKind::Progress).await;
    }
}
