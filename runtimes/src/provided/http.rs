//! The Lambda Runtime API over HTTP/1: statuses, headers and bodies as AWS' own emulator has them.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bus::{
    outcome::{Ending, Fault, error_object},
    payload::Form,
    streamed::{Head, KEPT, Outlet},
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};

use super::{
    Shared, peer,
    talk::{Refusal, Turn},
};
use crate::{
    fault::{fault, fault_of, too_large},
    lock, streamed,
};

/// Connections of one process, and for each invocation that it may run; beyond them new ones are closed.
const CONNECTIONS: usize = 64;
const FOR_EACH: usize = 4;
/// What is over the limit is read on this far, so that who sends it hears why it is refused.
const READ_ON: usize = 64 << 20;
/// A process that dies cuts its request short too: its end says more, and is waited for.
const DYING: Duration = Duration::from_millis(50);

const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";
const INVOCATION_ID: &str = "lambda-runtime-invocation-id";

type Reply = Response<Full<Bytes>>;

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let most = CONNECTIONS.max(FOR_EACH * shared.slots as usize);
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, theirs)) = listener.accept().await else {
            // no descriptor is free: one may be soon
            time::sleep(DYING).await;
            continue;
        };
        if connections.len() >= most {
            continue;
        }
        // headers and body leave in one write; a client that waits for both must not wait for an acknowledgement
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        connections.spawn(async move {
            if !is_ours(&shared, &stream, theirs).await {
                return;
            }
            let service = service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(route(&shared, request).await) }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Whether the instance itself has opened a connection. Others are closed without a word.
async fn is_ours(shared: &Shared, stream: &TcpStream, theirs: SocketAddr) -> bool {
    let Some(leader) = shared.owner.wait().await.as_ref().map(|group| group.id()) else { return true };
    let Ok(ours) = stream.local_addr() else { return false };
    tokio::task::spawn_blocking(move || peer::is_below(leader, theirs, ours)).await.unwrap_or(false)
}

async fn route(shared: &Shared, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/2018-06-01/").unwrap_or_default();
    let path: Vec<&str> = path.split('/').collect();
    let get = parts.method == Method::GET;
    match (&path[..], get, parts.method == Method::POST) {
        (["ping"], true, _) => Response::new(Full::from("pong")),
        (["runtime", "invocation", "next"], true, _) => next(shared).await,
        (["runtime", "invocation", id, "response"], _, true) => response(shared, id, &parts.headers, body).await,
        (["runtime", "invocation", id, "error"], _, true) => error(shared, id, &parts.headers, body).await,
        (["runtime", "init", "error"], _, true) => init_error(shared, &parts.headers, body).await,
        (
            ["ping"]
            | ["runtime", "invocation", _, "response" | "error"]
            | ["runtime", "invocation", "next"]
            | ["runtime", "init", "error"],
            ..,
        ) => problem(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path is asked with another method"),
        _ => problem(StatusCode::NOT_FOUND, "NotFound", "there is no such path in the Runtime API 2018-06-01"),
    }
}

/// Waits for an invocation, however long.
async fn next(shared: &Shared) -> Reply {
    loop {
        let offered = shared.offered.notified();
        tokio::pin!(offered);
        // registered before the look, so an offer in between is not missed
        offered.as_mut().enable();
        let turn = lock(&shared.talk).next();
        match turn {
            Ok(Some(turn)) => return told(shared, &turn),
            Ok(None) => shared.said.notify_one(),
            Err(refusal) => return refused(&refusal),
        }
        offered.await;
    }
}

fn told(shared: &Shared, turn: &Turn) -> Reply {
    let mut reply = Response::new(Full::new(turn.payload.bytes.clone()));
    let media_type = match turn.payload.form {
        // some clients end without one
        Form::Json | Form::Unknown => "application/json",
        Form::Text => "text/plain; charset=utf-8",
        Form::Bytes => "application/octet-stream",
    };
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    for (name, value) in [
        ("lambda-runtime-aws-request-id", turn.id.as_str()),
        (INVOCATION_ID, &turn.id),
        ("lambda-runtime-deadline-ms", &turn.deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", &shared.arn),
        ("lambda-runtime-trace-id", &turn.trace),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    // as bytes: JSON may be more than ASCII
    let context = turn.client_context.as_ref().and_then(|json| HeaderValue::from_bytes(json.as_bytes()).ok());
    headers.extend(context.map(|context| (HeaderName::from_static("lambda-runtime-client-context"), context)));
    reply
}

async fn response(shared: &Shared, id: &str, headers: &HeaderMap, body: Incoming) -> Reply {
    if let Err(refusal) = may_answer(shared, id, headers, "InvocationResponse") {
        return refused_after(body, &refusal).await;
    }
    let mode = text(headers, RESPONSE_MODE);
    let streams = mode.is_some_and(|mode| mode.eq_ignore_ascii_case("streaming"));
    let known = |mode: &str| streams || mode.eq_ignore_ascii_case("buffered");
    let head = Head { request_id: id.parse().ok(), media_type: text(headers, "content-type").map(str::to_owned) };
    let outlet = if streams { lock(&shared.talk).outlet(id) } else { None };
    let passed_on = outlet.is_some();
    let body = match outlet {
        Some(outlet) => {
            // one of several that runs over its time is not ended with its process
            let is_wanted = || shared.slots == 1 || lock(&shared.talk).runs(id);
            pass_on(body, &head, &outlet, is_wanted).await
        }
        None => read(body, shared.limit).await,
    };
    if let Some(mode) = mode.filter(|mode| !known(mode)) {
        let message = format!("`{mode}` is no response mode; send `streaming`, or leave the header out");
        let fault = fault("Runtime.InvalidResponseModeHeader", message);
        return failed(shared, id, Ending::BadOutput, fault, StatusCode::BAD_REQUEST, "InvalidFunctionResponseMode");
    }
    let (output, trailers) = match body {
        Body::Whole(output, trailers) => (output, trailers),
        unusable => return unusable.refuse(shared, id).await,
    };
    // an error in the middle of a stream comes behind it
    match trailers.as_ref().and_then(|trailers| Some((text(trailers, ERROR_TYPE)?, trailers))) {
        None if streams && !passed_on => match streamed::whole(&head, output) {
            Ok(output) => accepted(shared, id, Ending::Ok, output, None),
            Err(fault) => accepted(shared, id, Ending::BadOutput, error_object(&fault), Some(fault)),
        },
        None => accepted(shared, id, Ending::Ok, output, None),
        Some((kind, trailers)) => {
            let body = text(trailers, ERROR_BODY).and_then(|body| BASE64_STANDARD.decode(body).ok());
            let (output, fault) = error_of(body.unwrap_or_default().into(), Some(kind), "Function.Unknown");
            accepted(shared, id, Ending::Error, output, Some(fault))
        }
    }
}

async fn error(shared: &Shared, id: &str, headers: &HeaderMap, body: Incoming) -> Reply {
    if let Err(refusal) = may_answer(shared, id, headers, "InvocationErrorResponse") {
        return refused_after(body, &refusal).await;
    }
    match read(body, shared.limit).await {
        Body::Whole(body, _) => {
            let (output, fault) = error_of(body, text(headers, ERROR_TYPE), "Function.Unknown");
            accepted(shared, id, Ending::Error, output, Some(fault))
        }
        unusable => unusable.refuse(shared, id).await,
    }
}

async fn init_error(shared: &Shared, headers: &HeaderMap, body: Incoming) -> Reply {
    let body = match read(body, shared.limit).await {
        Body::Whole(body, _) => body,
        // that there was an error counts more than its text
        Body::TooLarge(_) | Body::Truncated => Bytes::new(),
    };
    let (output, fault) = error_of(body, text(headers, ERROR_TYPE), "Runtime.Unknown");
    let said = lock(&shared.talk).init_error(output, fault);
    settled(shared, said)
}

fn may_answer(shared: &Shared, id: &str, headers: &HeaderMap, to: &'static str) -> Result<(), Refusal> {
    lock(&shared.talk).may_answer(id, text(headers, INVOCATION_ID), to)
}

fn accepted(shared: &Shared, id: &str, ending: Ending, output: Bytes, fault: Option<Fault>) -> Reply {
    let said = lock(&shared.talk).answer(id, ending, output, fault);
    settled(shared, said)
}

fn settled(shared: &Shared, said: Result<(), Refusal>) -> Reply {
    shared.said.notify_one();
    match said {
        Ok(()) => json(StatusCode::ACCEPTED, Bytes::from_static(br#"{"status":"OK"}"#)),
        Err(refusal) => refused(&refusal),
    }
}

/// An answer that cannot be used ends its invocation, and its sender hears why.
fn failed(shared: &Shared, id: &str, ending: Ending, fault: Fault, status: StatusCode, kind: &str) -> Reply {
    let message = fault.message.clone();
    let said = lock(&shared.talk).answer(id, ending, error_object(&fault), Some(fault));
    shared.said.notify_one();
    match said {
        Ok(()) => problem(status, kind, &message),
        Err(refusal) => refused(&refusal),
    }
}

/// What an error says: its own object, as it is, and how it is called. The type in the header counts where the object
/// has none, if it is one of Lambda's.
fn error_of(body: Bytes, header: Option<&str>, unknown: &str) -> (Bytes, Fault) {
    let mut fault = fault_of(&body);
    let object = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
    if !object || fault.kind.is_empty() {
        header.filter(|kind| is_known_type(kind)).unwrap_or(unknown).clone_into(&mut fault.kind);
    }
    let output = if body.is_empty() { error_object(&fault) } else { body };
    (output, fault)
}

/// `(Runtime|Function).[A-Z][a-zA-Z]+`
fn is_known_type(kind: &str) -> bool {
    let name = kind.strip_prefix("Runtime.").or_else(|| kind.strip_prefix("Function.")).unwrap_or_default();
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphabetic())
}

/// A body that was read.
enum Body {
    Whole(Bytes, Option<HeaderMap>),
    /// So many bytes, or more.
    TooLarge(usize),
    Truncated,
}

impl Body {
    /// The answer to one that is not whole, which ends the invocation.
    async fn refuse(self, shared: &Shared, id: &str) -> Reply {
        match self {
            Self::TooLarge(size) => {
                let (fault, status) = (too_large(size, shared.limit), StatusCode::PAYLOAD_TOO_LARGE);
                failed(shared, id, Ending::TooLarge, fault, status, "RequestEntityTooLarge")
            }
            Self::Truncated | Self::Whole(..) => {
                time::sleep(DYING).await;
                let fault = fault(
                    "Runtime.TruncatedResponse",
                    "the response was cut short; send as much as its head says, and the end of the last chunk",
                );
                failed(shared, id, Ending::BadOutput, fault, StatusCode::BAD_REQUEST, "TruncatedHTTPRequest")
            }
        }
    }
}

async fn read(mut body: Incoming, limit: usize) -> Body {
    let (mut whole, mut size, mut trailers) = (BytesMut::new(), 0, None);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Body::Truncated };
        match frame.into_data() {
            Ok(data) => {
                size += data.len();
                if size <= limit {
                    whole.extend_from_slice(&data);
                } else if size > limit + READ_ON {
                    break;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    if size > limit { Body::TooLarge(size) } else { Body::Whole(whole.freeze(), trailers) }
}

/// Gives a body to the caller as it comes, and keeps its beginning. One without a byte is not begun.
async fn pass_on(mut body: Incoming, head: &Head, outlet: &Outlet, is_wanted: impl Fn() -> bool) -> Body {
    let (mut kept, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Body::Truncated };
        match frame.into_data() {
            Ok(data) if data.is_empty() || !is_wanted() => {}
            Ok(data) => {
                outlet.room().await;
                if outlet.sent() == 0 {
                    outlet.begin(head.clone());
                    outlet.room().await;
                }
                kept.extend_from_slice(&data[..data.len().min(KEPT - kept.len())]);
                outlet.send(data);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Body::Whole(kept.freeze(), trailers)
}

/// Reads a body nobody wants, so that its sender hears why.
async fn refused_after(body: Incoming, refusal: &Refusal) -> Reply {
    let _ = read(body, 0).await;
    refused(refusal)
}

fn refused(refusal: &Refusal) -> Reply {
    match refusal {
        Refusal::State { from, to } => {
            let message = format!("State transition from {from} to {to} failed for runtime");
            problem(StatusCode::FORBIDDEN, "InvalidStateTransition", &message)
        }
        Refusal::RequestId => problem(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
        Refusal::Stale => {
            let message = "the invocation has ended, by its timeout or otherwise; ask for the next one";
            problem(StatusCode::GONE, "ErrorRuntimeInvokeTimeout", message)
        }
    }
}

fn problem(status: StatusCode, kind: &str, message: &str) -> Reply {
    json(status, error_object(&fault(kind, message)))
}

fn json(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_passed_on_as_it_is_and_called_by_its_own_type_first() {
        let body = Bytes::from_static(br#"{"errorMessage":"bad", "errorType":"MyErr"}"#);
        let (output, fault) = error_of(body.clone(), Some("Function.Other"), "Function.Unknown");
        assert_eq!((output, fault.kind.as_str(), fault.message.as_str()), (body, "MyErr", "bad"));
        for (body, header, kind) in [
            ("{}", Some("Function.Other"), "Function.Other"),
            ("{}", Some("unhandled"), "Function.Unknown"),
            ("oops", Some("Runtime.X1"), "Function.Unknown"),
            ("oops", Some("Runtime.Xy"), "Runtime.Xy"),
            ("", None, "Function.Unknown"),
        ] {
            assert_eq!(error_of(Bytes::from(body), header, "Function.Unknown").1.kind, kind, "{body} {header:?}");
        }
        let (output, _) = error_of(Bytes::new(), Some("Runtime.Xy"), "");
        assert_eq!(output, r#"{"errorMessage":"","errorType":"Runtime.Xy"}"#);
    }
}
