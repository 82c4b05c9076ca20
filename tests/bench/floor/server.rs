//! A nats-server alone, with JetStream as fnbus starts its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    Result,
    bench::{Bench, free_address, nats_server},
    child::Running,
};

pub(crate) struct Server {
    running: Running,
    pub(crate) url: String,
    /// From its start until JetStream answered.
    pub(crate) took: Duration,
}

impl Server {
    pub(crate) async fn start(bench: &Bench) -> Result<Self> {
        let folder = bench.folder("nats")?;
        let address = free_address()?;
        let config = configuration(folder.path(), address)?;
        let log = fs::File::create(folder.path().join("server.log"))?;
        let mut command = Command::new(nats_server());
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let url = format!("nats://{address}");
        let begun = Instant::now();
        let running =
            Running::start(&mut command).map_err(|error| format!("nats-server cannot be started: {error}"))?;
        while begun.elapsed() < Duration::from_secs(20) {
            if let Ok(client) = async_nats::connect(&url).await
                && async_nats::jetstream::new(client).query_account().await.is_ok()
            {
                return Ok(Self { running, url, took: begun.elapsed() });
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err(format!("nats-server did not start; see {}", folder.path().display()).into())
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }
}

fn configuration(folder: &Path, address: SocketAddr) -> Result<PathBuf> {
    let store = folder.join("store");
    let path = folder.join("server.conf");
    let text = format!(
        "listen: \"{address}\"\nmax_payload: 8388608\njetstream {{ store_dir: \"{}\", sync_interval: 10s }}\n",
        store.display()
    );
    fs::write(&path, text)?;
    Ok(path)
}
