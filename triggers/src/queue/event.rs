//! A message as an event: the CloudEvent that it is, or one that is made of it.

use std::sync::Arc;

use bus::{
    Event, EventId, Name, cloudevent,
    event::{Meta, QueueMeta},
    nats::inbox::Incoming,
};

use crate::config::Dedup;

/// Headers of more bytes than this are cut: they travel with the event.
const MAX_HEADERS: usize = 8 * 1024;

/// The event of a message. `source` is that of the trigger, `/<namespace>/<trigger>`; `ours` is `/<namespace>/`.
pub(super) fn event_of(message: &Incoming, trigger: &Name, source: &Arc<str>, ours: &str, dedup: Dedup) -> Event {
    let headers = message.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut event = match cloudevent::nats::read(headers, &message.data) {
        // What our own functions sent comes back as a message: as itself it would be a repetition of itself.
        Ok(Some(event)) if !event.source.starts_with(ours) => event,
        Ok(_) => plain(message, source, dedup),
        Err(error) => {
            tracing::warn!(%trigger, sequence = message.sequence, %error, "a message that says it is a CloudEvent is none");
            plain(message, source, dedup)
        }
    };
    event.trigger = Some(trigger.clone());
    event.meta = Meta::Queue(Box::new(QueueMeta {
        subject: message.subject.clone(),
        stream: message.stream.clone(),
        sequence: message.sequence,
        deliveries: message.deliveries,
        published: message.published,
        headers: cut(&message.headers),
    }));
    event
}

fn plain(message: &Incoming, source: &Arc<str>, dedup: Dedup) -> Event {
    let mut event = Event::new(source.clone(), "queue.message", message.data.clone());
    let given = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("nats-msg-id"));
    event.id = match given {
        Some((_, id)) if dedup == Dedup::MsgId && !id.is_empty() => EventId::foreign(id),
        _ => place(message),
    };
    event.time = message.published;
    event.subject = Some(message.subject.as_str().into());
    let media_type = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    event.datacontenttype = media_type.map(|(_, value)| value.as_str().into());
    event
}

/// The id of a message's place: the stream, its life, the message's number.
pub(super) fn place(message: &Incoming) -> EventId {
    EventId::foreign(&format!("{}.{}.{}", message.stream, message.created, message.sequence))
}

fn cut(headers: &[(String, String)]) -> Vec<(String, String)> {
    let mut left = MAX_HEADERS;
    let fits = |(name, value): &&(String, String)| {
        let size = name.len() + value.len();
        let fits = size <= left;
        left -= if fits { size } else { 0 };
        fits
    };
    headers.iter().filter(fits).cloned().collect()
}
