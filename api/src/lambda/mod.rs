//! The API of AWS Lambda, as far as its clients need it to call functions: boto3, the aws cli and the other SDKs work
//! with `endpoint_url = "http://127.0.0.1:9001"` and any credentials.
//!
//! It is served on this machine alone and asks nobody who they are; a page that a browser shows must not reach it all the
//! same, so requests with an `Origin`, or for another host, are refused.

// What clients are told went wrong.
mod error;
// `Invoke`.
mod invoke;
// `InvokeWithResponseStream`.
mod stream;
// The messages it answers with.
mod frame;
// What there is to be called.
mod list;
// Names, ARNs and qualifiers.
mod name;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderMap, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bus::Bus;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::control::Views;
use error::LambdaError;

/// Most bytes of a payload, as on AWS.
const MAX_PAYLOAD: usize = 6 << 20;
/// The same of an asynchronous invocation.
const MAX_EVENT: usize = 1 << 20;

/// The Lambda API of one node.
#[derive(Clone)]
pub struct LambdaApi {
    bus: Bus,
    views: Views,
}

impl LambdaApi {
    pub fn new(bus: Bus, views: Views) -> Self {
        Self { bus, views }
    }

    /// Answers until shut down; what is being answered is finished.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        let function = "/2015-03-31/functions/{name}";
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/2015-03-31/functions", get(list::functions))
            .route("/2015-03-31/functions/", get(list::functions))
            .route(function, get(list::function))
            .route(&format!("{function}/configuration"), get(list::configuration))
            .route(&format!("{function}/invocations"), post(invoke::invoke))
            .route("/2014-11-13/functions/{name}/invoke-async", post(invoke::invoke_async))
            .route("/2021-11-15/functions/{name}/response-streaming-invocations", post(stream::invoke))
            .fallback(nothing)
            .method_not_allowed_fallback(nothing)
            .layer(DefaultBodyLimit::disable())
            .layer(middleware::from_fn(local))
            .with_state(self);
        let ended = async move { shutdown.cancelled().await };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
            tracing::error!(%error, "the Lambda API failed");
        }
    }
}

async fn nothing(method: Method, request: Request) -> LambdaError {
    LambdaError::NoOperation { method, path: request.uri().path().to_owned() }
}

/// Lets through only what a program on this machine asks.
async fn local(request: Request, next: Next) -> Response {
    if is_local(request.headers()) { next.run(request).await } else { LambdaError::Elsewhere.into_response() }
}

fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let is_local = name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback());
    is_local && !headers.contains_key(header::ORIGIN)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("localhost:9001", true)]
    #[case("LocalHost", true)]
    #[case("127.0.0.1:9001", true)]
    #[case("127.9.9.9", true)]
    #[case("[::1]:9001", true)]
    #[case("[::1]", true)]
    #[case("evil.example", false)]
    #[case("localhost.evil.example:9001", false)]
    #[case("192.168.1.7:9001", false)]
    #[case("", false)]
    fn only_names_of_this_machine_are_local(#[case] host: &str, #[case] expect: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        assert_eq!(is_local(&headers), expect, "{host}");
        headers.insert(header::ORIGIN, "http://localhost".parse().unwrap());
        assert!(!is_local(&headers), "a page asked");
    }
}
