//! The least that the same work can cost on this machine: the same libraries, in as many processes, without a bus.

// HTTP in front of NATS.
mod http;
// A work queue, pulled and acknowledged.
mod pull;
// Echoes over core NATS.
mod responder;
// A nats-server alone.
mod server;
// Rows and messages in turns.
mod steps;

use std::{
    env,
    io::{BufRead, BufReader, Lines, Write},
    net::SocketAddr,
    process::{ChildStdout, Command, ExitCode, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

pub(crate) use server::Server;

use crate::{Result, args::Floor, bench::Bench, child::Running};

/// A part of a floor, as a process.
pub(crate) fn run(role: Floor) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match role {
            Floor::Http { nats } => http::serve(&nats).await,
            Floor::Responder { nats } => responder::answer(&nats).await,
            Floor::Pull { nats, messages } => pull::pull(&nats, messages).await,
            Floor::Steps { nats, folder, runs, steps } => steps::steps(&nats, &folder, runs, steps).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says a line to the bench.
fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Waits for the server, which may have been started just now.
async fn connect(nats: &str) -> Result<async_nats::Client> {
    let begun = Instant::now();
    loop {
        match async_nats::connect(nats).await {
            Ok(client) => return Ok(client),
            Err(error) if begun.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(5)).await,
        }
    }
}

/// A part that runs, and what it says.
pub(crate) struct Part {
    running: Running,
    says: Lines<BufReader<ChildStdout>>,
}

impl Part {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("floor").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(&mut command)?;
        let stdout = running.child().stdout.take().ok_or("a part without stdout")?;
        Ok(Self { running, says: BufReader::new(stdout).lines() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// What it says next; blocks.
    pub(crate) fn hear(&mut self) -> Result<String> {
        Ok(self.says.next().ok_or("a part of the floor ended")??)
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) -> Result<()> {
        let stdin = self.running.child().stdin.as_mut().ok_or("a part without stdin")?;
        Ok(stdin.write_all(b"go\n")?)
    }
}

/// HTTP, NATS and a responder: the way of a request without a bus.
pub(crate) struct Front {
    http: Part,
    responder: Part,
    server: Server,
    pub(crate) address: SocketAddr,
}

impl Front {
    pub(crate) async fn start(bench: &Bench) -> Result<Self> {
        let server = Server::start(bench).await?;
        let mut responder = Part::start(&["responder", &server.url])?;
        responder.hear()?;
        let mut http = Part::start(&["http", &server.url])?;
        let address = http.hear()?.parse()?;
        Ok(Self { http, responder, server, address })
    }

    pub(crate) fn roots(&self) -> [u32; 3] {
        [self.http.id(), self.responder.id(), self.server.id()]
    }
}
