//! An answer that the function streams and its caller wants whole.
//!
//! A response of HTTP is streamed as its head (a JSON object), eight NUL bytes and its body. Whole, it is what a function
//! that streams nothing would have returned: the same object, with the body in it.

use base64::{Engine, prelude::BASE64_STANDARD};
use bus::{
    outcome::{Ending, Fault, error_object},
    streamed::{HEAD_END, Head, KEPT, Outlet},
};
use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};

use crate::{
    dialogue::Answer,
    fault::{fault, too_large},
    lease::Invocation,
};

/// What a process says of an answer that it streams in frames.
pub(crate) enum Piece {
    /// Of this media type it will be.
    Begins(String),
    Data(Bytes),
}

/// The pieces of an answer: passed on as they come, or put together.
#[derive(Default)]
pub(crate) struct Pieces<'a> {
    invocation: Option<&'a Invocation>,
    head: Option<Head>,
    /// All of it, or its beginning.
    kept: BytesMut,
    size: usize,
    /// Most bytes of an answer that is wanted whole.
    limit: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn of(invocation: &'a Invocation, limit: usize) -> Self {
        Self { invocation: Some(invocation), limit, ..Self::default() }
    }

    fn outlet(&self) -> Option<&'a Outlet> {
        self.invocation.and_then(|invocation| invocation.outlet.as_ref())
    }

    /// Waits until there is room for one. May be dropped at any time.
    pub(crate) async fn room(&self) {
        if let Some(outlet) = self.outlet() {
            outlet.room().await;
        }
    }

    /// Takes one; after [`Pieces::room`].
    pub(crate) fn add(&mut self, piece: Piece) {
        let keep = if self.outlet().is_some() { KEPT } else { self.limit };
        match piece {
            Piece::Begins(media_type) => {
                let request_id = self.invocation.map(|invocation| invocation.request_id);
                let head = self.head.insert(Head { request_id, media_type: Some(media_type) }).clone();
                self.outlet().inspect(|outlet| outlet.begin(head));
            }
            Piece::Data(data) => {
                self.size += data.len();
                self.kept.extend_from_slice(&data[..data.len().min(keep - self.kept.len())]);
                self.outlet().inspect(|outlet| outlet.send(data));
            }
        }
    }

    /// The answer that ends them; where there were none it is as it is.
    pub(crate) fn end(self, answer: Answer) -> Answer {
        let passed_on = self.outlet().is_some();
        let (Some(head), Answer::Ended { ending: Ending::Ok, .. }) = (self.head, &answer) else { return answer };
        let kept = self.kept.freeze();
        let failed = |ending, fault| Answer::Ended { ending, output: error_object(&fault), fault: Some(fault) };
        if passed_on {
            return Answer::Ended { ending: Ending::Ok, output: kept, fault: None };
        }
        if self.size > self.limit {
            return failed(Ending::TooLarge, too_large(self.size, self.limit));
        }
        match whole(&head, kept) {
            Ok(output) => Answer::Ended { ending: Ending::Ok, output, fault: None },
            Err(fault) => failed(Ending::BadOutput, fault),
        }
    }
}

/// The output of an answer that was streamed.
pub(crate) fn whole(head: &Head, streamed: Bytes) -> Result<Bytes, Fault> {
    if !head.is_http_response() {
        return Ok(streamed);
    }
    let end = streamed.windows(HEAD_END.len()).position(|bytes| bytes == HEAD_END);
    let response = end.and_then(|end| {
        let response: Map<String, Value> = serde_json::from_slice(&streamed[..end]).ok()?;
        Some((response, &streamed[end + HEAD_END.len()..]))
    });
    let Some((mut response, body)) = response else {
        let message = "the streamed response does not begin with a JSON object and eight NUL bytes; \
                       make it by HttpResponseStream.from, or leave its media type out";
        return Err(fault("Runtime.MarshalError", message));
    };
    response.entry("statusCode").or_insert(200.into());
    let text = str::from_utf8(body);
    response.insert("isBase64Encoded".to_owned(), text.is_err().into());
    let body = text.map_or_else(|_| BASE64_STANDARD.encode(body), str::to_owned);
    response.insert("body".to_owned(), body.into());
    Ok(Value::from(response).to_string().into())
}

/// What is said in the log of an answer of which not everything is kept.
pub(crate) fn note(sent: usize) -> Option<String> {
    (sent > KEPT).then(|| format!("[the answer of {sent} bytes was streamed; its first {KEPT} are kept]\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(media_type: &str, streamed: &'static [u8]) -> Result<Value, Fault> {
        let head = Head { request_id: None, media_type: Some(media_type.to_owned()) };
        whole(&head, Bytes::from_static(streamed)).map(|output| serde_json::from_slice(&output).unwrap())
    }

    #[test]
    fn a_response_is_what_a_function_that_streams_nothing_would_return() {
        let http = bus::streamed::HTTP_RESPONSE;
        assert_eq!(
            of(http, b"{\"statusCode\":201,\"headers\":{\"a\":\"b\"}}\0\0\0\0\0\0\0\0hi"),
            Ok(serde_json::json!({"statusCode": 201, "headers": {"a": "b"}, "isBase64Encoded": false, "body": "hi"}))
        );
        assert_eq!(
            of(http, b"{}\0\0\0\0\0\0\0\0\xff"),
            Ok(serde_json::json!({"statusCode": 200, "isBase64Encoded": true, "body": "/w=="}))
        );
        assert_eq!(of(http, b"{}\0\0").unwrap_err().kind, "Runtime.MarshalError");
        assert_eq!(of("text/plain", b"[1]"), Ok(serde_json::json!([1])));
    }
}
