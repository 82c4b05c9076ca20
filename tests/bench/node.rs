//! A node that runs: `fnbus up` with its own nats-server, in a folder of its own.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rusqlite::{Connection as Database, OpenFlags};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    Result,
    bench::{Bench, fnbus, free_address, nats_server},
    child::Running,
    code::Code,
    cost,
    load::{Body, Connection, Expected, Load, Pace, Until, post},
};

/// A start may take this long before the row fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// An instance that uses no CPU for so long has nothing to do.
const QUIET: Duration = Duration::from_millis(100);
/// A thousand functions may take this long to be deployed.
const DEPLOYED: Duration = Duration::from_mins(2);

/// A folder with a config and functions.
pub(crate) struct Project {
    folder: TempDir,
    address: SocketAddr,
}

/// It, running. It is ended when dropped.
pub(crate) struct Node {
    project: Project,
    running: Running,
}

impl Project {
    /// Functions are (name, code); `config` is all but `[http]`.
    pub(crate) fn new(bench: &Bench, functions: &[(&str, Code<'_>)], config: &str) -> Result<Self> {
        let project = Self { folder: bench.folder("node")?, address: free_address()? };
        for (name, code) in functions {
            code.write(bench, &project.path().join(name))?;
        }
        project.configure(config)?;
        Ok(project)
    }

    /// Writes another config; a node that runs sees it.
    pub(crate) fn configure(&self, config: &str) -> Result<()> {
        Ok(fs::write(
            self.path().join("fnbus.toml"),
            format!("[api]\nlisten = \"127.0.0.1:0\"\n\n[http]\nlisten = \"{}\"\n\n{config}", self.address),
        )?)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The event log.
    pub(crate) fn log(&self) -> PathBuf {
        self.path().join(".fnbus/log.db")
    }

    /// Starts a node and waits until it answers over HTTP. Gives also how long that took.
    pub(crate) async fn start(self) -> Result<(Node, Duration)> {
        let said = File::options().create(true).append(true).open(self.path().join("up.log"))?;
        let mut command = Command::new(fnbus()?);
        command.arg("up").current_dir(self.path()).env("NATS_SERVER", nats_server()).env("NO_COLOR", "1");
        command.env_remove("FNBUS_CONFIG").stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let begun = Instant::now();
        let running = Running::start(&mut command)?;
        let mut node = Node { project: self, running };
        node.answers(begun).await?;
        Ok((node, begun.elapsed()))
    }
}

impl Node {
    /// A request that waits in the backlog is answered as soon as anything is: no polling makes it later than it is.
    async fn answers(&mut self, begun: Instant) -> Result<()> {
        let request = format!("GET /-/nothing HTTP/1.1\r\nhost: {}\r\n\r\n", self.address());
        while begun.elapsed() < PATIENCE {
            if self.running.has_ended() {
                break;
            }
            if let Ok(mut connection) = Connection::open(self.address()).await {
                let left = PATIENCE.saturating_sub(begun.elapsed());
                let answered = tokio::time::timeout(left, connection.exchange(request.as_bytes())).await;
                if let Ok(Ok((404, _))) = answered {
                    return Ok(());
                }
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        // it ends if it has not, and then it has said why
        self.running.stop();
        Err(format!("fnbus did not start; it said:\n{}", self.said()).into())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.project.address
    }

    /// The process above everything else of it.
    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// Fnbus itself without what it starts: the node and the process above it.
    fn own(&self) -> Result<Vec<u32>> {
        Ok(cost::tree(self.id())?.into_iter().filter(|id| cost::name(*id).starts_with("fnbus")).collect())
    }

    /// CPU time of fnbus itself.
    pub(crate) fn own_ms(&self) -> Result<f64> {
        self.own()?.into_iter().map(cost::own_ms).sum()
    }

    /// Memory of fnbus itself in MiB, as [`cost::memory`] has it.
    pub(crate) fn memory(&self) -> Result<(f64, f64)> {
        let both = self.own()?.into_iter().map(cost::memory).collect::<Result<Vec<_>>>()?;
        Ok(both.into_iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1)))
    }

    /// The instances of functions: what is below it and neither fnbus nor NATS.
    pub(crate) fn below(&self) -> Result<Vec<u32>> {
        let is_ours = |id: &u32| ["fnbus", "nats-server"].iter().any(|name| cost::name(*id).starts_with(name));
        Ok(cost::tree(self.id())?.into_iter().filter(|id| !is_ours(id)).collect())
    }

    pub(crate) fn project(&self) -> &Project {
        &self.project
    }

    /// What it has printed.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.project.path().join("up.log")).unwrap_or_default()
    }

    /// Ends it in order and gives back its folder.
    pub(crate) fn stop(mut self) -> Project {
        self.running.stop();
        self.project
    }

    /// How many instances of functions there are.
    pub(crate) fn instances(&self) -> Result<usize> {
        Ok(self.below()?.len())
    }

    /// Waits until a load is answered as it should be (a function's first version may still be loading) and so many
    /// instances are there.
    pub(crate) async fn warm(&self, load: &Load, instances: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let tried = Load { connections: 1, ..load.clone() }.fire(Until::Sent(1), Pace::Closed).await;
            let there = self.instances()?;
            match tried {
                Ok(_) if there >= instances => return Ok(()),
                Ok(_) if begun.elapsed() > PATIENCE => {
                    return Err(format!("{there} instances are warm instead of {instances}").into());
                }
                Err(error) if begun.elapsed() > PATIENCE => return Err(error),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Waits until there are so many instances and none of them does anything: others have ended, all have started.
    pub(crate) async fn rests(&self, instances: usize) -> Result<()> {
        let begun = Instant::now();
        let (mut used, mut since) = (None, Instant::now());
        while begun.elapsed() < PATIENCE {
            let below = self.below()?;
            let ticks: f64 = below.iter().filter_map(|id| cost::own_ms(*id).ok()).sum();
            let now = Some((below.len(), ticks));
            if now != used || below.len() != instances || !below.iter().all(|id| cost::sleeps(*id)) {
                (used, since) = (now, Instant::now());
            } else if instances == 0 || since.elapsed() > QUIET {
                return Ok(());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err(format!(
            "there are not {instances} instances at rest but {}; fnbus said:\n{}",
            self.instances()?,
            self.said()
        )
        .into())
    }

    /// What `fnbus functions --json` says.
    fn functions(&self) -> Result<String> {
        let mut command = Command::new(fnbus()?);
        command.args(["functions", "--json"]).current_dir(self.project.path()).env_remove("FNBUS_CONFIG");
        Ok(String::from_utf8(command.stdin(Stdio::null()).output()?.stdout)?)
    }

    /// How many instances are kept for the next call.
    pub(crate) fn warm_instances(&self) -> Result<u64> {
        let functions = self.functions()?;
        let warm = |line| -> Result<u64> {
            let function: serde_json::Value = serde_json::from_str(line)?;
            Ok(function["warm"].as_u64().unwrap_or_default())
        };
        functions.lines().map(warm).sum()
    }

    /// Waits until every function has a version that works, and gives how long after `begun` that was.
    pub(crate) async fn deployed(&self, functions: usize, begun: Instant) -> Result<Duration> {
        let asked = Instant::now();
        loop {
            let said = self.functions()?;
            let ready = said.lines().filter(|line| line.contains(r#""state":"ready""#)).count();
            if ready == functions {
                return Ok(begun.elapsed());
            }
            if asked.elapsed() > DEPLOYED {
                return Err(format!("{ready} of {functions} functions are ready; fnbus said:\n{}", self.said()).into());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Its log, to be read while it is written.
    pub(crate) fn log(&self) -> Result<Database> {
        Ok(Database::open_with_flags(self.project.log(), OpenFlags::SQLITE_OPEN_READ_ONLY)?)
    }

    /// A load of POSTs of `body` to `path`.
    pub(crate) fn load(&self, connections: usize, path: &str, body: &[u8], expected: Expected) -> Load {
        Load { address: self.address(), connections, request: post(self.address(), path, body), expected }
    }

    /// Sends so many events to an asynchronous route, as fast as they are accepted.
    pub(crate) async fn accept(&self, count: usize, path: &str, body: &[u8]) -> Result<f64> {
        let load = self.load(32, path, body, accepted());
        Ok(load.fire(Until::Sent(count), Pace::Closed).await?.per_second())
    }
}

/// What an accepted event is answered with.
pub(crate) fn accepted() -> Expected {
    Expected { status: 202, body: Body::Begins("{\"id\":\"") }
}
