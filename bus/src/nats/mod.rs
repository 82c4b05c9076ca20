//! The way to NATS: a server of our own under supervision, or somebody's; one connection; one work-queue stream.

pub mod inbox;
mod leftover;
pub mod publish;
pub mod server;
pub mod stream;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, ConnectOptions, jetstream};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::sync::watch;

pub use server::{OwnServer, ServerError};

/// The oldest nats-server known to keep its streams over a kill.
pub const OLDEST: (i64, i64, i64) = (2, 10, 23);

/// One connection per process: shared connections beat one per caller.
#[derive(Clone)]
pub struct Nats {
    pub client: Client,
    pub jetstream: jetstream::Context,
    connected: watch::Receiver<bool>,
    /// Set when we end the connection ourselves: then its loss is no news.
    ending: Arc<AtomicBool>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    #[error("cannot connect to NATS at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the nats-server at {url} is version {found}; fnbus needs {}.{}.{} or newer", OLDEST.0, OLDEST.1, OLDEST.2)]
    TooOld { url: String, found: String },
    #[error("the nats-server at {url} has JetStream switched off; start it with `-js`")]
    NoJetStream { url: String },
}

/// How to reach a server.
#[derive(Clone)]
pub struct Address {
    /// Without user and password: it may be shown.
    pub url: String,
    pub login: Option<Login>,
}

/// What a server asks of whoever connects.
#[derive(Clone)]
pub enum Login {
    Password { user: String, password: String },
    Token(String),
}

impl Address {
    /// With the login: for who may know it.
    pub fn with_login(&self) -> String {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let login = match &self.login {
            Some(Login::Password { user, password }) => format!("{}:{}@", encode(user), encode(password)),
            Some(Login::Token(token)) => format!("{}@", encode(token)),
            None => String::new(),
        };
        match self.url.split_once("://") {
            Some((scheme, place)) => format!("{scheme}://{login}{place}"),
            None => format!("{login}{}", self.url),
        }
    }

    /// Takes a URL apart: the NATS client does not look for a login in it.
    pub fn of(url: &str) -> Self {
        let parts = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
        let Some((scheme, (login, place))) = parts else { return Self { url: url.to_owned(), login: None } };
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let login = match login.split_once(':') {
            Some((user, password)) => Login::Password { user: decoded(user), password: decoded(password) },
            None => Login::Token(decoded(login)),
        };
        Self { url: format!("{scheme}://{place}"), login: Some(login) }
    }
}

impl Nats {
    /// Connects and checks that the server will do. Reconnects by itself for ever after.
    pub async fn connect(address: &Address, namespace: &str) -> Result<Self, ConnectError> {
        let (signal, connected) = watch::channel(true);
        let signal = Arc::new(signal);
        let lost_before = Arc::new(AtomicBool::new(false));
        let ending = Arc::new(AtomicBool::new(false));
        let expected = ending.clone();
        let mut options = ConnectOptions::new()
            .name(format!("fnbus {namespace}"))
            .connection_timeout(Duration::from_secs(5))
            .ping_interval(Duration::from_secs(10))
            .reconnect_delay_callback(|attempts| Duration::from_millis((20 * attempts as u64).min(1000)))
            .event_callback(move |event| {
                let (signal, lost_before, expected) = (signal.clone(), lost_before.clone(), expected.clone());
                async move {
                    match event {
                        async_nats::Event::Connected => {
                            if lost_before.swap(false, Ordering::Relaxed) {
                                tracing::info!("connected to NATS again");
                            }
                            signal.send_if_modified(|connected| !std::mem::replace(connected, true));
                        }
                        async_nats::Event::Disconnected => {
                            if !lost_before.swap(true, Ordering::Relaxed) && !expected.load(Ordering::Relaxed) {
                                tracing::warn!("the connection to NATS is lost; accepting goes on, running waits");
                            }
                            signal.send_if_modified(|connected| std::mem::replace(connected, false));
                        }
                        async_nats::Event::SlowConsumer(id) => {
                            tracing::warn!(id, "NATS messages came too fast and were dropped");
                        }
                        other => tracing::debug!(event = %other, "NATS"),
                    }
                }
            });
        options = match address.login.clone() {
            Some(Login::Password { user, password }) => options.user_and_password(user, password),
            Some(Login::Token(token)) => options.token(token),
            None => options,
        };
        let url = address.url.clone();
        let client = options
            .connect(&url)
            .await
            .map_err(|error| ConnectError::Unreachable { url: url.clone(), reason: error.to_string() })?;
        if !client.is_server_compatible(OLDEST.0, OLDEST.1, OLDEST.2) {
            return Err(ConnectError::TooOld { url, found: client.server_info().version });
        }
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .ack_timeout(Duration::from_secs(10))
            .build(client.clone());
        if let Err(error) = jetstream.query_account().await {
            tracing::debug!(%error, "JetStream does not answer");
            return Err(ConnectError::NoJetStream { url });
        }
        Ok(Self { client, jetstream, connected, ending })
    }

    /// Sends what is still to be sent; from now on the loss of the connection is expected.
    pub async fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.client.flush()).await;
    }

    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Returns when there is no connection, however short it is gone.
    pub async fn disconnected(&self) {
        let mut connected = self.connected.clone();
        if *connected.borrow_and_update() {
            // Only real changes are told, so the first one is a loss, even if it is over when we look.
            let _ = connected.changed().await;
        }
    }

    /// Returns when there is a connection.
    pub async fn connected(&self) {
        let mut connected = self.connected.clone();
        // An error means the client is gone: then nothing will connect, and the caller is being shut down.
        let _ = connected.wait_for(|connected| *connected).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_put_together_as_it_was_taken_apart() {
        for url in ["nats://me:a%40b@host:4222", "tls://token%2F1@host:4222", "nats://host:4222"] {
            assert_eq!(Address::of(url).with_login(), url);
        }
        assert_eq!(Address::of("nats://me:hush@host:4222").url, "nats://host:4222");
    }
}
