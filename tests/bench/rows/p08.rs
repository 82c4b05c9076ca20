//! P8: calls that find no instance.
//!
//! Native: nothing is there. Python: the process that has loaded the code is there, and forks. Node.js: of two processes
//! that wait for any function one is taken and loads the code. Wasm: the code is compiled, and each call has an instance of its
//! own, in a bench that has it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    Spec,
    cold::{Cold, Colds},
    small,
};
use crate::{
    Result,
    bench::Bench,
    child::Running,
    code::{self, Code},
    floor::Front,
    load::Connection,
    row::{Figure, Noise, Row, Target},
};

pub(super) const SPEC: Spec = Spec {
    id: "P8",
    work: "cold start, request to response: Python from its zygote; native; Node.js with a prestarted process; wasm",
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

/// Forks for each line, and the fork answers it.
const BARE: &str = "\
import json, os, sys
def answer(line):
    order = json.loads(line)
    return json.dumps({'item': order['item'], 'total': order['quantity'] * 3, 'note': order['note']})
for line in sys.stdin.buffer:
    child = os.fork()
    if child == 0:
        os.write(1, answer(line).encode() + b'\\n')
        os._exit(0)
    os.waitpid(child, 0)
";

/// Until a process of the floor that is ready waits.
const SETTLED: Duration = Duration::from_millis(20);

async fn measure(bench: &Bench) -> Result<Row> {
    let (natives, nodes) = (bench.pick(200, 20), bench.pick(100, 10));
    let wasms = if code::wasm().is_some() { natives } else { 0 };
    let bar = bench.progress(SPEC.id, 2 * natives + nodes + wasms);
    let mut noise = Noise::default();

    bar.set_message("Python");
    let mut fork = Fork::start()?;
    let python = Cold::start(bench, small::PYTHON).await?;
    let python = python.measure(natives, &bar, &mut noise, async || fork.answer(), async |_| Ok(())).await?;

    bar.set_message("native");
    let program = bench.native()?;
    let native = Cold::start(bench, Code::Native).await?;
    let native = native.measure(natives, &bar, &mut noise, async || spawned(&program), async |_| Ok(())).await?;

    bar.set_message("Node.js");
    let folder = bench.folder("spare")?;
    small::NODE.write(bench, folder.path())?;
    let node = Cold::start(bench, small::NODE).await?;
    let node = node.measure(nodes, &bar, &mut noise, async || loaded(folder.path()).await, async |_| Ok(())).await?;

    let mut wasm = None;
    if wasms > 0 {
        bar.set_message("wasm");
        // the least is the way there and back
        let front = Front::start(bench).await?;
        let echo = small::floor(&front, 1);
        let mut way = Connection::open(echo.address).await?;
        let cold = Cold::start(bench, Code::Wasm).await?;
        let there = async || {
            let begun = Instant::now();
            way.exchange(&echo.request).await?;
            Ok(begun.elapsed())
        };
        wasm = Some(cold.measure(wasms, &bar, &mut noise, there, async |_| Ok(())).await?);
    }
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
    let mut figures = vec![
        p50("Python p50", &python, 5.0),
        p99("Python p99, to its p50", &python),
        p50("native p50", &native, 4.0),
        p99("native p99, to its p50", &native),
        p50("Node.js p50", &node, 3.0),
        p99("Node.js p99, to its p50", &node),
    ];
    let mut wasm_note = "no wasm in this bench (WASM=1)".to_owned();
    if let Some(wasm) = &wasm {
        figures.extend([p50("wasm p50", wasm, 0.5), p99("wasm p99, to its p50", wasm)]);
        wasm_note = format!("wasm {:.1}x the same request through axum -> core NATS -> responder", times(wasm));
    }
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures,
        cpu_ms_per_unit: Some(native.cpu_ms / natives as f64),
        floor_cpu_ms_per_unit: None,
        noise,
        note: format!(
            "{natives}, {natives} and {nodes} requests, each cold by the log, nothing subtracted: {:.1}x, {:.1}x and \
             {:.1}x the floors, a fork of a bare Python that answers, a spawn of a static binary that answers, and a line \
             to a waiting Node.js that loads the handler and answers; p99 of the floors {:.1}, {:.1} and {:.1} ms; CPU is \
             of native; {wasm_note}",
            times(&python),
            times(&native),
            times(&node),
            python.floor.quantile(0.99),
            native.floor.quantile(0.99),
            node.floor.quantile(0.99)
        ),
    })
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

/// A bare Python that forks.
struct Fork {
    running: Running,
    answers: BufReader<ChildStdout>,
}

impl Fork {
    fn start() -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-S", "-E", "-I", "-c", BARE]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut running = Running::start(&mut command)?;
        let answers = BufReader::new(running.child().stdout.take().ok_or("a process without stdout")?);
        let mut fork = Self { running, answers };
        fork.answer()?;
        Ok(fork)
    }

    /// From a line to its answer.
    fn answer(&mut self) -> Result<Duration> {
        let (mut line, mut answer) = (small::request().to_vec(), String::new());
        line.push(b'\n');
        let begun = Instant::now();
        self.running.child().stdin.as_mut().ok_or("a process without stdin")?.write_all(&line)?;
        self.answers.read_line(&mut answer)?;
        let took = begun.elapsed();
        if answer.contains("\"total\": 9") { Ok(took) } else { Err(format!("Python answered {answer:?}").into()) }
    }
}
