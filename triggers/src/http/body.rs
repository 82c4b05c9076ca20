//! Reads bodies, up to a size and a time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Body, Incoming},
    header::CONTENT_LENGTH,
};
use tokio::time::timeout;

use super::{memory::Share, problem::Refusal};

/// The whole body, counted in `share`. What announces more than `limit` is refused before a byte of it is read.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Incoming,
    limit: u64,
    deadline: Duration,
    share: &mut Share,
) -> Result<Bytes, Refusal> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Refusal::BodyTooLarge { limit });
    }
    timeout(deadline, collect(&mut body, announced, limit, share)).await.unwrap_or(Err(Refusal::TooSlow))
}

async fn collect(body: &mut Incoming, announced: Option<u64>, limit: u64, share: &mut Share) -> Result<Bytes, Refusal> {
    // most bodies are one frame, which is then given on without a copy
    let Some(first) = next(body, share).await? else { return Ok(Bytes::new()) };
    check(first.len(), limit)?;
    let Some(second) = next(body, share).await? else { return Ok(first) };
    // what is announced is not believed beyond what is likely: memory is taken as bytes arrive
    let likely = announced.unwrap_or_default().min(1024 * 1024) as usize;
    let mut whole = BytesMut::with_capacity(likely.max(first.len() + second.len()));
    whole.extend_from_slice(&first);
    let mut more = Some(second);
    while let Some(frame) = more {
        check(whole.len() + frame.len(), limit)?;
        whole.extend_from_slice(&frame);
        more = next(body, share).await?;
    }
    Ok(whole.freeze())
}

fn check(size: usize, limit: u64) -> Result<(), Refusal> {
    if size as u64 > limit { Err(Refusal::BodyTooLarge { limit }) } else { Ok(()) }
}

/// The next data; trailers are not for functions.
async fn next(body: &mut Incoming, share: &mut Share) -> Result<Option<Bytes>, Refusal> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    share.take(data.len())?;
                    return Ok(Some(data));
                }
            }
            Some(Err(_)) => {
                return Err(Refusal::Malformed("ended before its body did, or the body's chunks are broken"));
            }
        }
    }
}
