//! P8: calls that find no instance. The whole request is measured, over HTTP and NATS, and nothing is subtracted: a
//! function that is called again only when its instance has expired and its process is gone.
//!
//! Native: nothing is there. Node.js: of two processes that wait for any function one is taken and loads the code.
//! Python from a zygote and wasm are not there yet, so they have no figures.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{Spec, small};
use crate::{
    Result,
    bench::Bench,
    child::Running,
    code::Code,
    cost::{Cost, Meter},
    histogram::Histogram,
    load::{Connection, Load},
    node::{Node, Project},
    row::{Figure, Noise, Row, Target},
};

pub(super) const SPEC: Spec = Spec {
    id: "P8",
    work: "cold start, request to response: native; Node.js with a prestarted process",
    measure: |bench| Box::pin(measure(bench)),
};

/// Says that it is there, and waits to be told the file to load, and the event.
const SPARE: &str = "\
const { readSync, writeSync } = require('node:fs')
const line = Buffer.alloc(65536)
writeSync(1, 'ready\\n')
const [file, event] = line.toString('utf8', 0, readSync(0, line)).split('\\n')
require(file).handler(JSON.parse(event)).then((answer) => writeSync(1, JSON.stringify(answer) + '\\n'))
";

/// Until a process of the floor that is ready waits.
const SETTLED: Duration = Duration::from_millis(20);

/// Cold calls of one kind, and their floor.
#[derive(Default)]
struct Colds {
    value: Histogram,
    floor: Histogram,
    /// Of the node's whole tree, the processes that have ended included, and what it did between the calls.
    cpu_ms: f64,
}

async fn measure(bench: &Bench) -> Result<Row> {
    let (natives, nodes) = (bench.pick(200, 20), bench.pick(100, 10));
    let bar = bench.progress(SPEC.id, natives + nodes);
    let mut noise = Noise::default();

    bar.set_message("native");
    let program = bench.native()?;
    let native = Cold::start(bench, Code::Native).await?;
    let native = native.measure(natives, &bar, &mut noise, async || spawned(&program)).await?;

    bar.set_message("Node.js");
    let folder = bench.folder("spare")?;
    small::NODE.write(bench, folder.path())?;
    let node = Cold::start(bench, small::NODE).await?;
    let node = node.measure(nodes, &bar, &mut noise, async || loaded(folder.path()).await).await?;
    bar.finish();

    let p50 = |what, colds: &Colds, target| Figure {
        what,
        value: colds.value.quantile(0.5),
        unit: "ms",
        floor: Some(colds.floor.quantile(0.5)),
        ratio: None,
        target: Target::AtMost(target),
    };
    let p99 = |what, colds: &Colds| Figure {
        what,
        value: colds.value.quantile(0.99),
        unit: "ms",
        floor: None,
        ratio: Some(colds.value.quantile(0.99) / colds.value.quantile(0.5)),
        target: Target::AtMost(4.0),
    };
    let times = |colds: &Colds| colds.value.quantile(0.5) / colds.floor.quantile(0.5);
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![
            p50("native p50", &native, 4.0),
            p99("native p99, to its p50", &native),
            p50("Node.js p50", &node, 3.0),
            p99("Node.js p99, to its p50", &node),
        ],
        cpu_ms_per_unit: Some(native.cpu_ms / natives as f64),
        floor_cpu_ms_per_unit: None,
        noise,
        note: format!(
            "{natives} and {nodes} requests, each cold by the log, nothing subtracted: {:.1}x and {:.1}x the floors, a \
             spawn of a static binary that answers, and a line to a waiting Node.js that loads the handler and answers; \
             p99 of the floors {:.1} and {:.1} ms; CPU is of native; Python from a zygote and wasm: not there yet, no \
             figures",
            times(&native),
            times(&node),
            native.floor.quantile(0.99),
            node.floor.quantile(0.99)
        ),
    })
}

/// A function whose instances expire at once.
struct Cold {
    node: Node,
    load: Load,
    /// Processes that stay: those that know no function yet.
    spares: usize,
    /// As the log writes it: 1 where the runtime was up, 2 where nothing was.
    kind: i64,
}

impl Cold {
    async fn start(bench: &Bench, code: Code<'_>) -> Result<Self> {
        let config = format!(
            "[functions.small]\nruntime = \"{}\"\nconcurrency = 1\nkeep_alive = \"1ms\"\n\n\
             [triggers.small]\nhttp = \"POST /call\"\nlog = \"full\"\nto = \"small\"\n",
            code.runtime()
        );
        let (node, _) = Project::new(bench, &[("small", code)], &config)?.start().await?;
        let load = small::load(&node, code, 1);
        let (spares, kind) = if matches!(code, Code::Node(_)) { (small::SPARES, 1) } else { (0, 2) };
        node.deployed(1, Instant::now()).await?;
        Ok(Self { node, load, spares, kind })
    }

    /// Calls and floors in turns.
    async fn measure(
        self,
        calls: usize,
        bar: &indicatif::ProgressBar,
        noise: &mut Noise,
        floor: impl AsyncFn() -> Result<Duration>,
    ) -> Result<Colds> {
        let mut colds = Colds::default();
        let mut connection = Connection::open(self.load.address).await?;
        let whole = Meter::start(&[self.node.id()])?;
        for _ in 0..calls {
            colds.floor.record(floor().await?);
            self.node.rests(self.spares).await?;
            let begun = Instant::now();
            let (status, body) = connection.exchange(&self.load.request).await?;
            colds.value.record(begun.elapsed());
            self.load.expected.check(status, body)?;
            bar.inc(1);
        }
        let cost: Cost = whole.stop()?;
        colds.cpu_ms = cost.cpu_ms;
        noise.worse(&cost);
        self.check(calls).await?;
        Ok(colds)
    }

    /// Every call was a cold one.
    async fn check(&self, calls: usize) -> Result<()> {
        let log = self.node.log()?;
        let mut counted = (0, 0);
        // the last is written a moment later
        for _ in 0..40 {
            counted = log.query_row(
                "SELECT count(*), count(*) FILTER (WHERE cold = ?1) FROM attempt WHERE outcome = 'ok'",
                [self.kind],
                |row| Ok((row.get::<_, usize>(0)?, row.get::<_, usize>(1)?)),
            )?;
            if counted == (calls, calls) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("of {calls} calls {} are in the log and {} were cold", counted.0, counted.1).into())
    }
}

/// From the start of a program to its answer.
fn spawned(program: &Path) -> Result<Duration> {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).env_clear();
    let begun = Instant::now();
    let mut running = Running::start(&mut command)?;
    let (request, mut answer) = (small::request(), Vec::new());
    running.child().stdin.take().ok_or("a process without stdin")?.write_all(&request)?;
    running.child().stdout.take().ok_or("a process without stdout")?.read_to_end(&mut answer)?;
    let took = begun.elapsed();
    if answer == request { Ok(took) } else { Err("the native program did not answer".into()) }
}

/// From a line to a process of Node.js that waits, until what it loaded has answered.
async fn loaded(folder: &Path) -> Result<Duration> {
    let mut command = Command::new("node");
    command.args(["-e", SPARE]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running::start(&mut command)?;
    let mut stdin = running.child().stdin.take().ok_or("a process without stdin")?;
    let mut stdout = BufReader::new(running.child().stdout.take().ok_or("a process without stdout")?);
    let mut answer = String::new();
    stdout.read_line(&mut answer)?;
    // it says so a moment before it waits
    sleep(SETTLED).await;
    answer.clear();
    let file = fs::canonicalize(folder.join("index.js"))?;
    let event = serde_json::json!({ "body": String::from_utf8_lossy(&small::request()) });
    let line = format!("{}\n{event}\n", file.display());
    let begun = Instant::now();
    stdin.write_all(line.as_bytes())?;
    stdout.read_line(&mut answer)?;
    let took = begun.elapsed();
    if answer.contains("\"total\":9") { Ok(took) } else { Err(format!("Node.js answered {answer:?}").into()) }
}
