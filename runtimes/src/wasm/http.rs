//! A component that answers HTTP, `wasi:http/incoming-handler`: the event becomes a request, the response the result.
//!
//! An event in the form of API Gateway's HTTP API 2.0, which an `http` trigger gives unless told otherwise, is the request it
//! was made from, and its response is a result of that form, with status, headers and body. Any other event is posted to
//! `/`; the body of a response of success is the result as it is, and any other status an error.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bus::{
    outcome::{Ending, Fault},
    payload::{Form, Payload},
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode, Uri,
    header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE},
    http::response,
};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::{
    WasiHttpView,
    p2::bindings::{Proxy, http::types::Scheme},
};

use super::reach::State;
use crate::fault::{fault, too_large};

/// Who is asked where the event does not say.
const NOBODY: &str = "localhost";
/// So much of a body says what went wrong.
const SAID: usize = 200;

/// An event of HTTP, as far as it makes a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    raw_path: String,
    #[serde(default)]
    raw_query_string: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    cookies: Vec<String>,
    request_context: Context,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
struct Context {
    http: Method,
}

#[derive(Deserialize)]
struct Method {
    method: String,
}

/// A result in the same form.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    status_code: u16,
    headers: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<Cow<'a, str>>,
    body: Cow<'a, str>,
    is_base64_encoded: bool,
}

/// How a response is to be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// With status and headers, to who asked by HTTP.
    Whole,
    /// Its body.
    Body,
}

/// A response with all of its body.
pub(super) struct Response {
    parts: response::Parts,
    body: Bytes,
}

/// Why there is none.
pub(super) enum Stop {
    /// It was ended.
    Broken(wasmtime::Error),
    /// It returned without one.
    Silent,
    /// It gave an error in its place.
    Refused(String),
    /// It did not end it.
    Cut(String),
    /// In bytes, as far as it was read.
    TooLong(usize),
}

/// The request an event is.
pub(super) fn request(payload: &Payload, trace: Option<&str>) -> Result<(Request<Full<Bytes>>, Shape), Fault> {
    let asked = match payload.form {
        Form::Json | Form::Unknown => serde_json::from_slice::<Asked>(&payload.bytes).ok(),
        Form::Text | Form::Bytes => None,
    };
    let made = match asked {
        Some(asked) => asked.request().map(|request| (request, Shape::Whole)),
        None => posted(payload, trace).map(|request| (request, Shape::Body)),
    };
    let broken = |why| Fault {
        retry: false,
        ..fault("Runtime.BadEvent", format!("no request can be made of the event: {why}"))
    };
    made.map_err(broken)
}

impl Asked {
    fn request(self) -> Result<Request<Full<Bytes>>, String> {
        let host = self.headers.get(HOST.as_str()).map_or(NOBODY, String::as_str);
        let mark = if self.raw_query_string.is_empty() { "" } else { "?" };
        let target = format!("{}{mark}{}", self.raw_path, self.raw_query_string);
        let uri = Uri::builder().scheme("http").authority(host).path_and_query(target);
        let uri = uri.build().map_err(|error| error.to_string())?;
        let mut request = Request::builder().method(self.request_context.http.method.as_str()).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !self.cookies.is_empty() {
            request = request.header(COOKIE, self.cookies.join("; "));
        }
        let body = self.body.unwrap_or_default();
        let body = if self.is_base64_encoded {
            STANDARD.decode(body).map_err(|error| format!("its body is no base64: {error}"))?
        } else {
            body.into_bytes()
        };
        request.body(Full::new(body.into())).map_err(|error| error.to_string())
    }
}

fn posted(payload: &Payload, trace: Option<&str>) -> Result<Request<Full<Bytes>>, String> {
    let media_type = match payload.form {
        Form::Json => Some("application/json"),
        Form::Text => Some("text/plain; charset=utf-8"),
        Form::Bytes => Some("application/octet-stream"),
        Form::Unknown => None,
    };
    let mut request = Request::post(format!("http://{NOBODY}/")).header(HOST, NOBODY);
    if let Some(media_type) = media_type {
        request = request.header(CONTENT_TYPE, media_type);
    }
    if let Some(trace) = trace {
        request = request.header("traceparent", trace);
    }
    request.body(Full::new(payload.bytes.clone())).map_err(|error| error.to_string())
}

/// Has a component answer. The response is read while it is made, at most so much of it; `store` ends with the component.
pub(super) async fn handle(
    mut store: Store<State>,
    component: Proxy,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Response, Stop> {
    let (tell, told) = oneshot::channel();
    let asked = store.data_mut().http().new_incoming_request(Scheme::Http, request).map_err(Stop::Broken)?;
    let answer = store.data_mut().http().new_response_outparam(tell).map_err(Stop::Broken)?;
    let runs = async move {
        let ended = component.wasi_http_incoming_handler().call_handle(&mut store, asked, answer).await;
        // with it goes the other end of `told`, if it was not used
        drop(store);
        ended.map_err(Stop::Broken)
    };
    let reads = async move {
        let response = told.await.map_err(|_| Stop::Silent)?.map_err(|code| Stop::Refused(format!("{code:?}")))?;
        let (parts, mut rest) = response.into_parts();
        let mut body = BytesMut::new();
        while let Some(frame) = rest.frame().await {
            let frame = frame.map_err(|error| Stop::Cut(error.to_string()))?;
            body.extend_from_slice(&frame.into_data().unwrap_or_default());
            if body.len() > limit {
                return Err(Stop::TooLong(body.len()));
            }
        }
        Ok(Response { parts, body: body.freeze() })
    };
    let ((), response) = tokio::try_join!(runs, reads)?;
    Ok(response)
}

impl Response {
    /// The result of the function.
    pub(super) fn result(self, shape: Shape) -> Result<Bytes, Fault> {
        let Self { parts, body } = self;
        if shape == Shape::Body {
            return if parts.status.is_success() { Ok(body) } else { Err(unsuccessful(parts.status, &body)) };
        }
        let mut headers = BTreeMap::<&str, String>::new();
        for (name, value) in parts.headers.iter().filter(|(name, _)| **name != SET_COOKIE) {
            let value = String::from_utf8_lossy(value.as_bytes());
            let line = headers.entry(name.as_str()).or_default();
            line.push_str(if line.is_empty() { "" } else { ", " });
            line.push_str(&value);
        }
        let cookies = parts.headers.get_all(SET_COOKIE).iter();
        let cookies = cookies.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let (body, is_base64_encoded) = match str::from_utf8(&body) {
            Ok(text) => (Cow::Borrowed(text), false),
            Err(_) => (Cow::Owned(STANDARD.encode(&body)), true),
        };
        let answered = Answered { status_code: parts.status.as_u16(), headers, cookies, body, is_base64_encoded };
        let written = serde_json::to_vec(&answered);
        written.map(Bytes::from).map_err(|error| fault("Runtime.BadOutput", error.to_string()))
    }
}

fn unsuccessful(status: StatusCode, body: &[u8]) -> Fault {
    let mut message = format!("the function answered {status}");
    if !body.is_empty() {
        message = format!("{message}: {}", String::from_utf8_lossy(&body[..body.len().min(SAID)]).trim());
    }
    // the same status of a webhook's target is final too
    let retry = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    Fault { retry, ..fault("Function.HttpStatus", message) }
}

/// Why there is no response, and how that ends the invocation; an error is for who knows why code ends.
pub(super) fn ended(stop: Stop, limit: usize) -> Result<(Ending, Fault), wasmtime::Error> {
    let bad = |why: String| (Ending::BadOutput, fault("Runtime.NoResponse", why));
    Ok(match stop {
        Stop::Broken(error) => return Err(error),
        Stop::TooLong(size) => (Ending::TooLarge, too_large(size, limit)),
        Stop::Silent => bad("the function returned without a response; call response-outparam.set".into()),
        Stop::Refused(code) => (Ending::Error, fault("Function.HttpError", format!("the function answered {code}"))),
        Stop::Cut(why) => bad(format!("the function did not end its response: {why}; call outgoing-body.finish")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(bytes: &str, form: Form) -> Payload {
        Payload { bytes: Bytes::copy_from_slice(bytes.as_bytes()), form }
    }

    #[tokio::test]
    async fn an_event_of_http_is_the_request_it_was_made_from() {
        let event = r#"{"version":"2.0","rawPath":"/a%20b","rawQueryString":"x=1&x=2","cookies":["a=1","b=2"],
            "headers":{"host":"shop.example:81","x-id":"7"},"requestContext":{"http":{"method":"PUT"}},
            "body":"aGk=","isBase64Encoded":true}"#;
        let (request, shape) = request(&payload(event, Form::Json), None).unwrap();
        assert_eq!((request.method().as_str(), shape), ("PUT", Shape::Whole));
        assert_eq!(request.uri(), "http://shop.example:81/a%20b?x=1&x=2");
        assert_eq!(request.headers()["x-id"], "7");
        assert_eq!(request.headers()[COOKIE], "a=1; b=2");
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "hi");
    }

    #[test]
    fn any_other_event_is_posted() {
        for (text, form, media_type) in [
            (r#"{"rawPath":"/x"}"#, Form::Json, Some("application/json")),
            ("a,b", Form::Text, Some("text/plain; charset=utf-8")),
            ("a,b", Form::Unknown, None),
        ] {
            let (request, shape) = request(&payload(text, form), Some("00-1-2-01")).unwrap();
            assert_eq!((request.method().as_str(), request.uri().path(), shape), ("POST", "/", Shape::Body));
            assert_eq!(request.headers().get(CONTENT_TYPE).map(|v| v.to_str().unwrap()), media_type);
            assert_eq!(request.headers()["traceparent"], "00-1-2-01");
        }
    }

    #[test]
    fn an_event_that_no_request_can_be_made_of_is_not_tried_again() {
        let event = r#"{"rawPath":"no path","requestContext":{"http":{"method":"GET"}}}"#;
        let fault = request(&payload(event, Form::Json), None).unwrap_err();
        assert!(fault.message.starts_with("no request can be made of the event") && !fault.retry, "{fault:?}");
    }

    #[test]
    fn a_response_keeps_status_headers_cookies_and_bytes() {
        let response = hyper::Response::builder().status(404).header("x-a", "1").header("x-a", "2");
        let response = response.header(SET_COOKIE, "a=1").header(SET_COOKIE, "b=2").body(()).unwrap();
        let (parts, ()) = response.into_parts();
        let result = |body: &'static [u8]| {
            let response = Response { parts: parts.clone(), body: body.into() };
            serde_json::from_slice::<serde_json::Value>(&response.result(Shape::Whole).unwrap()).unwrap()
        };
        let whole = serde_json::json!({
            "statusCode": 404, "headers": { "x-a": "1, 2" }, "cookies": ["a=1", "b=2"], "body": "no", "isBase64Encoded": false
        });
        assert_eq!(result(b"no"), whole);
        assert_eq!((&result(b"\xff")["body"], &result(b"\xff")["isBase64Encoded"]), (&"/w==".into(), &true.into()));
        let fault = Response { parts, body: "no such customer".into() }.result(Shape::Body).unwrap_err();
        assert_eq!(fault.message, "the function answered 404 Not Found: no such customer");
        assert!(!fault.retry);
    }
}
