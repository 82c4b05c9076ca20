//! `POST /events`: events of others, one or many: CloudEvents in any mode, or as written by hand,
//! `{"type": "order.paid", "data": …}`. A route of the config for the same path comes first.

use std::sync::Arc;

use bus::{
    Event, EventId, Sink,
    cloudevent::{InvalidEvent, http as binding, json},
    event::is_json,
};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::{HeaderMap, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::value::RawValue;

use super::{
    exchange::{Refused, accept, accepted_response, broken, json_response},
    memory::Share,
    problem::Refusal,
    request::{check_source, pairs},
    server::Gateway,
};

pub(super) const PATH: &str = "/events";

/// Most events of one request.
const MAX_BATCH: usize = 1000;

/// How many events of a batch are given to the bus at once: they share its commits.
const AT_ONCE: usize = 64;

/// Accepts what a request carries, and says so.
pub(super) async fn take<S: Sink>(
    gateway: &Arc<Gateway<S>>,
    headers: &HeaderMap,
    body: &Bytes,
    namespace: &str,
    share: Share,
) -> Result<Response<Full<Bytes>>, Refused> {
    match read(headers, body, namespace)? {
        Carried::One(event) => {
            let id = event.id.clone();
            match accept(gateway, *event, share).await {
                Ok(accepted) => Ok(accepted_response(&accepted.id)),
                Err(why) => Err(Refused { why, event: Some(id) }),
            }
        }
        Carried::Many(events) => Ok(batch_response(&accept_all(gateway, events, share).await?)),
    }
}

/// What a request carries.
enum Carried {
    One(Box<Event>),
    /// Each may be refused on its own.
    Many(Vec<Result<Event, Refusal>>),
}

fn read(headers: &HeaderMap, body: &Bytes, namespace: &str) -> Result<Carried, Refusal> {
    let strict = |event: &Bytes| checked(json::read(event), namespace);
    // the bus itself stands for a sender without a name
    let source: Arc<str> = namespace.trim_end_matches('/').into();
    let loose = |event: &Bytes| checked(json::read_loose(event, &source), namespace);
    match binding::mode(pairs(headers))? {
        Some(binding::Mode::Binary) => checked(binding::read_binary(pairs(headers), body), namespace).map(one),
        Some(binding::Mode::Structured) => strict(body).map(one),
        Some(binding::Mode::Batch) => batch(body, strict),
        // not just anything: a page in a browser may send a form or text here, but not JSON, without asking
        None if !has_json(headers) => Err(Refusal::NotAnEvent),
        None if body.trim_ascii_start().starts_with(b"[") => batch(body, loose),
        None => loose(body).map(one),
    }
}

fn one(event: Event) -> Carried {
    Carried::One(Box::new(event))
}

fn has_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(is_json)
}

fn checked(event: Result<Event, InvalidEvent>, namespace: &str) -> Result<Event, Refusal> {
    let event = event?;
    check_source(&event, namespace)?;
    Ok(event)
}

fn batch(body: &Bytes, read: impl Fn(&Bytes) -> Result<Event, Refusal>) -> Result<Carried, Refusal> {
    let events = json::split_batch(body)?;
    if events.len() > MAX_BATCH {
        return Err(Refusal::BatchTooLarge { given: events.len(), max: MAX_BATCH });
    }
    Ok(Carried::Many(events.iter().map(read).collect()))
}

/// Accepts a batch in its order, whether or not the client waits for it.
async fn accept_all<S: Sink>(
    gateway: &Arc<Gateway<S>>,
    events: Vec<Result<Event, Refusal>>,
    share: Share,
) -> Result<Vec<Taken>, Refusal> {
    let sink = gateway.sink.clone();
    let task = gateway.tasks.spawn(async move {
        let mut results = Vec::with_capacity(events.len());
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let group = events.by_ref().take(AT_ONCE).map(|event| accept_one(sink.clone(), event));
            results.extend(join_all(group).await);
        }
        drop(share);
        results
    });
    task.await.map_err(|panic| broken(&panic))
}

async fn accept_one<S: Sink>(sink: S, event: Result<Event, Refusal>) -> Taken {
    let event = event.map_err(|why| (None, why))?;
    let id = event.id.clone();
    match sink.accept(event).await {
        Ok(accepted) => Ok((accepted.id, accepted.duplicate)),
        Err(why) => Err((Some(id), why.into())),
    }
}

/// What became of one event of a batch.
type Taken = Result<(EventId, bool), (Option<EventId>, Refusal)>;

/// 202 if all were accepted, 207 if some were; if none was, the status of the first refusal.
fn batch_response(results: &[Taken]) -> Response<Full<Bytes>> {
    let lines: Vec<Line> = results.iter().map(Line::new).collect();
    let refused = results.iter().filter(|taken| taken.is_err()).count();
    let status = match results.iter().find_map(|taken| taken.as_ref().err()) {
        None => StatusCode::ACCEPTED,
        Some((_, why)) if refused == results.len() => why.status(),
        Some(_) => StatusCode::MULTI_STATUS,
    };
    json_response(status, serde_json::to_vec(&lines).unwrap_or_default())
}

#[derive(serde::Serialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Box<RawValue>>,
}

impl Line {
    fn new(taken: &Taken) -> Self {
        match taken {
            Ok((id, duplicate)) => Self {
                id: Some(id.to_string()),
                status: if *duplicate { "duplicate" } else { "accepted" },
                error: None,
            },
            Err((id, why)) => Self {
                id: id.as_ref().map(ToString::to_string),
                status: "refused",
                error: serde_json::from_slice(&why.body(id.as_ref())).ok(),
            },
        }
    }
}
