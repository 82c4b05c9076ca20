//! HTTP in front of NATS: `POST /call` waits for a reply over core NATS, `POST /publish` until JetStream has it (which
//! is before it is synced).

use async_nats::{Client, jetstream};
use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::post,
};
use bytes::Bytes;
use tokio::net::TcpListener;

use super::{connect, responder::SUBJECT, say};
use crate::Result;

const STREAM: &str = "FLOOR";
const EVENTS: &str = "floor.events";

#[derive(Clone)]
struct Front {
    client: Client,
    jetstream: jetstream::Context,
}

pub(super) async fn serve(nats: &str) -> Result<()> {
    let client = connect(nats).await?;
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec![EVENTS.to_owned()],
        max_bytes: 256 << 20,
        ..Default::default()
    };
    jetstream.get_or_create_stream(stream).await?;
    let router = Router::new()
        .route("/call", post(call))
        .route("/publish", post(publish))
        .with_state(Front { client, jetstream });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(&listener.local_addr()?.to_string())?;
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true)));
    Ok(axum::serve(listener, router).await?)
}

async fn call(State(front): State<Front>, body: Bytes) -> impl IntoResponse {
    match front.client.request(SUBJECT, body).await {
        Ok(reply) => (StatusCode::OK, [(CONTENT_TYPE, "application/json")], reply.payload),
        Err(error) => (StatusCode::BAD_GATEWAY, [(CONTENT_TYPE, "text/plain")], error.to_string().into()),
    }
}

async fn publish(State(front): State<Front>, body: Bytes) -> impl IntoResponse {
    let published = match front.jetstream.publish(EVENTS, body).await {
        Ok(ack) => ack.await.map(|ack| ack.sequence),
        Err(error) => Err(error),
    };
    match published {
        Ok(sequence) => (StatusCode::ACCEPTED, format!("{{\"id\":\"{sequence}\"}}")),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
    }
}
