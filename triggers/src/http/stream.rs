//! A function's answer as a response that is written while the function still runs.
//!
//! An answer that begins with the head of a response (a JSON object and eight NUL bytes) says status, headers and cookies
//! itself; any other is the body of a 200. Once the head is written nothing can be refused any more: when the function
//! does not end well the response is broken off, which its client sees.

use bus::{
    outcome::Ending,
    streamed::{HEAD_END, Head, UnderWay},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::Frame,
    header::{CONTENT_TYPE, HeaderValue},
};

use super::{exchange::broken, problem::Refusal, response};

/// Longest head of a response.
const MAX_HEAD: usize = 64 * 1024;

const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The body of a response that is written as it comes.
pub(super) type Streamed = UnsyncBoxBody<Bytes, BrokenOff>;

/// The end of a body whose function did not end well.
#[derive(Debug, thiserror::Error)]
#[error("the function did not end well, so its response is broken off")]
pub(super) struct BrokenOff;

/// The response of an answer that has begun with `head`.
pub(super) async fn respond(head: Head, mut call: UnderWay) -> Result<Response<Streamed>, Refusal> {
    let (mut response, first) = if head.is_http_response() {
        let Some((json, first)) = read_head(&mut call).await? else { return Err(refused(call).await) };
        let mut response = response::streamed(&json)?;
        response.headers_mut().entry(CONTENT_TYPE).or_insert(BYTES);
        (response, first)
    } else {
        let media_type = head.media_type.and_then(|media_type| HeaderValue::try_from(media_type).ok());
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, media_type.unwrap_or(BYTES));
        (response, Bytes::new())
    };
    if matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response.headers_mut().remove(CONTENT_TYPE);
        return Ok(response.map(|()| Full::default().map_err(|never| match never {}).boxed_unsync()));
    }
    let rest = stream::unfold(Some(call), |call| async {
        let mut call = call?;
        if let Some(data) = call.data().await {
            return Some((Ok(Frame::data(data)), Some(call)));
        }
        let well = call.ended().await.is_ok_and(|reply| reply.is_ok_and(|r| r.outcome.ending == Ending::Ok));
        if well {
            return None;
        }
        // what came before is written out meanwhile; an error is not waited with
        tokio::task::yield_now().await;
        Some((Err(BrokenOff), None))
    });
    let first = stream::iter((!first.is_empty()).then(|| Ok(Frame::data(first))));
    Ok(response.map(|()| StreamBody::new(first.chain(rest)).boxed_unsync()))
}

/// The head of a response, and what has come of its body; none when the answer ends before it does.
async fn read_head(call: &mut UnderWay) -> Result<Option<(Bytes, Bytes)>, Refusal> {
    let mut read = BytesMut::new();
    while let Some(data) = call.data().await {
        let seen = read.len().saturating_sub(HEAD_END.len());
        read.extend_from_slice(&data);
        if let Some(at) = read[seen..].windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END) {
            let mut body = read.split_off(seen + at);
            return Ok(Some((read.freeze(), body.split_off(HEAD_END.len()).freeze())));
        }
        if read.len() > MAX_HEAD {
            return Err(Refusal::Response("its head is over 64 KiB; put eight NUL bytes behind it"));
        }
    }
    Ok(None)
}

/// Why there was no head.
async fn refused(call: UnderWay) -> Refusal {
    match call.ended().await {
        Ok(Ok(reply)) if reply.outcome.ending == Ending::Ok => {
            Refusal::Response("it ends before the eight NUL bytes that end its head")
        }
        Ok(Ok(reply)) => Refusal::Function(reply.outcome.ending),
        Ok(Err(why)) => why.into(),
        Err(panic) => broken(&panic),
    }
}
