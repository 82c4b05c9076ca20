//! The bus of one node, started and stopped as one: data folder, log, NATS, owner and relay.

// Synchronous calls that are accepted before they run.
mod accepted;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_nats::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Event, EventId, Name, Outcome, ambient,
    call::{self, Caller, Calls, OVERHEAD},
    carrier::JetStream,
    catalog::Catalog,
    chain,
    log::{
        Log, LogError, OpenError,
        calls::CallRecord,
        event::Prepared,
        mark,
        retention::{self, Keep},
    },
    nats::{
        Address, ConnectError, Nats, OwnServer, ServerError, echo, inbox,
        publish::{NotPublished, Stored},
        stream::{self, StreamError},
    },
    owner::Owner,
    relay::Relay,
    sender::{Sender, Webhooks},
    sink::{AcceptError, Accepted, Call, CallError, Ledger, LogMode, Mark, Reply, Sink},
    subject::Subjects,
    wire,
};

/// A node that was killed leaves its lock to the processes it was about to start, until they begin or end.
const LET_GO: Duration = Duration::from_millis(500);

/// How often a NATS that is awaited is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// What a node is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub namespace: Name,
    /// The data folder; absolute.
    pub data: PathBuf,
    /// Somebody's NATS; none: a server of our own.
    pub nats: Option<String>,
    /// The port of our own server; none: any free one.
    pub nats_port: Option<u16>,
    pub keep: Keep,
    /// Whether accepted events are copied to whoever listens.
    pub tap: bool,
    /// The folder that relative paths of `file:` targets begin at.
    pub base: PathBuf,
    pub webhooks: Webhooks,
}

/// A data folder that is this process' alone, until it is dropped.
pub struct DataFolder {
    /// Locked.
    _file: File,
}

/// A running bus. Clones share it.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    owner: Owner,
    catalog: Arc<ArcSwap<Catalog>>,
    keep: ArcSwap<Keep>,
    nats: Nats,
    address: Address,
    caller: Caller,
    subjects: Arc<Subjects>,
    tap: bool,
    /// Held as long as the bus lives: two buses never share a data folder.
    _folder: DataFolder,
}

/// The tasks of a bus; see [`Tasks::stop`].
pub struct Tasks {
    running: JoinSet<()>,
    relay: CancellationToken,
    server: CancellationToken,
    bus: Bus,
}

/// Why a bus did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("the data folder {path} cannot be written: {error}")]
    Folder { path: PathBuf, error: std::io::Error },
    #[error("the data folder {path} is in use by another fnbus{}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse { path: PathBuf, holder: Option<u32> },
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error("the event log cannot be brought up: {0}")]
    Recover(#[from] LogError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("another fnbus ({node}) already serves the namespace `{namespace}` on this NATS")]
    NamespaceTaken { namespace: Name, node: String },
}

impl DataFolder {
    /// Takes the folder, and makes it when there is none.
    pub fn take(data: &Path) -> Result<Self, StartError> {
        let unwritable = |error| StartError::Folder { path: data.to_owned(), error };
        fs::create_dir_all(data).map_err(unwritable)?;
        let path = data.join("lock");
        let mut file =
            File::options().create(true).read(true).write(true).truncate(false).open(&path).map_err(unwritable)?;
        let patience = Instant::now() + LET_GO;
        while file.try_lock().is_err() {
            if Instant::now() < patience {
                // A lock that is waited for without this cannot be given up on.
                std::thread::sleep(LET_GO / 20);
                continue;
            }
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(StartError::InUse { path: data.to_owned(), holder: holder.trim().parse().ok() });
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(unwritable)?;
        writeln!(file, "{}", std::process::id()).map_err(unwritable)?;
        Ok(Self { _file: file })
    }
}

impl Bus {
    /// Starts everything. When this returns, events are accepted and carried, and calls wait for the worker that takes them.
    /// The catalog is asked for when it is known which triggers are paused.
    pub async fn start(
        settings: Settings,
        folder: DataFolder,
        catalog: impl FnOnce(&BTreeSet<Name>) -> Catalog,
    ) -> Result<(Self, Tasks, Calls), StartError> {
        let data = settings.data.clone();
        let log = async { tokio::task::spawn_blocking(move || Log::open(&data)).await.map_err(|_| LogError::Closed) };
        // The log and the server need nothing of each other.
        let (log, reached) = tokio::join!(log, reach(&settings));
        let log = log??;
        let (own, nats, address) = match (&settings.nats, reached) {
            (Some(url), Err(StartError::Connect(ConnectError::Unreachable { away: true, reason, .. })))
                if log.has_events().await? =>
            {
                let address = Address::of(url);
                tracing::warn!(
                    nats = address.url,
                    "NATS is not there ({reason}): accepting begins without it, deliveries wait"
                );
                (None, Nats::connect_later(&address, settings.namespace.as_str()).await?, address)
            }
            (_, reached) => reached?,
        };
        let subjects = Arc::new(Subjects::new(settings.namespace.clone()));
        let server = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some(own) = own {
            tasks.spawn(own.supervise(server.clone()));
        }
        let node: Arc<str> = log.id().simple().to_string()[20..].into();
        if nats.is_approved() {
            alone(&nats, &subjects).await?;
            stream::open(&nats, &subjects).await?;
        }
        let paused = log.read(|c| Ok::<_, LogError>(mark::paused(c)?)).await?;
        let catalog = Arc::new(ArcSwap::from_pointee(catalog(&paused)));
        let owner = Owner::new(log, node, settings.namespace.clone(), catalog.clone());
        let lost = owner.recover().await?;
        if lost > 0 {
            tracing::info!(attempts = lost, "attempts were open when the last run ended; they are made again");
        }
        let (caller, calls) = call::channel();
        let bus = Self {
            inner: Arc::new(Inner {
                caller,
                keep: ArcSwap::from_pointee(settings.keep),
                owner,
                catalog,
                nats,
                address,
                subjects,
                tap: settings.tap,
                _folder: folder,
            }),
        };
        let relay = CancellationToken::new();
        let sender = Sender::new(bus.owner().clone(), bus.nats().clone(), settings.base, settings.webhooks);
        let carrier =
            JetStream::new(bus.nats().clone(), bus.inner.subjects.clone(), bus.owner().node().clone(), sender);
        tasks.spawn(Relay::new(bus.owner().clone(), carrier).run(relay.clone()));
        tasks.spawn(await_nats(bus.clone(), relay.clone()));
        tasks.spawn(answer_presence(bus.clone(), relay.clone()));
        tasks.spawn(echo::watch(bus.nats().clone(), relay.clone()));
        let keep = bus.clone();
        tasks.spawn(retention::run(bus.log().clone(), move || keep.keep(), relay.clone()));
        let tasks = Tasks { running: tasks, relay, server, bus: bus.clone() };
        Ok((bus, tasks, calls))
    }

    pub fn owner(&self) -> &Owner {
        &self.inner.owner
    }

    pub fn log(&self) -> &Log {
        self.inner.owner.log()
    }

    pub fn nats(&self) -> &Nats {
        &self.inner.nats
    }

    /// Where NATS is, with the login.
    pub fn address(&self) -> &Address {
        &self.inner.address
    }

    pub fn subjects(&self) -> &Arc<Subjects> {
        &self.inner.subjects
    }

    /// Another config: from now on everything is matched and retried by it.
    pub fn reconfigure(&self, catalog: Catalog, keep: Keep) {
        self.inner.catalog.store(Arc::new(catalog));
        self.inner.keep.store(Arc::new(keep));
        self.owner().reconfigured();
    }

    /// How much of the log is kept.
    pub fn keep(&self) -> Keep {
        **self.inner.keep.load()
    }

    /// Publishes a message of somebody to the NATS of the bus.
    pub async fn publish(
        &self,
        subject: &str,
        headers: &[(String, String)],
        data: Bytes,
    ) -> Result<Option<Stored>, NotPublished> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            // what is no header would be refused by a panic further down
            let name: HeaderName = name.parse().map_err(|_| NotPublished::Refused(format!("`{name}` is no header")))?;
            let value: HeaderValue =
                value.parse().map_err(|_| NotPublished::Refused(format!("the value of `{name}` has line breaks")))?;
            map.append(name, value);
        }
        self.nats().publish(subject, map, data, None).await
    }

    /// What is published to a subject from now on: subject, headers, data.
    pub async fn subscribe(
        &self,
        subject: &str,
    ) -> Result<impl Stream<Item = (String, Vec<(String, String)>, Bytes)> + use<>, NotPublished> {
        let messages = self.nats().client.subscribe(subject.to_owned()).await;
        let messages = messages.map_err(|error| NotPublished::Refused(error.to_string()))?;
        Ok(messages.map(|message| {
            let headers = message.headers.as_ref().map(inbox::pairs).unwrap_or_default();
            (message.subject.to_string(), headers, message.payload)
        }))
    }

    /// The triggers that are paused.
    pub async fn paused(&self) -> Result<BTreeSet<Name>, LogError> {
        self.log().read(|c| Ok::<_, LogError>(mark::paused(c)?)).await
    }

    /// Remembers that a trigger is paused or resumed.
    pub async fn pause(&self, trigger: &Name, paused: bool) -> Result<(), LogError> {
        let marks = mark::of_pause(trigger, paused, ambient::now());
        self.log().write(move |tx| Ok::<_, LogError>(mark::write(tx, &marks)?)).await
    }

    async fn take(&self, event: Event, marks: Vec<Mark>) -> Result<Accepted, AcceptError> {
        let copy = self.inner.tap.then(|| event.clone());
        let accepted = self.owner().accept(event, marks).await?;
        if let Some(copy) = copy.filter(|_| !accepted.duplicate) {
            self.tap(&copy);
        }
        Ok(accepted)
    }

    /// A copy for whoever listens; nobody waits for it, not even for room in a connection that stalls.
    fn tap(&self, event: &Event) {
        let Some(trigger) = &event.trigger else { return };
        if !self.inner.nats.is_connected() {
            return;
        }
        let subject = self.inner.subjects.event(trigger.as_str());
        let sent = self.inner.nats.client.publish_with_headers(subject, wire::encode(event), event.data.clone());
        if let Some(Err(error)) = sent.now_or_never() {
            tracing::debug!(%error, "an event could not be tapped");
        }
    }

    fn note(&self, event: Arc<Event>, call: &Call, outcome: &Outcome) {
        let wanted = match call.log {
            LogMode::Full => true,
            LogMode::Errors => outcome.fault.is_some(),
            LogMode::Off => false,
        };
        if wanted {
            self.log().calls().note(self.record(event, call, outcome));
        }
    }

    fn record(&self, event: Arc<Event>, call: &Call, outcome: &Outcome) -> CallRecord {
        CallRecord {
            event: Prepared::new(event),
            target: call.target(),
            format: call.format,
            node: self.owner().node().clone(),
            outcome: outcome.clone(),
        }
    }
}

impl Sink for Bus {
    async fn accept(&self, event: Event) -> Result<Accepted, AcceptError> {
        self.take(event, Vec::new()).await
    }

    async fn call(&self, event: Event, mut call: Call) -> Result<Reply, CallError> {
        let catalog = self.owner().catalog().clone();
        if catalog.pipelines.contains_key(&call.function) {
            // boxed: a call that needs neither is the usual one, and its task is small
            return Box::pin(self.run(event, call)).await;
        }
        let Some(function) = catalog.functions.get(&call.function) else {
            return Err(CallError::NoNode { function: call.function });
        };
        let (timeout, chain) = (function.timeout, &function.chain);
        let foreign = matches!(event.id, EventId::Foreign(_));
        if foreign || !chain.then.is_empty() {
            // it is wanted whole: for a repeat, or for what follows
            call.outlet = None;
        }
        if foreign {
            return Box::pin(self.once(event, call, timeout + OVERHEAD, chain.clone())).await;
        }
        let wait = call.timeout.unwrap_or(timeout + OVERHEAD);
        let event = Arc::new(event);
        let outcome = self.inner.caller.call(&event, &call, wait).await?;
        let outcome = chain::too_many(&event, chain, &outcome).unwrap_or(outcome);
        let id = event.id.clone();
        if outcome.fault.is_none() && !chain.then.is_empty() {
            // The caller's answer waits for what follows: told yes, it is on disk.
            let record = self.record(event, &call, &outcome);
            Box::pin(self.owner().follow_call(record))
                .await
                .map_err(|error| CallError::Log { reason: error.to_string() })?;
        } else {
            self.note(event, &call, &outcome);
        }
        Ok(Reply { event: id, outcome })
    }
}

impl Ledger for Bus {
    async fn accept_marked(&self, event: Option<Event>, marks: Vec<Mark>) -> Result<Option<Accepted>, AcceptError> {
        if let Some(event) = event {
            return self.take(event, marks).await.map(Some);
        }
        self.log().write(move |tx| Ok::<_, LogError>(mark::write(tx, &marks)?)).await?;
        Ok(None)
    }

    fn foresee(&self, trigger: &Name, at: DateTime<Utc>) {
        self.owner().foresee(trigger, at);
    }

    async fn marks(&self, trigger: &Name) -> Result<BTreeMap<String, String>, AcceptError> {
        let trigger = trigger.clone();
        Ok(self.log().read(move |c| Ok::<_, LogError>(mark::of(c, trigger.as_str())?)).await?)
    }

    async fn has_open(&self, trigger: &Name) -> Result<bool, AcceptError> {
        let trigger = trigger.clone();
        Ok(self.log().read(move |c| Ok::<_, LogError>(mark::has_open(c, trigger.as_str())?)).await?)
    }
}

impl Tasks {
    /// Ends the bus in order: carrying, then the log, then NATS. Call it after triggers and workers have stopped.
    pub async fn stop(mut self) {
        self.relay.cancel();
        self.bus.log().close().await;
        self.bus.nats().end().await;
        self.server.cancel();
        while self.running.join_next().await.is_some() {}
    }
}

/// The server of our own or of somebody else.
async fn reach(settings: &Settings) -> Result<(Option<OwnServer>, Nats, Address), StartError> {
    if let Some(url) = &settings.nats {
        let address = Address::of(url);
        return Ok((None, Nats::connect(&address, settings.namespace.as_str()).await?, address));
    }
    let (own, nats, address) = OwnServer::start(&settings.data, &settings.namespace, settings.nats_port).await?;
    Ok((Some(own), nats, address))
}

/// Looks at a NATS that was not there at the start when it is, as the start would have. Until it will do, it counts as
/// not there.
async fn await_nats(bus: Bus, shutdown: CancellationToken) {
    let nats = bus.nats();
    let look = async || {
        nats.verify(&bus.address().url).await?;
        alone(nats, bus.subjects()).await
    };
    let mut said = String::new();
    while !nats.is_approved() {
        if nats.is_open() {
            match look().await {
                Ok(()) => {
                    tracing::info!("connected to NATS");
                    return nats.approve();
                }
                Err(error) if error.to_string() != said => {
                    said = error.to_string();
                    tracing::error!("{said}; deliveries wait");
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// Two nodes of one namespace would take each other's deliveries; a cluster is more than that.
async fn alone(nats: &Nats, subjects: &Subjects) -> Result<(), StartError> {
    let request = async_nats::Request::new().timeout(Some(Duration::from_millis(500)));
    match nats.client.send_request(subjects.presence(), request).await {
        Ok(reply) => {
            let node = String::from_utf8_lossy(&reply.payload).into_owned();
            Err(StartError::NamespaceTaken { namespace: subjects.namespace().clone(), node })
        }
        Err(_) => Ok(()),
    }
}

async fn answer_presence(bus: Bus, shutdown: CancellationToken) {
    tokio::select! {
        // not before it is known that nobody else does
        () = bus.nats().connected() => {}
        () = shutdown.cancelled() => return,
    }
    let Ok(mut questions) = bus.nats().client.subscribe(bus.subjects().presence()).await else { return };
    loop {
        let question = tokio::select! {
            question = questions.next() => question,
            () = shutdown.cancelled() => return,
        };
        let Some(question) = question else { return };
        if let Some(reply) = question.reply {
            let _ = bus.nats().client.publish(reply, bus.owner().node().to_string().into()).await;
        }
    }
}
