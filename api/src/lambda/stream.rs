//! `InvokeWithResponseStream`: an answer in the pieces in which it comes. One that is not streamed is one piece.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bus::{
    Event, Name, Sink,
    payload::Format,
    sink::{Call, CallError, LogMode, Reply},
    streamed::{self, UnderWay},
    target::Qualifier,
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use uuid::Uuid;

use super::{
    LambdaApi, MAX_PAYLOAD,
    error::LambdaError,
    frame,
    invoke::{Asked, Asking, Kind, answer, read, response, tail},
    name::Named,
};

pub(super) async fn invoke(
    State(api): State<LambdaApi>,
    Path(name): Path<String>,
    Query(query): Query<Asking>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, LambdaError> {
    let (function, version) = api.named(&Named::read(&name, query.qualifier.as_deref())?).await?;
    let Asked { kind, tail, client_context } = Asked::read(&headers)?;
    let payload = read(body, MAX_PAYLOAD).await?;
    match kind {
        Kind::Event => {
            let text = "X-Amz-Invocation-Type must be one of RequestResponse, DryRun";
            Err(LambdaError::Parameter(text.to_owned()))
        }
        Kind::DryRun => Ok(StatusCode::NO_CONTENT.into_response()),
        Kind::RequestResponse => {
            let event = api.event(payload, client_context);
            let call = api.under_way(function.clone(), version.clone(), event);
            let version = (api.views.called)(function.clone(), version, None).await;
            respond(call, End { function, version, tail }).await
        }
    }
}

impl LambdaApi {
    /// Calls a function in a task of its own: a client that leaves does not stop it.
    fn under_way(&self, function: Name, version: Option<Qualifier>, event: Event) -> UnderWay {
        let (outlet, inlet) = streamed::channel();
        let (format, outlet) = (Format::Body, Some(outlet));
        let call = Call { function, version, format, timeout: None, log: LogMode::Full, outlet };
        let bus = self.bus.clone();
        UnderWay::new(tokio::spawn(async move { bus.call(event, call).await }), inlet)
    }
}

/// Waits for the first piece, or for a whole answer, and begins the response.
async fn respond(mut call: UnderWay, end: End) -> Result<Response, LambdaError> {
    let version = end.version.clone();
    let (id, body) = if let Some(head) = call.head().await {
        let id = head.request_id.unwrap_or_else(Uuid::now_v7);
        let frames = stream::unfold(Some((call, end)), move |rest| async move {
            let (mut call, end) = rest?;
            match call.data().await {
                Some(data) => Some((chunk(&data), Some((call, end)))),
                None => Some((end.complete(end.reply(call).await, id), None)),
            }
        });
        (id, Body::from_stream(frames.map(Ok::<_, Infallible>)))
    } else {
        let reply = end.reply(call).await?;
        let id = reply.outcome.request_id.unwrap_or_else(Uuid::now_v7);
        let output = if reply.outcome.fault.is_none() { chunk(&reply.outcome.output) } else { Bytes::new() };
        (id, Body::from([output, end.complete(Ok(reply), id)].concat()))
    };
    Ok(response(body, "application/vnd.amazon.eventstream", id, version))
}

fn chunk(data: &[u8]) -> Bytes {
    frame::event("PayloadChunk", "application/octet-stream", data)
}

/// What the last event of an answer is made of.
struct End {
    function: Name,
    version: String,
    tail: bool,
}

impl End {
    async fn reply(&self, call: UnderWay) -> Result<Reply, CallError> {
        call.ended().await.unwrap_or_else(|panic| {
            tracing::error!(error = %panic, "a call's task ended in the middle: {panic}");
            Err(CallError::Vanished { function: self.function.clone() })
        })
    }

    /// Says how it ended; without an error: well.
    fn complete(&self, reply: Result<Reply, CallError>, id: Uuid) -> Bytes {
        let mut complete = json!({});
        match reply {
            Ok(Reply { outcome, .. }) => {
                if self.tail {
                    complete["LogResult"] = BASE64_STANDARD.encode(tail(&outcome, id, &self.version)).into();
                }
                if let Some(kind) = outcome.fault.as_ref().map(|fault| fault.kind.clone()) {
                    complete["ErrorCode"] = kind.into();
                    complete["ErrorDetails"] = String::from_utf8_lossy(&answer(outcome, id)).into();
                }
            }
            Err(error) => {
                complete["ErrorCode"] = "ServiceException".into();
                complete["ErrorDetails"] = error.to_string().into();
            }
        }
        frame::event("InvokeComplete", "application/json", complete.to_string().as_bytes())
    }
}
