//! The NATS of the bus, for people: what a queue trigger reads can be published, what a target publishes can be seen.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bus::nats::publish::Stored;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::{Control, asked, body, json_line};
use crate::problem::Problem;

/// `fnbus nats url`.
#[derive(Debug, Serialize, Deserialize)]
pub struct NatsAddress {
    /// With the login: the socket is only for the user of the bus.
    pub url: String,
}

/// `fnbus nats publish`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Publish {
    pub subject: String,
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    pub data_base64: String,
}

/// Where a message went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Published {
    /// None: no stream has the subject, and only those who listen now got it.
    #[serde(flatten)]
    pub stored: Option<Stored>,
}

/// `fnbus nats sub`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscribeQuery {
    pub subject: String,
}

/// One message, as `fnbus nats sub` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Heard {
    pub subject: String,
    pub headers: Vec<(String, String)>,
    /// The data when it is text, else none; see `data_base64`.
    pub data: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
}

pub(super) async fn address(State(control): State<Control>) -> Json<NatsAddress> {
    Json(NatsAddress { url: control.bus.address().with_login() })
}

pub(super) async fn publish(
    State(control): State<Control>,
    Json(request): Json<Publish>,
) -> Result<Json<Published>, Problem> {
    let Publish { subject, headers, data_base64 } = request;
    if subject.split('.').any(|word| word == "*" || word == ">") {
        return Err(Problem::bad_request(format!("`{subject}` has a wildcard: name the one subject to publish to")));
    }
    if let Some(reason) = control.bus.subjects().refusal(&subject) {
        return Err(Problem::bad_request(format!("`{subject}` cannot be published to: {reason}")));
    }
    let data = BASE64_STANDARD.decode(data_base64).map_err(Problem::bad_request)?;
    let stored = control.bus.publish(&subject, &headers, data.into()).await.map_err(Problem::nats)?;
    Ok(Json(Published { stored }))
}

pub(super) async fn subscribe(State(control): State<Control>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let SubscribeQuery { subject } = asked(query.as_deref())?;
    if subject.is_empty() || subject.split('.').any(str::is_empty) || subject.contains(char::is_whitespace) {
        return Err(Problem::bad_request(format!("`{subject}` is not a subject")));
    }
    let messages = control.bus.subscribe(&subject).await.map_err(Problem::nats)?;
    let shutdown = control.shutdown.clone();
    let lines = messages.map(|(subject, headers, data)| {
        let text = std::str::from_utf8(&data).ok().map(str::to_owned);
        let data_base64 = text.is_none().then(|| BASE64_STANDARD.encode(&data));
        json_line(&Heard { subject, headers, data: text, data_base64 })
    });
    Ok(body(lines.take_until(async move { shutdown.cancelled().await })))
}
