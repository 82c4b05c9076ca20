//! P9: the first start of a Python function: nothing is there, not even the process that others are forked from.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Spec, cold::Cold, small};
use crate::{
    Result,
    bench::Bench,
    child::Running,
    cost,
    node::Node,
    row::{Figure, Noise, Row, Target},
};

pub(super) const SPEC: Spec = Spec {
    id: "P9",
    work: "first start of a Python function, request to response",
    measure: |bench| Box::pin(measure(bench)),
};

const BARE: &str = "import json, sys; print(json.dumps(json.loads(sys.argv[1])))";

async fn measure(bench: &Bench) -> Result<Row> {
    let calls = bench.pick(60, 10);
    let bar = bench.progress(SPEC.id, calls);
    let mut noise = Noise::default();
    let python = interpreter()?;
    // its zygote is killed before each call
    let mut cold = Cold::start(bench, small::PYTHON).await?;
    cold.kind = 2;
    let colds = cold.measure(calls, &bar, &mut noise, async || spawned(&python), alone).await?;
    bar.finish();
    let (value, floor) = (colds.value.quantile(0.5), colds.floor.quantile(0.5));
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![Figure {
            what: "p50",
            value,
            unit: "ms",
            floor: Some(floor),
            ratio: Some(value / floor),
            target: Target::AtMost(2.0),
        }],
        cpu_ms_per_unit: Some(colds.cpu_ms / calls as f64),
        floor_cpu_ms_per_unit: None,
        noise,
        note: format!(
            "{calls} requests, each cold by the log, nothing subtracted; floor: python3 -S -E -I with json, from its start to \
             its answer; p99 {:.1} and {:.1} ms",
            colds.value.quantile(0.99),
            colds.floor.quantile(0.99)
        ),
    })
}

/// Ends all that stays between two calls.
async fn alone(node: &Node) -> Result<()> {
    let there = node.below()?;
    for process in there.iter().filter_map(|id| Pid::from_raw(*id as i32)) {
        kill_process(process, Signal::KILL)?;
    }
    // nobody reaps it before it is missed
    while !there.iter().all(|id| cost::has_ended(*id)) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// What a version manager's `python3` stands for.
fn interpreter() -> Result<PathBuf> {
    let code = "import os, sys; print(os.path.realpath(sys.executable))";
    let said = Command::new("python3").args(["-c", code]).stdin(Stdio::null()).output()?;
    Ok(String::from_utf8(said.stdout)?.trim().into())
}

fn spawned(python: &PathBuf) -> Result<Duration> {
    let mut command = Command::new(python);
    let request = String::from_utf8(small::request().to_vec())?;
    command.args(["-S", "-E", "-I", "-c", BARE, &request]).stdin(Stdio::null()).stdout(Stdio::piped());
    let begun = Instant::now();
    let mut running = Running::start(&mut command)?;
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut running.child().stdout.take().ok_or("a process without stdout")?, &mut answer)?;
    let took = begun.elapsed();
    if answer.contains("\"quantity\": 3") { Ok(took) } else { Err(format!("Python answered {answer:?}").into()) }
}
