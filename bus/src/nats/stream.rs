//! The work-queue stream and its consumers. What was changed of them and would lose or hold up deliveries is put back and
//! said; what cannot be put back is reported.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{Config, ConsumerCreateStrictErrorKind, DiscardPolicy, RetentionPolicy, StorageType, Stream},
};
use tokio::time::sleep;
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
/// A server that was told to delete the stream says so before it is through with that, and breaks one that is made meanwhile.
const DELETING: Duration = Duration::from_millis(300);
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
    pub first_sequence: u64,
    pub last_sequence: u64,
}

/// Finds or makes the stream.
pub async fn open(nats: &Nats, subjects: &Subjects) -> Result<Stream, StreamError> {
    let name = subjects.deliver_stream();
    let mut was_there = nats.making.lock().await;
    let stream = match nats.jetstream.get_stream(&name).await {
        Ok(stream) => stream,
        Err(error) if is_missing(&error) => {
            if *was_there {
                sleep(DELETING).await;
            }
            make(nats, wanted(subjects)).await?
        }
        Err(error) => return Err(refused(&error)),
    };
    *was_there = true;
    let config = &stream.cached_info().config;
    let mismatch = |what| StreamError::Mismatch { stream: name.clone(), what };
    if config.retention != RetentionPolicy::WorkQueue {
        return Err(mismatch("it is not a work queue"));
    }
    if config.storage != StorageType::File {
        return Err(mismatch("it is not stored in files"));
    }
    if config.sealed {
        return Err(mismatch("it is sealed"));
    }
    if let Some(restored) = restored(config, &wanted(subjects)) {
        nats.jetstream.update_stream(&restored).await.map_err(|_| mismatch("its settings differ"))?;
        tracing::warn!(stream = name, "the stream of deliveries was changed by somebody; its settings are put back");
    }
    Ok(stream)
}

/// Makes the stream, without a limit of its own where so much cannot be set aside: then the server's limits hold.
async fn make(nats: &Nats, config: Config) -> Result<Stream, StreamError> {
    use jetstream::{ErrorCode, context::CreateStreamErrorKind};
    match nats.jetstream.create_stream(&config).await {
        Err(error)
            if matches!(error.kind(), CreateStreamErrorKind::JetStream(e)
                if e.error_code() == ErrorCode::STORAGE_RESOURCES_EXCEEDED) =>
        {
            nats.jetstream.create_stream(Config { max_bytes: -1, ..config }).await
        }
        made => made,
    }
    .map_err(|error| refused(&error))
}

fn refused(error: &dyn std::fmt::Display) -> StreamError {
    StreamError::JetStream(error.to_string())
}

/// The config of a stream that was changed so that it loses or refuses deliveries, put back. How much it may hold and
/// on how many servers is its operator's to say.
fn restored(found: &Config, wanted: &Config) -> Option<Config> {
    let restored = Config {
        subjects: wanted.subjects.clone(),
        discard: wanted.discard,
        discard_new_per_subject: false,
        max_messages: found.max_messages.min(-1),
        max_messages_per_subject: found.max_messages_per_subject.min(-1),
        max_message_size: found.max_message_size.min(-1),
        max_age: Duration::ZERO,
        no_ack: false,
        duplicate_window: wanted.duplicate_window,
        ..found.clone()
    };
    (restored != *found).then_some(restored)
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
pub fn incarnation(stream: &Stream) -> Incarnation {
    let info = stream.cached_info();
    Incarnation {
        id: info.config.metadata.get(INCARNATION).cloned().unwrap_or_default(),
        first_sequence: info.state.first_sequence,
        last_sequence: info.state.last_sequence,
    }
}

/// The consumer of one class of workers: durable, shared by all workers of the class.
pub async fn consumer(stream: &Stream, subjects: &Subjects, class: &str) -> Result<PullConsumer, StreamError> {
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
    match stream.create_consumer_strict(config.clone()).await {
        Err(error) if error.kind() == ConsumerCreateStrictErrorKind::AlreadyExists => {}
        made => return made.map_err(|error| refused(&error)),
    }
    tracing::warn!(consumer = name, "a consumer of deliveries was changed by somebody; its settings are put back");
    if let Ok(consumer) = stream.create_consumer(config.clone()).await {
        return Ok(consumer);
    }
    // What cannot be changed is made anew: what it handed out is handed out again.
    stream.delete_consumer(&name).await.map_err(|error| refused(&error))?;
    stream.create_consumer_strict(config).await.map_err(|error| refused(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_made() -> (Config, Config) {
        let wanted = wanted(&Subjects::new("shop".parse().unwrap()));
        // as a server gives it back
        let found = Config {
            max_messages: -1,
            max_messages_per_subject: -1,
            max_message_size: -1,
            num_replicas: 1,
            ..wanted.clone()
        };
        (found, wanted)
    }

    #[test]
    fn a_stream_as_it_was_made_is_left_alone() {
        let (found, wanted) = as_made();
        assert_eq!(restored(&found, &wanted), None);
        let larger = Config { max_bytes: -1, num_replicas: 3, ..found };
        assert_eq!(restored(&larger, &wanted), None, "how much it may hold is its operator's to say");
    }

    #[test]
    fn a_stream_that_would_lose_deliveries_is_put_back() {
        let (found, wanted) = as_made();
        let edited = Config {
            max_age: Duration::from_mins(1),
            max_messages: 10,
            discard: DiscardPolicy::Old,
            subjects: vec!["else".into()],
            ..found.clone()
        };
        assert_eq!(restored(&edited, &wanted), Some(found));
    }
}
