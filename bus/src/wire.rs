//! An event as a NATS message between our own nodes: CloudEvents' NATS binding in binary mode, and beside it what
//! CloudEvents has no word for. Anybody may read these messages; only fnbus writes them, so reading trusts them.

use async_nats::HeaderMap;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    cloudevent::{self, header::decode_header_value},
    event::{Event, Meta},
    headers,
    id::EventId,
};

/// Why a message is not an event of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message is not an event: {what}")]
pub struct Malformed {
    pub what: &'static str,
}

/// The headers of an event; its body is its data.
pub fn encode(event: &Event) -> HeaderMap {
    let mut map = HeaderMap::new();
    cloudevent::nats::each_header(event, |name, value| map.insert(name, value));
    if let Some(trigger) = &event.trigger {
        map.insert("fnbus-trigger", trigger.as_str());
    }
    if matches!(event.id, EventId::Foreign(_)) {
        map.insert("fnbus-foreign-id", "1");
    }
    if event.meta != Meta::None
        && let Ok(meta) = serde_json::to_string(&event.meta)
    {
        map.insert(headers::META, meta);
    }
    map
}

/// The event in a message of ours.
pub fn decode(map: &HeaderMap, body: Bytes) -> Result<Event, Malformed> {
    let mut event = Event::with_id(EventId::Ours(Uuid::nil()), "", "", body);
    let mut id = None;
    let mut foreign = false;
    for (name, values) in map.iter() {
        let Some(value) = values.first().map(async_nats::HeaderValue::as_str) else { continue };
        let name: &str = name.as_ref();
        let Some(attribute) = name.strip_prefix("ce-") else {
            match name {
                "fnbus-trigger" => event.trigger = value.parse().ok(),
                "fnbus-foreign-id" => foreign = true,
                headers::META => {
                    event.meta =
                        serde_json::from_str(value).map_err(|_| Malformed { what: "its facts do not read" })?;
                }
                _ => {}
            }
            continue;
        };
        let value = decode_header_value(value).ok_or(Malformed { what: "a header is not percent-encoded UTF-8" })?;
        match attribute {
            "specversion" => {}
            "id" => id = Some(value.into_owned()),
            "source" => event.source = value.as_ref().into(),
            "type" => event.kind = value.as_ref().into(),
            "time" => {
                event.time = value.parse().map_err(|_| Malformed { what: "its time does not read" })?;
            }
            "subject" => event.subject = Some(value.as_ref().into()),
            "datacontenttype" => event.datacontenttype = Some(value.as_ref().into()),
            "dataschema" => event.dataschema = Some(value.as_ref().into()),
            "correlationid" => event.correlation = Some(either(&value)),
            "causationid" => event.causation = Some(either(&value)),
            "hop" => event.hop = value.parse().unwrap_or_default(),
            _ => {
                event.extensions.insert(attribute.to_owned(), value.into_owned());
            }
        }
    }
    let id = id.ok_or(Malformed { what: "it has no id" })?;
    event.id = if foreign { EventId::foreign(&id) } else { either(&id) };
    Ok(event)
}

fn either(text: &str) -> EventId {
    text.parse::<Uuid>().map_or_else(|_| EventId::foreign(text), EventId::Ours)
}

/// The bytes a message with these headers takes beyond its body.
pub fn header_bytes(map: &HeaderMap) -> usize {
    let line = |name: &str, value: &str| name.len() + value.len() + 4;
    let all = map.iter().flat_map(|(name, values)| values.iter().map(move |value| line(name.as_ref(), value.as_str())));
    12 + all.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::HttpMeta;

    #[test]
    fn an_event_survives_the_wire_unchanged() {
        let mut event = Event::new("/shop/orders", "http.request", &b"\x00\xffbytes"[..]);
        event.subject = Some("a b \"c\" 100% 안녕".into());
        event.datacontenttype = Some("application/json; charset=utf-8".into());
        event.extensions.insert("traceparent".to_owned(), "00-abc-def-01".to_owned());
        event.correlation = Some(EventId::new());
        event.causation = Some(EventId::foreign("order 7"));
        event.hop = 3;
        event.trigger = "orders".parse().ok();
        event.meta = Meta::Http(Box::new(HttpMeta {
            method: "POST".to_owned(),
            path: "/orders/kr".to_owned(),
            headers: vec![("x-note".to_owned(), "line\nbreak and 안녕".to_owned())],
            ..HttpMeta::default()
        }));
        assert_eq!(decode(&encode(&event), event.data.clone()), Ok(event.clone()));
        event.id = EventId::foreign("0199aa00-0000-7000-8000-000000000000");
        assert_eq!(decode(&encode(&event), event.data.clone()), Ok(event));
    }
}
