//! Synchronous calls over core NATS: there and straight back, no JetStream in the way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Request, Subscriber, client::RequestErrorKind};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    Event, Name, Outcome, headers,
    nats::Nats,
    outcome::{Ending, Fault, Start, Times},
    payload::Format,
    sink::{Call, CallError},
    streamed::Outlet,
    subject::Subjects,
    target::Qualifier,
    wire,
};

/// How long a call waits for a free instance before it is told that all are busy.
pub const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// What a call may take beyond its function's timeout: queueing and a cold start.
pub const OVERHEAD: Duration = Duration::from_secs(15);

/// A body whose caller went away is kept no longer than this.
const KEPT: Duration = Duration::from_mins(1);

/// What the NATS server does not carry between the two ends of a call: bodies that are too large, and the way for an answer
/// that goes to its caller as it comes. Both ends are in one process: the message only says which it is. Clones share them.
#[derive(Clone, Default)]
pub struct Bodies {
    kept: Arc<Mutex<HashMap<Uuid, (Instant, Bytes)>>>,
    outlets: Arc<Mutex<HashMap<Uuid, Outlet>>>,
}

/// The way for an answer, there to be taken until this is dropped.
struct Lent<'a> {
    bodies: &'a Bodies,
    key: Uuid,
}

impl Bodies {
    /// Keeps a body, for whoever takes it by this key.
    fn keep(&self, body: Bytes) -> Uuid {
        let (key, now) = (Uuid::now_v7(), Instant::now());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (since, _)| now.duration_since(*since) < KEPT);
        kept.insert(key, (now, body));
        key
    }

    fn take(&self, key: &str) -> Option<Bytes> {
        let key = key.parse().ok()?;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&key).map(|(_, body)| body)
    }

    fn lend(&self, outlet: Outlet) -> Lent<'_> {
        let key = Uuid::now_v7();
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner).insert(key, outlet);
        Lent { bodies: self, key }
    }

    fn outlet(&self, key: &str) -> Option<Outlet> {
        let key = key.parse().ok()?;
        self.outlets.lock().unwrap_or_else(PoisonError::into_inner).remove(&key)
    }

    /// Leaves a body out of a message that would be too large with it.
    fn fitted(&self, map: &mut HeaderMap, body: Bytes, max: usize) -> Bytes {
        if body.is_empty() || body.len() + wire::header_bytes(map) <= max {
            return body;
        }
        map.insert(headers::BY_REFERENCE, self.keep(body).to_string());
        Bytes::new()
    }

    /// The body that belongs to a message.
    fn whole(&self, map: &HeaderMap, body: Bytes) -> Option<Bytes> {
        match map.get(headers::BY_REFERENCE) {
            Some(key) => self.take(key.as_str()),
            None => Some(body),
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.bodies.outlets.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The calling end.
#[derive(Clone)]
pub struct Caller {
    nats: Nats,
    subjects: Arc<Subjects>,
    bodies: Bodies,
}

/// What a worker says beside the output.
#[derive(Serialize, Deserialize)]
struct Report {
    ending: Ending,
    request_id: Option<Uuid>,
    version: Arc<str>,
    start: Start,
    started: DateTime<Utc>,
    times: Times,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    log: String,
}

impl Caller {
    pub fn new(nats: Nats, subjects: Arc<Subjects>, bodies: Bodies) -> Self {
        Self { nats, subjects, bodies }
    }

    /// Runs `call.function` on `node` with `event`, waiting at most `wait`.
    pub async fn call(&self, node: &str, event: &Event, call: &Call, wait: Duration) -> Result<Outcome, CallError> {
        let function = || call.function.clone();
        if !self.nats.is_connected() {
            return Err(CallError::Disconnected { reason: "it is being restored".into() });
        }
        let mut map = wire::encode(event);
        map.insert(headers::FUNCTION, call.function.as_str());
        map.insert(headers::FORMAT, call.format.as_str());
        if let Some(version) = &call.version {
            map.insert(headers::VERSION, version.as_str());
        }
        let lent = call.outlet.clone().map(|outlet| self.bodies.lend(outlet));
        if let Some(lent) = &lent {
            map.insert(headers::OUTLET, lent.key.to_string());
        }
        let max = self.nats.client.max_payload();
        let size = wire::header_bytes(&map);
        let body = self.bodies.fitted(&mut map, event.data.clone(), max);
        let request = Request::new().payload(body).headers(map).timeout(Some(wait));
        let reply = tokio::select! {
            reply = self.nats.client.send_request(self.subjects.call(node), request) => reply,
            // The request or its answer may have gone with the connection: nobody would ever say.
            () = self.nats.disconnected() => return Err(CallError::Vanished { function: function() }),
        };
        let reply = reply.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => CallError::NoNode { function: function() },
            RequestErrorKind::TimedOut => CallError::TimedOut { function: function() },
            RequestErrorKind::MaxPayloadExceeded => CallError::TooLarge { size, max },
            _ => CallError::Disconnected { reason: error.to_string().into() },
        })?;
        let map = reply.headers.unwrap_or_default();
        let output =
            self.bodies.whole(&map, reply.payload).ok_or_else(|| CallError::Vanished { function: function() })?;
        match map.get(headers::REFUSED).map(async_nats::HeaderValue::as_str) {
            Some("busy") => return Err(CallError::Busy { function: function() }),
            Some("stopped") => return Err(CallError::Stopped { function: function() }),
            Some(_) => return Err(CallError::NoNode { function: function() }),
            None => {}
        }
        let report = map.get(headers::REPORT).and_then(|json| serde_json::from_str::<Report>(json.as_str()).ok());
        let Some(report) = report else { return Err(CallError::Vanished { function: function() }) };
        Ok(Outcome {
            ending: report.ending,
            output,
            fault: report.fault,
            log: report.log,
            request_id: report.request_id,
            version: report.version,
            start: report.start,
            started: report.started,
            times: report.times,
            shared: false,
        })
    }
}

/// The answering end: the calls for this node.
pub struct Calls {
    nats: Nats,
    subscription: Subscriber,
    bodies: Bodies,
}

/// One call in a worker's hands. Dropping it without an answer leaves the caller to its timeout.
pub struct Called {
    pub event: Event,
    pub function: Name,
    /// Which version of it; none: what serves.
    pub version: Option<Qualifier>,
    pub format: Format,
    /// Where the answer may go as it comes.
    pub outlet: Option<Outlet>,
    nats: Nats,
    reply: async_nats::Subject,
    bodies: Bodies,
}

/// Why a worker did not run a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Busy,
    /// The function's concurrency is 0.
    Stopped,
    Unknown,
}

/// Why no calls can be taken.
#[derive(Debug, thiserror::Error)]
#[error("calls cannot be subscribed to: {reason}")]
pub struct OpenError {
    pub reason: String,
}

impl Calls {
    pub async fn open(nats: Nats, subjects: &Subjects, node: &str, bodies: Bodies) -> Result<Self, OpenError> {
        let subscribed = nats.client.subscribe(subjects.call(node)).await;
        match subscribed {
            Ok(subscription) => Ok(Self { nats, subscription, bodies }),
            Err(error) => Err(OpenError { reason: error.to_string() }),
        }
    }

    /// The next call; none once the subscription was closed.
    pub async fn next(&mut self) -> Option<Called> {
        loop {
            let message = self.subscription.next().await?;
            match self.read(message) {
                Ok(called) => return Some(called),
                Err(what) => tracing::warn!(what, "a call was not understood"),
            }
        }
    }

    fn read(&self, message: async_nats::Message) -> Result<Called, &'static str> {
        let map = message.headers.as_ref().ok_or("it has no headers")?;
        let get = |name: &str| map.get(name).map(async_nats::HeaderValue::as_str);
        let body = self.bodies.whole(map, message.payload).ok_or("its body is not here any more")?;
        Ok(Called {
            function: get(headers::FUNCTION).and_then(|name| name.parse().ok()).ok_or("it names no function")?,
            version: get(headers::VERSION).and_then(|version| version.parse().ok()),
            format: get(headers::FORMAT).and_then(Format::parse).unwrap_or_default(),
            outlet: get(headers::OUTLET).and_then(|key| self.bodies.outlet(key)),
            event: wire::decode(map, body).map_err(|malformed| malformed.what)?,
            reply: message.reply.ok_or("it wants no answer")?,
            nats: self.nats.clone(),
            bodies: self.bodies.clone(),
        })
    }
}

impl Called {
    pub async fn answer(self, outcome: Outcome) {
        let Outcome { ending, output, fault, log, request_id, version, start, started, times, shared: _ } = outcome;
        let report = Report { ending, request_id, version, start, started, times, fault, log };
        let mut map = HeaderMap::new();
        map.insert(headers::REPORT, serde_json::to_string(&report).unwrap_or_default());
        self.send(map, output).await;
    }

    pub async fn refuse(self, refusal: Refusal) {
        let mut map = HeaderMap::new();
        map.insert(
            headers::REFUSED,
            match refusal {
                Refusal::Busy => "busy",
                Refusal::Stopped => "stopped",
                Refusal::Unknown => "unknown",
            },
        );
        self.send(map, Bytes::new()).await;
    }

    async fn send(self, mut map: HeaderMap, body: Bytes) {
        let Self { nats, reply, function, bodies, .. } = self;
        let body = bodies.fitted(&mut map, body, nats.client.max_payload());
        if let Err(error) = nats.client.publish_with_headers(reply, map, body).await {
            tracing::warn!(%error, function.name = %function, "the answer of a call could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_too_large_for_the_server_is_taken_once_from_where_it_is_kept() {
        let bodies = Bodies::default();
        let mut map = HeaderMap::new();
        let body = bodies.fitted(&mut map, Bytes::from_static(b"0123456789"), 20);
        assert!(body.is_empty());
        assert_eq!(bodies.whole(&map, body.clone()), Some(Bytes::from_static(b"0123456789")));
        assert_eq!(bodies.whole(&map, body), None);
    }

    #[test]
    fn a_body_that_fits_goes_with_its_message() {
        let (bodies, mut map) = (Bodies::default(), HeaderMap::new());
        let body = bodies.fitted(&mut map, Bytes::from_static(b"0123456789"), 22);
        assert_eq!((&body[..], map.is_empty()), (&b"0123456789"[..], true));
        assert_eq!(bodies.whole(&map, body.clone()), Some(body));
    }
}
