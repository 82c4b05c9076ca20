//! What was handed out and not taken when an inbox ended.
//!
//! A message whose headers are none, which any publisher can send, cannot be read by the client: it drops the connection,
//! and would again whenever the message is handed out. So before an inbox reads on, what it left is looked at in a
//! form that carries everything. Such a message is taken from there, the others are handed out again at once.

use async_nats::{
    HeaderMap, HeaderName, Message, Subject,
    jetstream::{self, AckKind, consumer::Info, response::Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::{Nats, inbox::InboxError};

/// What JetStream answers when no message is left.
const NO_MESSAGE: usize = 404;

#[derive(Deserialize)]
struct Found {
    message: Stored,
}

/// A message as the stream has it.
#[derive(Deserialize)]
struct Stored {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: DateTime<Utc>,
}

/// Hands out again what a consumer's reader left, and gives what the client cannot read.
pub(super) async fn take(nats: &Nats, consumer: &Info, filter: &str) -> Result<Vec<jetstream::Message>, InboxError> {
    let mut unreadable = Vec::new();
    if consumer.num_ack_pending == 0 {
        return Ok(unreadable);
    }
    let mut next = consumer.ack_floor.stream_sequence + 1;
    while next <= consumer.delivered.stream_sequence {
        let Some(stored) = stored(nats, &consumer.stream_name, next, filter).await? else { break };
        next = stored.seq + 1;
        if stored.seq > consumer.delivered.stream_sequence {
            break;
        }
        let headers = BASE64_STANDARD.decode(&stored.hdrs).unwrap_or_default();
        let readable = headers.is_empty() || is_readable(&headers);
        let message = stored.handed_out(nats, consumer, &headers);
        if readable {
            // Of one that was taken this is not heard.
            let _ = message.ack_with(AckKind::Nak(None)).await;
        } else {
            unreadable.push(message);
        }
    }
    Ok(unreadable)
}

/// The first message from a number on.
async fn stored(nats: &Nats, stream: &str, from: u64, filter: &str) -> Result<Option<Stored>, InboxError> {
    let question = json!({ "seq": from, "next_by_subj": filter });
    let failed = |error: &dyn std::fmt::Display| InboxError::JetStream(error.to_string());
    match nats.jetstream.request(format!("STREAM.MSG.GET.{stream}"), &question).await.map_err(|e| failed(&e))? {
        Response::Ok(Found { message }) => Ok(Some(message)),
        Response::Err { error } if error.code() == NO_MESSAGE => Ok(None),
        Response::Err { error } => Err(failed(&error)),
    }
}

impl Stored {
    /// As the consumer hands it out: it can be acknowledged.
    fn handed_out(&self, nats: &Nats, consumer: &Info, headers: &[u8]) -> jetstream::Message {
        let Info { stream_name, name, delivered, num_pending, .. } = consumer;
        let time = self.time.timestamp_nanos_opt().unwrap_or_default();
        // What JetStream goes by is the number in the stream.
        let reply =
            format!("$JS.ACK.{stream_name}.{name}.1.{}.{}.{time}.{num_pending}", self.seq, delivered.consumer_sequence);
        let payload = BASE64_STANDARD.decode(&self.data).unwrap_or_default();
        let message = Message {
            subject: Subject::from(self.subject.as_str()),
            reply: Some(reply.into()),
            length: payload.len(),
            payload: payload.into(),
            headers: Some(what_is_left_of(headers)),
            status: None,
            description: None,
        };
        jetstream::Message { message, context: nats.jetstream.clone() }
    }
}

/// Whether the client reads these headers, by its own rules.
fn is_readable(headers: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(headers) else { return false };
    let mut lines = text.lines().peekable();
    // After the version there would be a status, which is the server's to set.
    if !lines.next().and_then(|line| line.strip_prefix("NATS/1.0")).is_some_and(|status| status.trim().is_empty()) {
        return false;
    }
    while let Some(line) = lines.next() {
        let named = line.split_once(':').is_some_and(|(name, _)| name.parse::<HeaderName>().is_ok());
        if !line.is_empty() && !named {
            return false;
        }
        while lines.next_if(|line| !line.is_empty() && line.starts_with(char::is_whitespace)).is_some() {}
    }
    true
}

/// The headers that have a name, their values as far as they are text.
fn what_is_left_of(headers: &[u8]) -> HeaderMap {
    let mut left = HeaderMap::new();
    let text = String::from_utf8_lossy(headers);
    for (name, value) in text.lines().skip(1).filter_map(|line| line.split_once(':')) {
        if let Ok(name) = name.parse::<HeaderName>() {
            left.append(name, value.trim());
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(b"NATS/1.0\r\n\r\n", true)]
    #[case::some(b"NATS/1.0\r\nkind: paid\r\nempty:\r\n\r\n", true)]
    #[case::folded(b"NATS/1.0\r\nkind: paid\r\n and more\r\n\r\n", true)]
    #[case::not_utf8(b"NATS/1.0\r\nkind: \xff\r\n\r\n", false)]
    #[case::no_colon(b"NATS/1.0\r\nkind\r\n\r\n", false)]
    #[case::a_space_in_the_name(b"NATS/1.0\r\nmy kind: paid\r\n\r\n", false)]
    #[case::a_status(b"NATS/1.0 404 No Messages\r\n\r\n", false)]
    #[case::another_version(b"HTTP/1.1\r\nkind: paid\r\n\r\n", false)]
    #[case::nothing(b"", false)]
    fn headers_that_the_client_cannot_read_are_told_apart(#[case] headers: &[u8], #[case] readable: bool) {
        assert_eq!(is_readable(headers), readable);
    }

    #[test]
    fn what_has_a_name_is_left_of_headers_that_are_none() {
        let left = what_is_left_of(b"NATS/1.0\r\nkind: paid\r\nnonsense\r\nbad name: x\r\nname: \xff!\r\n\r\n");
        assert_eq!((left.len(), left.get("kind").unwrap().as_str()), (2, "paid"));
        assert_eq!(left.get("name").unwrap().as_str(), "\u{fffd}!");
    }
}
