//! One request to one response: find the route, read the body, make the event, give it to the bus, answer.

use std::{net::IpAddr, sync::Arc};

use bus::{
    Event, EventId, Sink,
    sink::{Accepted, Call},
    streamed::{self, UnderWay},
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    http::request::Parts,
};

use super::{
    body, events, guard,
    memory::{Content, Share},
    problem::Refusal,
    request, response,
    route::METHODS,
    server::Gateway,
    stream,
    table::{Found, Route},
};
use crate::config::Mode;

/// Answers a request. Never fails: what is refused is answered too.
pub(super) async fn answer<S: Sink>(
    gateway: &Arc<Gateway<S>>,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Response<Content> {
    let (head, body) = request.into_parts();
    match route(gateway, peer, head, body).await {
        Ok(response) => response,
        Err(Refused { why, event }) => why.response(event.as_ref()).map(Content::Whole),
    }
}

/// A refusal, with the event's id if it came so far.
pub(super) struct Refused {
    pub(super) why: Refusal,
    pub(super) event: Option<EventId>,
}

impl<R: Into<Refusal>> From<R> for Refused {
    fn from(why: R) -> Self {
        Self { why: why.into(), event: None }
    }
}

async fn route<S: Sink>(
    gateway: &Arc<Gateway<S>>,
    peer: IpAddr,
    head: Parts,
    body: Incoming,
) -> Result<Response<Content>, Refused> {
    if let Some(why) = guard::refused(&head.method, &head.uri) {
        return Err(why.into());
    }
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > gateway.limits.max_uri) {
        return Err(Refusal::UriTooLong.into());
    }
    if head.method == Method::CONNECT {
        // its target is no path
        return Err(Refusal::OtherMethods(METHODS.to_vec()).into());
    }
    request::check_host(&head)?;
    let path = request::decoded_path(head.uri.path())?;
    let table = gateway.table.load();
    let found = table.find(&head.method, &path);
    let ours = path == events::PATH && !matches!(found, Found::Route { full: true, .. });
    let (namespace, max_body) = (table.namespace.clone(), table.max_body);
    drop(table);
    let mut share = gateway.memory.share();
    match found {
        _ if ours && head.method == Method::POST => {
            let body = body::read(&head.headers, body, max_body, gateway.limits.body_timeout, &mut share).await?;
            Ok(events::take(gateway, &head.headers, &body, &namespace, share).await?.map(Content::Whole))
        }
        Found::Route { route, .. } if route.bound.paused => Err(Refusal::Paused.into()),
        Found::Route { route, params, .. } => {
            let (limit, patience) = (route.bound.max_body, gateway.limits.body_timeout);
            let body = body::read(&head.headers, body, limit, patience, &mut share).await?;
            match route.bound.mode {
                Mode::Sync => {
                    let event = request::called(&head, peer, &route, params, body)?;
                    call(gateway, event, &route, share).await
                }
                Mode::Async => {
                    let event = request::taken(&head, peer, &route, params, body, &namespace)?;
                    let id = event.id.clone();
                    match accept(gateway, event, share).await {
                        Ok(accepted) => Ok(accepted_response(&accepted.id).map(Content::Whole)),
                        Err(why) => Err(Refused { why, event: Some(id) }),
                    }
                }
            }
        }
        _ if ours => Err(Refusal::OtherMethods(vec!["POST"]).into()),
        Found::OtherMethods(methods) => Err(Refusal::OtherMethods(methods).into()),
        Found::Nothing => Err(Refusal::NoRoute.into()),
    }
}

async fn call<S: Sink>(
    gateway: &Arc<Gateway<S>>,
    event: Event,
    route: &Route,
    share: Share,
) -> Result<Response<Content>, Refused> {
    let id = event.id.clone();
    let refused = |why| Refused { why, event: Some(id.clone()) };
    // the config check sees to it that a synchronous trigger has one
    let to = route.bound.to.as_ref();
    let Some(function) = to.and_then(|to| to.name()).cloned() else { return Err(refused(Refusal::Internal)) };
    let version = to.and_then(|to| to.version()).cloned();
    let (outlet, inlet) = streamed::channel();
    let (format, timeout, log) = (route.bound.format, route.bound.timeout, route.bound.log);
    let call = Call { function, version, format, timeout, log, outlet: Some(outlet) };
    let sink = gateway.sink.clone();
    // a task of its own: a client that leaves drops this future, not the invocation
    let task = gateway.tasks.spawn(async move {
        let reply = sink.call(event, call).await;
        drop(share);
        reply
    });
    let mut called = UnderWay::new(task, inlet);
    if let Some(head) = called.head().await {
        return Ok(stream::respond(head, called).await.map_err(refused)?.map(Content::Streamed));
    }
    match called.ended().await {
        Ok(Ok(reply)) => Ok(response::respond(reply.outcome).map_err(refused)?.map(Content::Whole)),
        Ok(Err(why)) => Err(refused(why.into())),
        Err(panic) => Err(refused(broken(&panic))),
    }
}

/// Gives an event to the bus, whether or not the client waits for it.
pub(super) async fn accept<S: Sink>(
    gateway: &Arc<Gateway<S>>,
    event: Event,
    share: Share,
) -> Result<Accepted, Refusal> {
    let sink = gateway.sink.clone();
    let task = gateway.tasks.spawn(async move {
        let accepted = sink.accept(event).await;
        drop(share);
        accepted
    });
    match task.await {
        Ok(accepted) => Ok(accepted?),
        Err(panic) => Err(broken(&panic)),
    }
}

/// A task that panicked: said once, here.
pub(super) fn broken(panic: &tokio::task::JoinError) -> Refusal {
    tracing::error!(error = %panic, "a request's task ended in the middle: {panic}");
    Refusal::Internal
}

/// 202: the event is on disk.
pub(super) fn accepted_response(id: &EventId) -> Response<Full<Bytes>> {
    json_response(StatusCode::ACCEPTED, serde_json::json!({ "id": id.to_string() }).to_string())
}

pub(super) fn json_response(status: StatusCode, json: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(json.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
