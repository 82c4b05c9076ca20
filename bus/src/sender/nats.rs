//! `nats:subject`: published as a CloudEvent in binary mode. Where a stream covers the subject its acknowledgement is
//! awaited, and the delivery's id keeps it from being stored twice; elsewhere it is fire and forget.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream::context::PublishErrorKind, jetstream::message::PublishMessage};
use bytes::Bytes;

use super::{Refused, Sent};
use crate::{cloudevent, log::delivery::Due, nats::Nats};

const ANSWER: Duration = Duration::from_secs(5);

pub(super) struct Publisher {
    nats: Nats,
}

impl Publisher {
    pub(super) fn new(nats: Nats) -> Self {
        Self { nats }
    }

    pub(super) async fn publish(&self, subject: &str, due: &Due) -> Sent {
        self.nats.connected().await;
        let mut headers = HeaderMap::new();
        cloudevent::nats::each_header(&due.event, |name, value| headers.insert(name, value));
        let data = due.event.data.clone();
        if self.nats.jetstream.stream_by_subject(subject).await.is_err() {
            headers.insert("Nats-Msg-Id", due.id.to_string());
            let sent = self.nats.client.publish_with_headers(subject.to_owned(), headers, data).await;
            sent.map_err(|error| Refused::new("Nats.Publish", error.to_string()))?;
            return match tokio::time::timeout(ANSWER, self.nats.client.flush()).await {
                Ok(Ok(())) => Ok(Bytes::new()),
                _ => Err(Refused::new("Nats.Publish", "the NATS server did not confirm that it got the message")),
            };
        }
        let message = PublishMessage::build().payload(data).headers(headers).message_id(due.id.to_string());
        let refused = |error: async_nats::jetstream::context::PublishError| {
            let kind = if error.kind() == PublishErrorKind::TimedOut { "Nats.Timeout" } else { "Nats.Publish" };
            Refused::new(kind, error.to_string())
        };
        let sent = self.nats.jetstream.send_publish(subject.to_owned(), message).await.map_err(refused)?;
        let ack = sent.await.map_err(refused)?;
        Ok(format!(r#"{{"stream":{},"sequence":{}}}"#, serde_json::Value::from(ack.stream), ack.sequence).into())
    }
}
