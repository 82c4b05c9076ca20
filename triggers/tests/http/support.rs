//! A bus in memory, a server on a free port, and a client that speaks bytes.

use std::{
    collections::BTreeSet,
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use bus::{
    Event, EventId, Name, Outcome, Sink, Target,
    outcome::{Ending, Start, Times},
    sink::{AcceptError, Accepted, Call, CallError, LogMode, Reply},
};
use bytes::Bytes;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use triggers::{
    config::{HttpConfig, HttpTrigger, Mode, PayloadKey, TriggerConfig, TriggerKind},
    http::{HttpServer, Limits, Table},
};

/// Longer than anything here takes; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

type Answer = dyn Fn(&Event) -> Result<Outcome, CallError> + Send + Sync;

/// A bus in memory.
#[derive(Clone)]
pub(crate) struct Bus(Arc<Inner>);

struct Inner {
    accepted: Mutex<Vec<Event>>,
    called: Mutex<Vec<(Event, Call)>>,
    refuse: Mutex<Option<AcceptError>>,
    answer: Mutex<Box<Answer>>,
    /// Calls wait here while a test holds them.
    gate: Semaphore,
    begun: watch::Sender<usize>,
    finished: watch::Sender<usize>,
}

impl Bus {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            accepted: Mutex::default(),
            called: Mutex::default(),
            refuse: Mutex::default(),
            answer: Mutex::new(Box::new(|_| Ok(ok("{}")))),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            begun: watch::Sender::new(0),
            finished: watch::Sender::new(0),
        }))
    }

    pub(crate) fn answering(
        self,
        answer: impl Fn(&Event) -> Result<Outcome, CallError> + Send + Sync + 'static,
    ) -> Self {
        *self.0.answer.lock().unwrap() = Box::new(answer);
        self
    }

    pub(crate) fn refusing(self, why: AcceptError) -> Self {
        *self.0.refuse.lock().unwrap() = Some(why);
        self
    }

    /// Calls begin but do not end until [`release`](Self::release).
    pub(crate) fn holding(self) -> Self {
        self.0.gate.forget_permits(Semaphore::MAX_PERMITS);
        self
    }

    pub(crate) fn release(&self) {
        self.0.gate.add_permits(1000);
    }

    pub(crate) async fn begun(&self, n: usize) {
        timeout(PATIENCE, self.0.begun.subscribe().wait_for(|begun| *begun >= n)).await.unwrap().unwrap();
    }

    pub(crate) async fn finished(&self, n: usize) {
        timeout(PATIENCE, self.0.finished.subscribe().wait_for(|finished| *finished >= n)).await.unwrap().unwrap();
    }

    pub(crate) fn accepted(&self) -> Vec<Event> {
        self.0.accepted.lock().unwrap().clone()
    }

    pub(crate) fn called(&self) -> Vec<(Event, Call)> {
        self.0.called.lock().unwrap().clone()
    }
}

impl Sink for Bus {
    async fn accept(&self, event: Event) -> Result<Accepted, AcceptError> {
        if let Some(why) = self.0.refuse.lock().unwrap().clone() {
            return Err(why);
        }
        let mut accepted = self.0.accepted.lock().unwrap();
        let id = event.id.clone();
        match accepted.iter().find(|other| (&other.id, &other.source) == (&id, &event.source)) {
            Some(other) if other.data != event.data => {
                Err(AcceptError::Conflict { id: id.to_string(), source_uri: event.source.to_string() })
            }
            Some(_) => Ok(Accepted { id, deliveries: 0, duplicate: true }),
            None => {
                accepted.push(event);
                Ok(Accepted { id, deliveries: 1, duplicate: false })
            }
        }
    }

    async fn call(&self, event: Event, call: Call) -> Result<Reply, CallError> {
        self.0.called.lock().unwrap().push((event.clone(), call));
        self.0.begun.send_modify(|n| *n += 1);
        let _permit = self.0.gate.acquire().await.unwrap();
        let outcome = (self.0.answer.lock().unwrap())(&event);
        self.0.finished.send_modify(|n| *n += 1);
        Ok(Reply { event: event.id, outcome: outcome? })
    }
}

pub(crate) fn ok(output: impl Into<Bytes>) -> Outcome {
    Outcome {
        request_id: None,
        ending: Ending::Ok,
        output: output.into(),
        fault: None,
        log: String::new(),
        version: "1".into(),
        start: Start::Warm,
        started: chrono::Utc::now(),
        times: Times::default(),
        shared: false,
    }
}

/// A server that serves until dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) http: HttpServer<Bus>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Routes with their modes, each a trigger `t0`, `t1`, … to the function `f`.
pub(crate) fn table(routes: &[(&str, Mode)]) -> Table {
    let http = HttpConfig { listen: ([127, 0, 0, 1], 0).into(), max_body: 1000 };
    let triggers: Vec<(Name, TriggerConfig)> = routes
        .iter()
        .enumerate()
        .map(|(n, (route, mode))| {
            let kind = TriggerKind::Http(HttpTrigger {
                routes: vec![route.parse().unwrap()],
                mode: *mode,
                timeout: None,
                max_body: None,
                log: LogMode::Full,
            });
            let to = vec![Target::Named("f".parse().unwrap())];
            (
                format!("t{n}").parse().unwrap(),
                TriggerConfig { kind, to, payload: PayloadKey::Lambda, order_by: None, example: None },
            )
        })
        .collect();
    Table::new(&"shop".parse().unwrap(), &http, triggers.iter().map(|(name, config)| (name, config)), &BTreeSet::new())
        .unwrap()
}

pub(crate) async fn serve(bus: &Bus, routes: &[(&str, Mode)]) -> Server {
    serve_within(bus, routes, Limits::default()).await
}

pub(crate) async fn serve_within(bus: &Bus, routes: &[(&str, Mode)], limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = HttpServer::new(bus.clone(), table(routes), limits);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.clone().run(listener, shutdown.clone()));
    Server { address, http: server, shutdown, running }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer with a head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }
}

impl Server {
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes and reads until the server closes, however much of the bytes it took.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut read, mut write) = self.connect().await.into_split();
        let bytes = bytes.to_vec();
        let writing = tokio::spawn(async move {
            let _ = write.write_all(&bytes).await;
            // kept open: a client that closes early is another test
            std::future::pending::<()>().await;
        });
        let answer = read_all(&mut read).await;
        writing.abort();
        answer
    }

    /// One answer to bytes, after which the server closes.
    pub(crate) async fn answer(&self, bytes: &[u8]) -> Response {
        Response::parse(&self.raw(bytes).await)
    }

    pub(crate) async fn request(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.answer(&request(line, headers, body)).await
    }

    /// POSTs JSON.
    pub(crate) async fn post(&self, path: &str, media_type: &str, body: &str) -> Response {
        self.request(&format!("POST {path}"), &[("content-type", media_type)], body.as_bytes()).await
    }
}

pub(crate) fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if !body.is_empty() {
        bytes.extend(format!("content-length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// Everything until the end; what came before a reset counts.
pub(crate) async fn read_all(read: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, read.read_to_end(&mut answer)).await.expect("the server closes");
    answer
}

/// The cases of a family; none where there is no folder of them and nobody promised one.
pub(crate) fn cases(family: &str) -> Vec<Value> {
    let folder = env::var_os("FNBUS_CASES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases")), PathBuf::from);
    let file = folder.join(format!("{family}.json"));
    let Ok(text) = fs::read(&file) else {
        assert!(env::var("CI").as_deref() != Ok("true"), "no cases at {}", file.display());
        eprintln!("skipped: no cases at {}; set FNBUS_CASES", file.display());
        return Vec::new();
    };
    let family: Value = serde_json::from_slice(&text).unwrap();
    family["cases"].as_array().unwrap().clone()
}

/// Ids of accepted events with how they look from outside.
pub(crate) fn summary(events: &[Event]) -> Vec<(String, String, String)> {
    events.iter().map(|e| (e.id.to_string(), e.source.to_string(), e.kind.to_string())).collect()
}

pub(crate) fn foreign(id: &str) -> EventId {
    EventId::foreign(id)
}
