//! What takes deliveries from here: JetStream to workers, the sender to what is outside. The relay decides, a carrier
//! carries; the simulation has one of its own.

use std::sync::Arc;

use async_nats::jetstream::{
    context::PublishError, message::PublishMessage, publish::PublishAck, stream::RawMessageErrorKind,
};
use futures_util::future::BoxFuture;
use tokio_util::task::TaskTracker;

use crate::{
    headers,
    log::delivery::Due,
    name::Name,
    nats::{
        Nats,
        stream::{self, Incarnation, StreamError},
    },
    sender::Sender,
    subject::Subjects,
    target::Target,
    wire,
};

/// Whether the stream took a delivery, when that is known.
pub type Ack = BoxFuture<'static, Result<PublishAck, PublishError>>;

/// Carries what the relay hands over.
pub trait Carrier: Clone + Send + Sync + 'static {
    fn is_connected(&self) -> bool;

    /// Returns when there is a connection.
    fn connected(&self) -> impl Future<Output = ()> + Send;

    /// Hands a delivery to the stream.
    fn publish(
        &self,
        class: &'static str,
        function: &Name,
        due: &Due,
    ) -> impl Future<Output = Result<Ack, PublishError>> + Send;

    /// Whether the stream still has this message; it has when nobody can say.
    fn is_stored(&self, sequence: u64) -> impl Future<Output = bool> + Send;

    /// Which stream this is and how far it has come.
    fn incarnation(&self) -> impl Future<Output = Result<Incarnation, StreamError>> + Send;

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

    fn message(&self, due: &Due) -> PublishMessage {
        let mut map = wire::encode(&due.event);
        map.insert(headers::DELIVERY, due.id.to_string());
        map.insert(headers::PUBLICATION, due.publication.to_string());
        map.insert(headers::OWNER, &*self.node);
        map.insert(headers::FORMAT, due.format.as_str());
        if let Some(replay) = &due.replay {
            map.insert(headers::REPLAY, replay.as_str());
        }
        let mut body = due.event.data.clone();
        if body.len() > self.nats.client.max_payload().saturating_sub(wire::HEADROOM) {
            map.insert(headers::BY_REFERENCE, "1");
            body.clear();
        }
        let id = format!("{}.{}", due.id, due.publication);
        PublishMessage::build().payload(body).headers(map).message_id(id)
    }
}

impl Carrier for JetStream {
    fn is_connected(&self) -> bool {
        self.nats.is_connected()
    }

    async fn connected(&self) {
        self.nats.connected().await;
    }

    async fn publish(&self, class: &'static str, function: &Name, due: &Due) -> Result<Ack, PublishError> {
        let subject = self.subjects.deliver(class, function);
        let sent = self.nats.jetstream.send_publish(subject, self.message(due)).await?;
        Ok(sent.into_future())
    }

    async fn is_stored(&self, sequence: u64) -> bool {
        let Ok(stream) = self.nats.jetstream.get_stream_no_info(self.subjects.deliver_stream()).await else {
            return true;
        };
        match stream.get_raw_message(sequence).await {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), RawMessageErrorKind::NoMessageFound),
        }
    }

    async fn incarnation(&self) -> Result<Incarnation, StreamError> {
        stream::incarnation(&self.nats, &self.subjects).await
    }

    fn send(&self, target: &Target, due: Due) {
        let (sender, target) = (self.sender.clone(), target.clone());
        self.sending.spawn(async move { sender.send(&target, due).await });
    }
}
