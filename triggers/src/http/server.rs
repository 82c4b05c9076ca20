//! Listens, limits connections, drains.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bus::Sink;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    exchange,
    guard::{Busy, Guarded},
    memory::Memory,
    table::Table,
};

/// What one client, or all of them, may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections: usize,
    /// Bytes of a request's target; more: 414.
    pub max_uri: usize,
    /// Bytes of a request's head, its target included; more, or more than 100 headers: 431.
    pub max_head: usize,
    /// From the connection, or a head's first byte, to its end: 408.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// From the end of the head to the end of the body: 408.
    pub body_timeout: Duration,
    /// How long a client may leave its answer unread; then its connection is closed.
    pub write_timeout: Duration,
    /// Bytes of bodies and answers that are here at once, over all connections; more: 503.
    pub memory: usize,
    /// How long what a refused client still sends is read and dropped, so that it gets to read its answer.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            max_uri: 8 * 1024,
            max_head: 16 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            memory: 256 << 20,
            linger: Duration::from_secs(2),
        }
    }
}

/// Connections that wait in the kernel until they are accepted: one too many is tried again by its client a second later,
/// and then later and later.
const QUEUE: i32 = 4096;

/// Longest wait after a failed accept: file descriptors come back when connections end.
const MAX_ACCEPT_WAIT: Duration = Duration::from_secs(1);

/// The HTTP trigger of a node. Clones are handles of the same server.
pub struct HttpServer<S> {
    gateway: Arc<Gateway<S>>,
}

/// What every exchange needs.
pub(super) struct Gateway<S> {
    pub(super) sink: S,
    pub(super) limits: Arc<Limits>,
    pub(super) memory: Memory,
    /// Replaced as a whole by a reload; a request keeps the route it found.
    pub(super) table: ArcSwap<Table>,
    /// Events being given to the bus: they outlive their connections, not the server.
    pub(super) tasks: TaskTracker,
}

impl<S> Clone for HttpServer<S> {
    fn clone(&self) -> Self {
        Self { gateway: self.gateway.clone() }
    }
}

impl<S: Sink> HttpServer<S> {
    pub fn new(sink: S, table: Table, limits: Limits) -> Self {
        Self {
            gateway: Arc::new(Gateway {
                sink,
                memory: Memory::new(limits.memory),
                limits: Arc::new(limits),
                table: ArcSwap::from_pointee(table),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Serves other routes from the next request on.
    pub fn reload(&self, table: Table) {
        self.gateway.table.store(Arc::new(table));
    }

    /// Serves until `shutdown`, then answers what is in flight and returns. How long that may take is the caller's to
    /// say: dropping this future drops the connections.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        // the kernel may allow less, and then that is it
        let _ = rustix::net::listen(&listener, QUEUE);
        let permits = Arc::new(Semaphore::new(self.gateway.limits.connections));
        let graceful = GracefulShutdown::new();
        let server = Arc::new(server());
        let mut wait = Duration::ZERO;
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    wait = Duration::ZERO;
                    self.serve(stream, peer.ip(), permit, &server, &graceful);
                }
                Err(error) => {
                    wait = (wait * 2).clamp(Duration::from_millis(10), MAX_ACCEPT_WAIT);
                    tracing::warn!(%error, "no connection can be accepted for {wait:?}: {error}");
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = sleep(wait) => {}
                    }
                }
            }
        }
        drop(listener);
        graceful.shutdown().await;
        self.gateway.tasks.close();
        self.gateway.tasks.wait().await;
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: IpAddr,
        permit: OwnedSemaphorePermit,
        server: &Arc<auto::Builder<TokioExecutor>>,
        graceful: &GracefulShutdown,
    ) {
        // answers are small and written at once: waiting to fill a packet only costs time
        let _ = stream.set_nodelay(true);
        let busy = Busy::default();
        let io = TokioIo::new(Guarded::new(stream, self.gateway.limits.clone(), busy.clone()));
        let gateway = self.gateway.clone();
        let service = service_fn(move |request| {
            let (gateway, answering) = (gateway.clone(), busy.answering());
            async move {
                let response = exchange::answer(&gateway, peer, request).await;
                Ok::<_, std::convert::Infallible>(response.map(|body| gateway.memory.answer(body, answering)))
            }
        });
        let connection = graceful.watch(server.serve_connection(io, service).into_owned());
        tokio::spawn(async move {
            // a client that left or sent what is no HTTP: it was answered if it could be
            if let Err(error) = connection.await {
                tracing::debug!(%peer, %error, "a connection from {peer} ended: {error}");
            }
            drop(permit);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // first the permit: a connection that was accepted but cannot be served would seem to be answered soon
    let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// Protocol settings. Timeouts and sizes of HTTP/1 heads are the guard's.
fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(None);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    server
}
