//! What clients are told went wrong, in the words of AWS: they build the exception of this name.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, Method, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use bus::sink::{AcceptError, CallError};
use serde_json::json;

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
/// Seconds until a refused caller may try again.
const LATER: HeaderValue = HeaderValue::from_static("1");

/// A refusal. Whatever a function did is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum LambdaError {
    #[error("Function not found: {arn}; known: {known}")]
    NoFunction { arn: String, known: String },
    #[error(
        "Function not found: {arn} (it has no version or alias of that name; `fnbus functions versions` lists them)"
    )]
    NoVersion { arn: String },
    #[error("{0}")]
    Parameter(String),
    #[error("Could not parse request body into json: {0}")]
    NotJson(serde_json::Error),
    #[error("{0}")]
    Content(&'static str),
    #[error("Request must be smaller than {most} bytes for the InvokeFunction operation")]
    TooLarge { most: usize },
    #[error("{method} {path} is no operation that is served here; functions are deployed by fnbus.toml")]
    NoOperation { method: Method, path: String },
    #[error("only programs on this machine are answered: use a local address, and no browser")]
    Elsewhere,
    #[error("the request was cut off")]
    CutOff,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Accept(#[from] AcceptError),
}

impl LambdaError {
    /// The status, the name of the exception, and for throttling what was exceeded.
    fn kind(&self) -> (StatusCode, &'static str, Option<&'static str>) {
        const BUSY: Option<&str> = Some("ReservedFunctionConcurrentInvocationLimitExceeded");
        match self {
            Self::NoFunction { .. } | Self::NoVersion { .. } => {
                (StatusCode::NOT_FOUND, "ResourceNotFoundException", None)
            }
            Self::Parameter(_) => (StatusCode::BAD_REQUEST, "InvalidParameterValueException", None),
            Self::NotJson(_) | Self::Content(_) | Self::CutOff => {
                (StatusCode::BAD_REQUEST, "InvalidRequestContentException", None)
            }
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "RequestTooLargeException", None),
            Self::NoOperation { .. } => (StatusCode::NOT_FOUND, "UnknownOperationException", None),
            Self::Elsewhere => (StatusCode::FORBIDDEN, "AccessDeniedException", None),
            Self::Call(CallError::Busy { .. } | CallError::Stopped { .. }) => {
                (StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", BUSY)
            }
            Self::Call(CallError::Accept(error)) | Self::Accept(error) => of_log(error),
            Self::Call(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceException", None),
        }
    }
}

fn of_log(error: &AcceptError) -> (StatusCode, &'static str, Option<&'static str>) {
    match error {
        AcceptError::Conflict { .. } => (StatusCode::CONFLICT, "ResourceConflictException", None),
        AcceptError::Full => (StatusCode::INSUFFICIENT_STORAGE, "ServiceException", None),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "ServiceException", None),
    }
}

impl IntoResponse for LambdaError {
    fn into_response(self) -> Response {
        let (status, name, reason) = self.kind();
        let by = if status.is_server_error() { "Service" } else { "User" };
        let text = self.to_string();
        // the models spell the member one way or the other
        let mut body = json!({ "Type": by, "message": text, "Message": text });
        if let Some(reason) = reason {
            body["Reason"] = reason.into();
        }
        let mut response = (status, Json(body)).into_response();
        response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(name));
        if status == StatusCode::TOO_MANY_REQUESTS || matches!(status.as_u16(), 503 | 507) {
            response.headers_mut().insert(RETRY_AFTER, LATER);
        }
        response
    }
}
