//! A nats-server of our own: started beside us on loopback, restarted when it ends, ended with us.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Address, ConnectError, Login, Nats};
use crate::{child, name::Name};

/// Functions take 6 MiB; with headers and base64 nothing of ours is over this.
const MAX_PAYLOAD: usize = 8 << 20;
const READY: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(2);

/// Why there is no server of our own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    #[error("no nats-server was found on PATH")]
    Missing,
    #[error("nats-server {path} cannot be started: {error}")]
    Start { path: PathBuf, error: io::Error },
    #[error("the folder {path} for nats-server cannot be written: {error}")]
    Folder { path: PathBuf, error: io::Error },
    #[error("port {port} for nats-server is taken by another program")]
    PortTaken { port: u16 },
    #[error("nats-server ended at once: {reason}")]
    Ended { reason: String },
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// The running server. Whoever holds it calls [`OwnServer::supervise`].
pub struct OwnServer {
    command: ServerCommand,
    child: Child,
}

struct ServerCommand {
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
}

impl OwnServer {
    /// Starts a server that keeps its streams under `data`, and connects to it. One that takes long, as with much to
    /// look through, is not waited for: then the connection is not approved yet.
    pub async fn start(data: &Path, namespace: &Name, port: Option<u16>) -> Result<(Self, Nats, Address), ServerError> {
        let binary = find().ok_or(ServerError::Missing)?;
        let folder = data.join("nats");
        let unwritable = |error| ServerError::Folder { path: folder.clone(), error };
        fs::create_dir_all(&folder).map_err(unwritable)?;
        let port = match port {
            Some(port) if is_free(port) => port,
            Some(port) => return Err(ServerError::PortTaken { port }),
            None => free_port().map_err(unwritable)?,
        };
        let password = random_password().map_err(|error| unwritable(error.into()))?;
        let config = folder.join("server.conf");
        write_private(&config, &configuration(&folder, namespace, port, &password)).map_err(unwritable)?;
        let command = ServerCommand { binary, config, log: folder.join("server.log") };
        let mut child = command.spawn().await?;
        let address = Address {
            url: format!("nats://127.0.0.1:{port}"),
            login: Some(Login::Password { user: "fnbus".to_owned(), password }),
        };
        match command.ready(&mut child, &address, namespace).await {
            Ok(Some(nats)) => Ok((Self { command, child }, nats, address)),
            Ok(None) => {
                tracing::warn!(
                    log = %command.log.display(),
                    "nats-server is not ready after {} s: accepting begins without it, deliveries wait", READY.as_secs()
                );
                let nats = Nats::connect_later(&address, namespace.as_str()).await?;
                Ok((Self { command, child }, nats, address))
            }
            // somebody took it between the look and the server's own
            Err(ServerError::Ended { .. }) if !is_free(port) => Err(ServerError::PortTaken { port }),
            Err(error) => Err(error),
        }
    }

    /// Restarts the server whenever it ends, until `shutdown`; then ends it.
    pub async fn supervise(mut self, shutdown: CancellationToken) {
        let mut backoff = Duration::from_millis(100);
        loop {
            let started = Instant::now();
            tokio::select! {
                status = self.child.wait() => {
                    let status = status.map(|s| s.to_string()).unwrap_or_default();
                    tracing::warn!(%status, log = %self.command.log.display(), "nats-server ended; it is started again");
                }
                () = shutdown.cancelled() => return self.stop().await,
            }
            if started.elapsed() > Duration::from_mins(1) {
                backoff = Duration::from_millis(100);
            }
            loop {
                tokio::select! {
                    () = sleep(backoff) => {}
                    () = shutdown.cancelled() => return,
                }
                backoff = (backoff * 2).min(Duration::from_secs(5));
                match self.command.spawn().await {
                    Ok(child) => {
                        self.child = child;
                        break;
                    }
                    Err(error) => tracing::error!(%error, "nats-server could not be started again"),
                }
            }
        }
    }

    async fn stop(&mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if timeout(STOP, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

impl ServerCommand {
    async fn spawn(&self) -> Result<Child, ServerError> {
        let failed = |error| ServerError::Start { path: self.binary.clone(), error };
        let log = fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.log)
            .map_err(failed)?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        child::spawn(command).await.map_err(failed)
    }

    async fn ready(&self, child: &mut Child, address: &Address, namespace: &Name) -> Result<Option<Nats>, ServerError> {
        let deadline = Instant::now() + READY;
        loop {
            match Nats::connect(address, namespace.as_str()).await {
                Ok(nats) => return Ok(Some(nats)),
                Err(error @ ConnectError::TooOld { .. }) => return Err(error.into()),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return Ok(None),
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(ServerError::Ended { reason: self.last_words().unwrap_or_else(|| status.to_string()) });
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The last line the server logged.
    fn last_words(&self) -> Option<String> {
        let text = fs::read_to_string(&self.log).ok()?;
        text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
    }
}

/// The server binary: `NATS_SERVER`, else `nats-server` on `PATH`.
pub fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("nats-server")).find(|candidate| candidate.is_file())
}

fn configuration(folder: &Path, namespace: &Name, port: u16, password: &str) -> String {
    let store = serde_json::Value::from(folder.join("store").to_string_lossy());
    // sync_interval is said, not left to a default of two minutes; the log needs none of it to be durable.
    format!(
        "server_name: \"fnbus-{namespace}\"\n\
         listen: \"127.0.0.1:{port}\"\n\
         max_payload: {MAX_PAYLOAD}\n\
         jetstream {{ store_dir: {store}, max_memory_store: 64MB, max_file_store: 1GB, sync_interval: 10s }}\n\
         authorization {{ users: [ {{ user: fnbus, password: \"{password}\" }} ] }}\n"
    )
}

/// A text that nobody can guess.
pub fn random_password() -> rustix::io::Result<String> {
    let mut bytes = [0_u8; 24];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Writes a file that only this user may read, over the one that is there.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use io::Write;
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|address| address.port())
}
