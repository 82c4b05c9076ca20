//! `Invoke`: a function's answer, or its error, is a 200; what was not run is an error of its own.

use axum::{
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bus::{
    Event, Name, Outcome, Sink,
    event::{InvokeMeta, Meta},
    outcome::{Ending, error_object},
    payload::Format,
    sink::{Call, LogMode},
    target::{Qualifier, Target},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    LambdaApi, MAX_EVENT, MAX_PAYLOAD,
    error::LambdaError,
    name::{Named, arn},
};
use crate::problem;

/// Most bytes of a client context before it is encoded.
const MAX_CONTEXT: usize = 3583;
/// Most bytes of the log that go into a header.
const TAIL: usize = 4096;

/// The query of every operation on a function.
#[derive(Debug, Deserialize)]
pub(super) struct Asking {
    #[serde(rename = "Qualifier")]
    pub(super) qualifier: Option<String>,
}

/// How a function is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    RequestResponse,
    Event,
    DryRun,
}

/// What the headers of an invocation ask for.
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) tail: bool,
    pub(super) client_context: Option<String>,
}

pub(super) async fn invoke(
    State(api): State<LambdaApi>,
    Path(name): Path<String>,
    Query(query): Query<Asking>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, LambdaError> {
    let (function, version) = api.named(&Named::read(&name, query.qualifier.as_deref())?).await?;
    let asked = Asked::read(&headers)?;
    let payload = read(body, if asked.kind == Kind::Event { MAX_EVENT } else { MAX_PAYLOAD }).await?;
    match asked.kind {
        Kind::DryRun => Ok(StatusCode::NO_CONTENT.into_response()),
        Kind::Event => api.accept(Target::of(function, version), payload).await,
        Kind::RequestResponse => api.call(function, version, payload, asked).await,
    }
}

/// The operation before `Invoke`, which only knew events.
pub(super) async fn invoke_async(
    State(api): State<LambdaApi>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, LambdaError> {
    let (function, version) = api.named(&Named::read(&name, None)?).await?;
    api.accept(Target::of(function, version), read(body, MAX_EVENT).await?).await
}

impl Asked {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, LambdaError> {
        let of = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        let wrong = |name: &str, words: &str| LambdaError::Parameter(format!("{name} must be one of {words}"));
        let kind = match of("x-amz-invocation-type") {
            None | Some(b"RequestResponse") => Kind::RequestResponse,
            Some(b"Event") => Kind::Event,
            Some(b"DryRun") => Kind::DryRun,
            Some(_) => return Err(wrong("X-Amz-Invocation-Type", "RequestResponse, Event, DryRun")),
        };
        let tail = match of("x-amz-log-type") {
            None | Some(b"None") => false,
            Some(b"Tail") => true,
            Some(_) => return Err(wrong("X-Amz-Log-Type", "None, Tail")),
        };
        let client_context = of("x-amz-client-context").map(client_context).transpose()?;
        Ok(Self { kind, tail, client_context })
    }
}

/// The JSON that a header carries; an object.
fn client_context(header: &[u8]) -> Result<String, LambdaError> {
    let json = BASE64_STANDARD
        .decode(header)
        .map_err(|_| LambdaError::Content("Client context must be valid Base64-encoded JSON"))?;
    if json.len() > MAX_CONTEXT {
        return Err(LambdaError::Content("Client context must be no more than 3583 bytes of JSON"));
    }
    let json: &RawValue = serde_json::from_slice(&json)
        .map_err(|_| LambdaError::Content("Client context must be valid Base64-encoded JSON"))?;
    if !json.get().starts_with('{') {
        return Err(LambdaError::Content("Client context must be a JSON object"));
    }
    // a header of the Runtime API has one line; line breaks within strings are escaped
    Ok(json.get().replace(['\r', '\n'], " "))
}

/// The payload: JSON, passed on byte for byte. None is an empty object, as on AWS.
pub(super) async fn read(body: Body, most: usize) -> Result<Bytes, LambdaError> {
    let read = Limited::new(body, most).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { LambdaError::TooLarge { most } } else { LambdaError::CutOff }
    })?;
    let payload = read.to_bytes();
    if payload.is_empty() {
        return Ok(Bytes::from_static(b"{}"));
    }
    serde_json::from_slice::<IgnoredAny>(&payload).map_err(LambdaError::NotJson)?;
    std::str::from_utf8(&payload)
        .map_err(|_| LambdaError::Content("Could not parse request body into json: it is not UTF-8"))?;
    Ok(payload)
}

impl LambdaApi {
    /// The function that is meant, and which version of it.
    pub(super) async fn named(&self, named: &Named) -> Result<(Name, Option<Qualifier>), LambdaError> {
        let known = |name: &Name| self.bus.owner().catalog().functions.contains_key(name);
        let function = named.function().filter(known).ok_or_else(|| self.unknown(&named.function))?;
        let Some(text) = named.qualifier.as_deref() else { return Ok((function, None)) };
        let version = text.parse::<Qualifier>().ok();
        let is_there = match &version {
            Some(version) => (self.views.find_version)(function.clone(), version.clone()).await.is_ok(),
            None => false,
        };
        if is_there {
            return Ok((function, version));
        }
        Err(LambdaError::NoVersion { arn: format!("{}:{text}", arn(function.as_str())) })
    }

    pub(super) fn unknown(&self, name: &str) -> LambdaError {
        let known = problem::listed(&self.bus.owner().catalog().function_names());
        LambdaError::NoFunction { arn: arn(name), known }
    }

    pub(super) fn event(&self, payload: Bytes, client_context: Option<String>) -> Event {
        let mut event = Event::new(format!("/{}/invoke", self.bus.subjects().namespace()), "function.invoke", payload);
        event.datacontenttype = Some("application/json".into());
        if let Some(client_context) = client_context {
            event.meta = Meta::Invoke(Box::new(InvokeMeta { client_context }));
        }
        event
    }

    async fn accept(&self, target: Target, payload: Bytes) -> Result<Response, LambdaError> {
        let accepted = self.bus.owner().accept_for(target, Format::Body, self.event(payload, None)).await?;
        let mut response = StatusCode::ACCEPTED.into_response();
        set(&mut response, "x-amzn-requestid", accepted.id.to_string());
        Ok(response)
    }

    async fn call(
        &self,
        function: Name,
        version: Option<Qualifier>,
        payload: Bytes,
        asked: Asked,
    ) -> Result<Response, LambdaError> {
        let event = self.event(payload, asked.client_context);
        let (name, wanted) = (function.clone(), version.clone());
        let call = Call { function, version, format: Format::Body, timeout: None, log: LogMode::Full, outlet: None };
        let outcome = self.bus.call(event, call).await?.outcome;
        let version = (self.views.called)(name, wanted, Some(outcome.version.to_string())).await;
        let request_id = outcome.request_id.unwrap_or_else(Uuid::now_v7);
        let tail = asked.tail.then(|| tail(&outcome, request_id, &version));
        let failed = outcome.fault.is_some();
        let mut response = response(Body::from(answer(outcome, request_id)), "application/json", request_id, version);
        if failed {
            set(&mut response, "x-amz-function-error", "Unhandled".to_owned());
        }
        if let Some(tail) = tail {
            set(&mut response, "x-amz-log-result", BASE64_STANDARD.encode(tail));
        }
        Ok(response)
    }
}

/// A response of a function that has run, or runs.
pub(super) fn response(body: Body, media_type: &'static str, id: Uuid, version: String) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    set(&mut response, "x-amzn-requestid", id.to_string());
    set(&mut response, "x-amz-executed-version", version);
    response
}

/// What a function answered. What ended it otherwise is told in the words of AWS.
pub(super) fn answer(outcome: Outcome, request_id: Uuid) -> Bytes {
    match outcome.fault {
        Some(mut fault) if matches!(outcome.ending, Ending::Timeout | Ending::Crash | Ending::Oom | Ending::Lost) => {
            fault.message = format!("RequestId: {request_id} Error: {}", fault.message);
            error_object(&fault)
        }
        _ => outcome.output,
    }
}

/// The end of what an invocation printed, between the lines that AWS puts around it.
pub(super) fn tail(outcome: &Outcome, id: Uuid, version: &str) -> Vec<u8> {
    let ms = outcome.times.run.as_secs_f64() * 1e3;
    let log = &outcome.log;
    let end = if log.is_empty() || log.ends_with('\n') { "" } else { "\n" };
    let text = format!(
        "START RequestId: {id} Version: {version}\n{log}{end}END RequestId: {id}\n\
         REPORT RequestId: {id}\tDuration: {ms:.2} ms\tBilled Duration: {:.0} ms\n",
        ms.ceil()
    );
    text.as_bytes()[text.len().saturating_sub(TAIL)..].to_vec()
}

fn set(response: &mut Response, name: &'static str, value: String) {
    // ids, names and Base64 are all fit for a header
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
