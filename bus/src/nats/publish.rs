//! Publishing to subjects that are not ours: what others listen to.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
    },
};
use bytes::Bytes;

use super::Nats;

/// How long the server may take to confirm that it got a message.
const ANSWER: Duration = Duration::from_secs(5);

/// Where a message is stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stored {
    pub stream: String,
    pub sequence: u64,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPublished {
    #[error("the NATS server did not confirm that it got the message")]
    Unconfirmed,
    #[error("{0}")]
    Refused(String),
}

impl Nats {
    /// Publishes a message. Where a stream covers the subject its acknowledgement is awaited, and the id keeps it from
    /// being stored twice; elsewhere it is fire and forget, and nothing is given back.
    pub async fn publish(
        &self,
        subject: &str,
        mut headers: HeaderMap,
        data: Bytes,
        id: Option<&str>,
    ) -> Result<Option<Stored>, NotPublished> {
        if let Some(id) = id {
            headers.insert("Nats-Msg-Id", id);
        }
        if self.jetstream.stream_by_subject(subject).await.is_err() {
            let sent = self.client.publish_with_headers(subject.to_owned(), headers, data).await;
            sent.map_err(|error| NotPublished::Refused(error.to_string()))?;
            return match tokio::time::timeout(ANSWER, self.client.flush()).await {
                Ok(Ok(())) => Ok(None),
                _ => Err(NotPublished::Unconfirmed),
            };
        }
        let message = PublishMessage::build().payload(data).headers(headers);
        let sent = self.jetstream.send_publish(subject.to_owned(), message).await.map_err(refused)?;
        let ack = sent.await.map_err(refused)?;
        Ok(Some(Stored { stream: ack.stream, sequence: ack.sequence }))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "errors are given away here")]
fn refused(error: PublishError) -> NotPublished {
    match error.kind() {
        PublishErrorKind::TimedOut => NotPublished::Unconfirmed,
        _ => NotPublished::Refused(error.to_string()),
    }
}
