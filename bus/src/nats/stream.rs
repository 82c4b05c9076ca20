//! The work-queue stream and its consumers: made strictly, never silently changed.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use uuid::Uuid;

use super::Nats;
use crate::subject::Subjects;

/// A message that nobody acknowledged or reported progress on for so long is delivered again.
pub const ACK_WAIT: Duration = Duration::from_secs(20);
/// How often a worker reports progress on what it holds.
pub const PROGRESS: Duration = Duration::from_secs(5);
/// Messages of one class on their way to workers at most.
pub const MAX_ACK_PENDING: i64 = 4096;
/// An optimisation only: `begin` is the guard against running twice.
const DUPLICATES: Duration = Duration::from_secs(20);
const MAX_BYTES: i64 = 256 << 20;
/// The key in the stream's metadata that tells this stream from another of the same name.
const INCARNATION: &str = "fnbus.id";

/// Why the stream cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    #[error(
        "the stream {stream} exists but is not as fnbus made it ({what}); delete it or choose another [bus] namespace"
    )]
    Mismatch { stream: String, what: &'static str },
    #[error("JetStream refused: {0}")]
    JetStream(String),
}

/// What is known of a stream's present life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    pub id: String,
    pub last_sequence: u64,
}

/// Finds or makes the stream.
pub async fn open(nats: &Nats, subjects: &Subjects) -> Result<Stream, StreamError> {
    let name = subjects.deliver_stream();
    let refused = |error: &dyn std::fmt::Display| StreamError::JetStream(error.to_string());
    let stream = match nats.jetstream.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => {
            nats.jetstream.create_stream(wanted(subjects)).await.map_err(|e| refused(&e))?
        }
        Err(error) => return Err(refused(&error)),
    };
    let config = &stream.cached_info().config;
    let wanted = wanted(subjects);
    let mismatch = |what| StreamError::Mismatch { stream: name.clone(), what };
    if config.subjects != wanted.subjects {
        return Err(mismatch("its subjects differ"));
    }
    if config.retention != wanted.retention {
        return Err(mismatch("it is not a work queue"));
    }
    if config.storage != wanted.storage {
        return Err(mismatch("it is not stored in files"));
    }
    Ok(stream)
}

fn is_missing(error: &jetstream::context::GetStreamError) -> bool {
    use jetstream::{ErrorCode, context::GetStreamErrorKind};
    matches!(error.kind(), GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn wanted(subjects: &Subjects) -> Config {
    Config {
        name: subjects.deliver_stream(),
        subjects: vec![subjects.all_deliveries()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: MAX_BYTES,
        duplicate_window: DUPLICATES,
        description: Some("deliveries of fnbus on their way to workers; the log is the truth".into()),
        metadata: HashMap::from([(INCARNATION.to_owned(), Uuid::now_v7().to_string())]),
        ..Config::default()
    }
}

/// Which stream this is and how far it has come.
pub async fn incarnation(nats: &Nats, subjects: &Subjects) -> Result<Incarnation, StreamError> {
    let stream = open(nats, subjects).await?;
    let info = stream.cached_info();
    Ok(Incarnation {
        id: info.config.metadata.get(INCARNATION).cloned().unwrap_or_default(),
        last_sequence: info.state.last_sequence,
    })
}

/// The consumer of one class of workers: durable, shared by all workers of the class.
pub async fn consumer(nats: &Nats, subjects: &Subjects, class: &str) -> Result<PullConsumer, StreamError> {
    let stream = open(nats, subjects).await?;
    let name = Subjects::consumer(class);
    let config = pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: subjects.deliver_class(class),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    };
    // Strict creation is idempotent for an equal config and fails for another one.
    stream.create_consumer_strict(config).await.map_err(|e| StreamError::JetStream(e.to_string()))
}
