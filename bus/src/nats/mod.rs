//! The way to NATS: a server of our own under supervision, or somebody's; one connection; one work-queue stream.

pub(crate) mod echo;
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

use async_nats::{Client, ConnectErrorKind, ConnectOptions, connection::State, jetstream};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::sync::watch;

pub use server::{OwnServer, ServerError};

/// The oldest nats-server known to keep its streams over a kill.
pub const OLDEST: (i64, i64, i64) = (2, 10, 23);

/// A connection that says nothing is asked so often; the third time without an answer it is lost. So that is noticed
/// within 15 s, in which acknowledgements and leases still hold. One that only takes nothing is [`echo`]'s.
const PING: Duration = Duration::from_secs(5);

/// One connection per process: shared connections beat one per caller.
#[derive(Clone)]
pub struct Nats {
    pub client: Client,
    pub jetstream: jetstream::Context,
    connected: watch::Receiver<bool>,
    signal: Arc<watch::Sender<bool>>,
    /// Set when it is known that the server will do: until then it counts as not there.
    approved: Arc<AtomicBool>,
    /// Set when we end the connection ourselves: then its loss is no news.
    ending: Arc<AtomicBool>,
    /// Held while the stream of deliveries is looked for and made: whoever else misses it then finds it. Whether it was there.
    pub(crate) making: Arc<tokio::sync::Mutex<bool>>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// `away`: nobody answers, which may be better later.
    #[error("cannot connect to NATS at {url}: {reason}")]
    Unreachable { url: String, reason: String, away: bool },
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
        let nats = Self::open(address, namespace, |options| options).await?;
        nats.verify(&address.url).await?;
        nats.approve();
        Ok(nats)
    }

    /// Connects when the server is there. Whoever calls this looks at it then, with [`Nats::verify`], and approves.
    pub(crate) async fn connect_later(address: &Address, namespace: &str) -> Result<Self, ConnectError> {
        Self::open(address, namespace, ConnectOptions::retry_on_initial_connect).await
    }

    async fn open(
        address: &Address,
        namespace: &str,
        how: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let (signal, connected) = watch::channel(false);
        let signal = Arc::new(signal);
        let told = signal.clone();
        let lost_before = Arc::new(AtomicBool::new(false));
        let ending = Arc::new(AtomicBool::new(false));
        let approved = Arc::new(AtomicBool::new(false));
        let (expected, usable) = (ending.clone(), approved.clone());
        let mut options = ConnectOptions::new()
            .name(format!("fnbus {namespace}"))
            .connection_timeout(Duration::from_secs(5))
            .ping_interval(PING)
            .reconnect_delay_callback(|attempts| Duration::from_millis((20 * attempts as u64).min(1000)))
            .event_callback(move |event| {
                let (signal, lost_before, expected) = (signal.clone(), lost_before.clone(), expected.clone());
                let usable = usable.clone();
                async move {
                    match event {
                        async_nats::Event::Connected if !usable.load(Ordering::SeqCst) => {}
                        async_nats::Event::Connected => {
                            if lost_before.swap(false, Ordering::Relaxed) {
                                tracing::info!("connected to NATS again");
                            }
                            signal.send_if_modified(|connected| !std::mem::replace(connected, true));
                        }
                        async_nats::Event::Disconnected => {
                            if !lost_before.swap(true, Ordering::Relaxed) && !expected.load(Ordering::Relaxed) {
                                tracing::warn!("the connection to NATS is lost; accepting and synchronous calls go on, deliveries wait");
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
        let client = how(options).connect(&url).await.map_err(|error| {
            let away =
                matches!(error.kind(), ConnectErrorKind::Io | ConnectErrorKind::TimedOut | ConnectErrorKind::Dns);
            ConnectError::Unreachable { url, reason: error.to_string(), away }
        })?;
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(Duration::from_secs(5))
            .ack_timeout(Duration::from_secs(10))
            .build(client.clone());
        Ok(Self { client, jetstream, connected, signal: told, approved, ending, making: Arc::default() })
    }

    /// Whether the server that is connected will do.
    pub(crate) async fn verify(&self, url: &str) -> Result<(), ConnectError> {
        let url = url.to_owned();
        if !self.client.is_server_compatible(OLDEST.0, OLDEST.1, OLDEST.2) {
            return Err(ConnectError::TooOld { url, found: self.client.server_info().version });
        }
        if let Err(error) = self.jetstream.query_account().await {
            tracing::debug!(%error, "JetStream does not answer");
            return Err(ConnectError::NoJetStream { url });
        }
        Ok(())
    }

    /// From now on a server that is connected counts as there.
    pub(crate) fn approve(&self) {
        self.approved.store(true, Ordering::SeqCst);
        if self.is_open() {
            self.signal.send_if_modified(|connected| !std::mem::replace(connected, true));
        }
    }

    pub(crate) fn is_approved(&self) -> bool {
        self.approved.load(Ordering::SeqCst)
    }

    /// Whether there is a connection, to whatever server.
    pub(crate) fn is_open(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Sends what is still to be sent; from now on the loss of the connection is expected.
    pub async fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.client.flush()).await;
    }

    pub fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    /// Returns when there is no connection, from this call on and however short it is gone.
    pub fn disconnected(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut connected = self.connected.clone();
        let is_connected = *connected.borrow_and_update();
        async move {
            if is_connected {
                // Only real changes are told, so the first one is a loss, even if it is over when we look.
                let _ = connected.changed().await;
            }
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
