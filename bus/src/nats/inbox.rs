//! What others publish to a subject, taken one message after another: a durable consumer per trigger on the stream
//! that covers the subject, or on one that is made for it.
//!
//! A message is acknowledged after its event is in the log. Everything that goes wrong between brings it again, and its
//! id, made of the stream's life and the message's place in it, tells that it was taken.

use std::time::Duration;

use async_nats::{
    HeaderMap, Message,
    jetstream::{
        self, AckKind,
        consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
        message::Acker,
        response::Response,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
    },
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use serde_json::json;

use super::{Nats, leftover};
use crate::{
    name::Name,
    subject::{Subjects, covers},
};

/// Messages taken at once: they share a commit.
pub const BATCH: usize = 64;
/// A message that was not acknowledged for so long comes again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long one request for messages waits, and how often the server says that it is still there.
const EXPIRES: Duration = Duration::from_secs(30);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// What a stream of ours holds for a bus that is away; more is refused to whoever publishes.
const MAX_BYTES: i64 = 64 << 20;

/// Where the messages of a trigger come from.
pub struct Inbox {
    stream: Stream,
    messages: pull::Stream,
    /// What the reader before left and the client cannot read: given first.
    leftover: Vec<jetstream::Message>,
    /// The stream was made for this trigger, just now.
    pub made: bool,
    /// How many messages wait, as far as was last heard.
    pub waiting: u64,
}

/// One message, not yet acknowledged.
pub struct Incoming {
    pub subject: String,
    /// In the order of their names as they came.
    pub headers: Vec<(String, String)>,
    pub data: Bytes,
    /// The stream's name.
    pub stream: String,
    /// When the stream was made, in nanoseconds: another stream of the same name is another one.
    pub created: i128,
    pub sequence: u64,
    /// How often it was handed out, this time included.
    pub deliveries: u64,
    pub published: DateTime<Utc>,
    acker: Acker,
}

/// Why messages cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    #[error(
        "the stream {stream} has only part of `{subject}` ({subjects}): name a subject that one stream covers, or make \
         the stream cover it"
    )]
    Overlap { stream: String, subject: String, subjects: String },
    #[error("JetStream refused: {0}")]
    JetStream(String),
    #[error("the messages ended: {0}")]
    Ended(String),
    #[error("the connection to NATS was lost")]
    Lost,
}

/// The answer to a question for streams by subject.
#[derive(Deserialize)]
struct Names {
    /// Null when there are none.
    streams: Option<Vec<String>>,
}

impl Inbox {
    /// Finds or makes the stream of a subject, and takes up where this trigger was.
    pub async fn open(nats: &Nats, subjects: &Subjects, trigger: &Name, subject: &str) -> Result<Self, InboxError> {
        let own = subjects.inbox(trigger);
        let (stream, made) = match covering(nats, subject).await? {
            Some(stream) => (stream, false),
            None => (make(nats, &own, subject).await?, true),
        };
        let ours = stream.cached_info().config.name == own;
        let config = pull::Config {
            durable_name: Some(own),
            description: Some(format!("the trigger {trigger} of fnbus")),
            // A stream of ours may still hold what came before its subject was edited.
            filter_subject: if ours { String::new() } else { subject.to_owned() },
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            max_ack_pending: 4 * BATCH as i64,
            ..pull::Config::default()
        };
        let filter = if ours { ">" } else { subject };
        let consumer: PullConsumer = stream.create_consumer(config).await.map_err(|e| refused(&e))?;
        let waiting = consumer.cached_info().num_pending;
        // Without it they come again after ACK_WAIT, and what cannot be read breaks the connection again.
        let leftover = leftover::take(nats, consumer.cached_info(), filter).await.unwrap_or_else(|error| {
            tracing::warn!(%trigger, %error, "what was handed out before cannot be looked at");
            Vec::new()
        });
        let messages = consumer.stream().max_messages_per_batch(BATCH).expires(EXPIRES).heartbeat(HEARTBEAT);
        let messages = messages.messages().await.map_err(|e| refused(&e))?;
        Ok(Self { stream, messages, leftover, made, waiting })
    }

    /// The stream the messages come from.
    pub fn stream(&self) -> &str {
        &self.stream.cached_info().config.name
    }

    /// Waits for messages, and gives those that are there.
    pub async fn next(&mut self) -> Result<Vec<Incoming>, InboxError> {
        let leftover = std::mem::take(&mut self.leftover);
        if !leftover.is_empty() {
            tracing::warn!(
                stream = self.stream(),
                messages = leftover.len(),
                "messages have headers that are none; they are taken with what is left of them"
            );
            return Ok(leftover.into_iter().filter_map(|message| self.incoming(message)).collect());
        }
        let mut batch = Vec::new();
        let mut next = self.messages.next().await;
        loop {
            let message = match next {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(InboxError::Ended(error.to_string())),
                None => return Err(InboxError::Ended("the connection is closed".to_owned())),
            };
            batch.extend(self.incoming(message));
            if batch.len() >= BATCH {
                return Ok(batch);
            }
            match self.messages.next().now_or_never() {
                Some(more @ Some(Ok(_))) => next = more,
                // trouble comes again with the next call
                _ => return Ok(batch),
            }
        }
    }

    /// Gives back what was handed out and not asked for, so that whoever reads next need not wait for it.
    pub async fn close(mut self) {
        while let Some(Some(Ok(message))) = self.messages.next().now_or_never() {
            let _ = message.ack_with(AckKind::Nak(None)).await;
        }
    }

    /// None: it has no place in a stream, so it cannot be acknowledged.
    fn incoming(&mut self, message: jetstream::Message) -> Option<Incoming> {
        let info = message.info().ok()?;
        let (sequence, deliveries, published) = (info.stream_sequence, info.delivered, info.published);
        self.waiting = info.pending;
        let (message, acker) = message.split();
        let Message { subject, payload, headers, .. } = message;
        Some(Incoming {
            subject: subject.to_string(),
            headers: headers.as_ref().map(pairs).unwrap_or_default(),
            data: payload,
            stream: self.stream().to_owned(),
            created: self.stream.cached_info().created.unix_timestamp_nanos(),
            sequence,
            deliveries: deliveries.max(1) as u64,
            published: DateTime::from_timestamp_nanos(published.unix_timestamp_nanos() as i64),
            acker,
        })
    }
}

impl Incoming {
    /// It was taken. When this is lost it comes again.
    pub async fn ack(&self) {
        if let Err(error) = self.acker.ack().await {
            tracing::debug!(%error, sequence = self.sequence, "a message could not be acknowledged");
        }
    }
}

/// Headers by name, duplicates kept.
pub(crate) fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let each = |(name, values): (&async_nats::HeaderName, &Vec<async_nats::HeaderValue>)| {
        let name = name.to_string();
        values.iter().map(|value| (name.clone(), value.as_str().to_owned())).collect::<Vec<_>>()
    };
    headers.iter().flat_map(each).collect()
}

/// The stream that has all of a subject; none when no stream has any of it.
async fn covering(nats: &Nats, subject: &str) -> Result<Option<Stream>, InboxError> {
    let names = nats.jetstream.request("STREAM.NAMES", &json!({ "subject": subject })).await;
    let names = match names.map_err(|e| refused(&e))? {
        Response::Ok(Names { streams }) => streams.unwrap_or_default(),
        Response::Err { error } => return Err(refused(&error)),
    };
    let mut part = None;
    for name in names {
        let stream = nats.jetstream.get_stream(&name).await.map_err(|e| refused(&e))?;
        let subjects = &stream.cached_info().config.subjects;
        if subjects.iter().any(|pattern| covers(pattern, subject)) {
            return Ok(Some(stream));
        }
        part = Some(InboxError::Overlap { stream: name, subject: subject.to_owned(), subjects: subjects.join(", ") });
    }
    part.map_or(Ok(None), Err)
}

/// A stream of our own: what was taken leaves it.
async fn make(nats: &Nats, name: &str, subject: &str) -> Result<Stream, InboxError> {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: MAX_BYTES,
        description: Some("messages for a trigger of fnbus, until they are in its log".to_owned()),
        ..Config::default()
    };
    // There may be one from before the subject was edited.
    nats.jetstream.create_or_update_stream(config).await.map_err(|e| refused(&e))?;
    nats.jetstream.get_stream(name).await.map_err(|e| refused(&e))
}

fn refused(error: &dyn std::fmt::Display) -> InboxError {
    InboxError::JetStream(error.to_string())
}
