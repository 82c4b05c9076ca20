//! What takes deliveries from here: JetStream to workers, the sender to what is outside. The relay decides, a carrier
//! carries; the simulation has one of its own.

use std::{collections::BTreeSet, sync::Arc};

use async_nats::jetstream::{
    context::{PublishError, PublishErrorKind},
    message::PublishMessage,
    publish::PublishAck,
    stream::RawMessageErrorKind,
};
use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;

use crate::{
    headers,
    log::backlog::Due,
    nats::{
        Nats,
        stream::{self, Incarnation, StreamError},
    },
    sender::Sender,
    subject::Subjects,
    target::Target,
    window::Sent,
    wire,
};

/// What a message has beside the headers that are counted, in bytes.
const MARGIN: usize = 256;

/// Whether the stream took a delivery, when that is known.
pub type Ack = BoxFuture<'static, Result<PublishAck, PublishError>>;

/// Carries what the relay hands over.
pub trait Carrier: Clone + Send + Sync + 'static {
    /// Returns when there is a connection.
    fn connected(&self) -> impl Future<Output = ()> + Send;

    /// Returns when there is no connection, from this call on and however short it is gone.
    fn disconnected(&self) -> impl Future<Output = ()> + Send + 'static;

    /// Hands a delivery to a function to the stream.
    fn publish(
        &self,
        class: &'static str,
        target: &Target,
        due: &Due,
    ) -> impl Future<Output = Result<Ack, PublishError>> + Send;

    /// Whether the stream still has this message where it put it; it has when nobody can say.
    fn is_stored(&self, sent: &Sent) -> impl Future<Output = bool> + Send;

    /// Which stream this is and how far it has come. What was changed of it, or of the consumers of these classes of
    /// workers, is mended.
    fn incarnation(
        &self,
        classes: &BTreeSet<&'static str>,
    ) -> impl Future<Output = Result<Incarnation, StreamError>> + Send;

    /// Sends a delivery to what is no function, aside.
    fn send(&self, target: &Target, due: Due);
}

/// The carrier of a node.
#[derive(Clone)]
pub struct JetStream {
    nats: Nats,
    subjects: Arc<Subjects>,
    /// Who sends.
    node: Arc<str>,
    sender: Sender,
    /// What is being sent outside.
    sending: TaskTracker,
}

impl JetStream {
    pub fn new(nats: Nats, subjects: Arc<Subjects>, node: Arc<str>, sender: Sender) -> Self {
        Self { nats, subjects, node, sender, sending: TaskTracker::new() }
    }

    fn message(&self, target: &Target, due: &Due) -> PublishMessage {
        let mut map = wire::encode(&due.event);
        if let Some(version) = target.version() {
            map.insert(headers::VERSION, version.as_str());
        }
        map.insert(headers::DELIVERY, due.id.to_string());
        map.insert(headers::PUBLICATION, due.publication.to_string());
        map.insert(headers::OWNER, &*self.node);
        map.insert(headers::FORMAT, due.format.as_str());
        if let Some(replay) = &due.replay {
            map.insert(headers::REPLAY, replay.as_str());
        }
        let mut body = due.event.data.clone();
        if body.len() + wire::header_bytes(&map) + MARGIN > self.nats.client.max_payload() {
            map.insert(headers::BY_REFERENCE, "1");
            body.clear();
        }
        let id = format!("{}.{}", due.id, due.publication);
        PublishMessage::build().payload(body).headers(map).message_id(id)
    }
}

impl Carrier for JetStream {
    async fn connected(&self) {
        self.nats.connected().await;
    }

    fn disconnected(&self) -> impl Future<Output = ()> + Send + 'static {
        self.nats.disconnected()
    }

    async fn publish(&self, class: &'static str, target: &Target, due: &Due) -> Result<Ack, PublishError> {
        let function = target.name().ok_or_else(|| PublishError::new(PublishErrorKind::Other))?;
        let subject = self.subjects.deliver(class, function);
        let sent = self.nats.jetstream.send_publish(subject, self.message(target, due)).await?;
        Ok(sent.into_future())
    }

    async fn is_stored(&self, sent: &Sent) -> bool {
        let Ok(stream) = self.nats.jetstream.get_stream_no_info(self.subjects.deliver_stream()).await else {
            return true;
        };
        match stream.get_raw_message(sent.sequence).await {
            Ok(message) => {
                let is = |name: &str, value: String| message.headers.get(name).is_some_and(|v| v.as_str() == value);
                is(headers::DELIVERY, sent.id.to_string()) && is(headers::PUBLICATION, sent.publication.to_string())
            }
            Err(error) => !matches!(error.kind(), RawMessageErrorKind::NoMessageFound),
        }
    }

    async fn incarnation(&self, classes: &BTreeSet<&'static str>) -> Result<Incarnation, StreamError> {
        let stream = stream::open(&self.nats, &self.subjects).await?;
        for class in classes {
            if let Err(error) = stream::consumer(&stream, &self.subjects, class).await {
                tracing::warn!(%error, class, "the consumer of deliveries cannot be used");
            }
        }
        Ok(stream::incarnation(&stream))
    }

    fn send(&self, target: &Target, due: Due) {
        let (sender, target) = (self.sender.clone(), target.clone());
        self.sending.spawn(async move { sender.send(&target, due).await });
    }
}
