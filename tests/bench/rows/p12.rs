//! P12: a pipeline of four Python functions, none of which has an instance.
//!
//! What is learnt of one stage makes the next ones ready: the floor is what is left when only the first is waited for, that
//! is the same pipeline warm, and what one cold start adds to a pipeline of one.

use std::time::{Duration, Instant};

use super::{Spec, small};
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::Meter,
    histogram::Histogram,
    load::{Body, Connection, Expected, Load},
    node::{Node, Project},
    row::{Figure, Noise, Row, Target},
};

pub(super) const SPEC: Spec = Spec {
    id: "P12",
    work: "a cold pipeline of 4 Python functions of 20 ms, from request to answer",
    measure: |bench| Box::pin(measure(bench)),
};

const STEPS: [&str; 4] = ["first", "second", "third", "fourth"];

const CODE: Code<'_> = Code::Python(
    "\
import time

def handler(event, context):
    time.sleep(0.02)
    return None
",
);

async fn measure(bench: &Bench) -> Result<Row> {
    let runs = bench.pick(40, 5);
    let bar = bench.progress(SPEC.id, runs);
    let (cold, warm) = (Line::start(bench, "keep_alive = \"1ms\"\n").await?, Line::start(bench, "warm = 1\n").await?);
    let mut times = Times::default();
    let meter = Meter::start(&[cold.node.id()])?;
    // of each step what stays, and its instance
    let (stay, all) = (small::stays(CODE) * STEPS.len(), (small::stays(CODE) + 1) * STEPS.len());
    for _ in 0..runs {
        times.cold.record(cold.run("/line", stay).await?);
        times.cold_step.record(cold.run("/one", stay).await?);
        times.warm.record(warm.run("/line", all).await?);
        times.warm_step.record(warm.run("/one", all).await?);
        bar.inc(1);
    }
    let cost = meter.stop()?;
    bar.finish();
    cold.check(runs)?;
    let mut noise = Noise::default();
    noise.worse(&cost);
    let value = times.cold.quantile(0.5);
    let floor = times.warm.quantile(0.5) + times.cold_step.quantile(0.5) - times.warm_step.quantile(0.5);
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![Figure {
            what: "p50",
            value,
            unit: "ms",
            floor: Some(floor),
            ratio: Some(value / floor),
            target: Target::AtMost(1.5),
        }],
        cpu_ms_per_unit: None,
        floor_cpu_ms_per_unit: None,
        noise,
        note: format!(
            "{runs} runs; floor: the same pipeline warm ({:.1} ms), and what one cold start adds to a pipeline of one ({:.1} to \
             {:.1} ms); p99 {:.1} ms",
            times.warm.quantile(0.5),
            times.warm_step.quantile(0.5),
            times.cold_step.quantile(0.5),
            times.cold.quantile(0.99)
        ),
    })
}

#[derive(Default)]
struct Times {
    cold: Histogram,
    cold_step: Histogram,
    warm: Histogram,
    warm_step: Histogram,
}

/// A node with the pipeline, and one of its first step.
struct Line {
    node: Node,
}

impl Line {
    async fn start(bench: &Bench, keys: &str) -> Result<Self> {
        let table = |name| format!("[functions.{name}]\nruntime = \"{}\"\nconcurrency = 1\n{keys}\n", CODE.runtime());
        let trigger =
            |name| format!("[triggers.{name}]\nhttp = \"POST /{name}\"\npayload = \"body\"\nto = \"{name}\"\n\n");
        let config = format!(
            "{}[pipelines.line]\nsteps = {STEPS:?}\n\n[pipelines.one]\nsteps = [{:?}]\n\n{}{}",
            STEPS.map(table).concat(),
            STEPS[0],
            trigger("line"),
            trigger("one")
        );
        let (node, _) = Project::new(bench, &STEPS.map(|name| (name, CODE)), &config)?.start().await?;
        node.deployed(STEPS.len(), Instant::now()).await?;
        Ok(Self { node })
    }

    /// How long a run takes that finds so many processes, all at rest.
    async fn run(&self, path: &str, processes: usize) -> Result<Duration> {
        let expected = Expected { status: 200, body: Body::Is("null".into()) };
        let Load { address, request, expected, .. } = self.node.load(1, path, b"{}", expected);
        self.node.rests(processes).await?;
        let mut connection = Connection::open(address).await?;
        let begun = Instant::now();
        let (status, body) = connection.exchange(&request).await?;
        let took = begun.elapsed();
        expected.check(status, body)?;
        Ok(took)
    }

    /// The first step of every run found no instance.
    fn check(&self, runs: usize) -> Result<()> {
        let cold = "SELECT count(*) FROM attempt WHERE outcome = 'ok' AND cold > 0";
        let cold: usize = self.node.log()?.query_row(cold, [], |row| row.get(0))?;
        if cold >= 2 * runs { Ok(()) } else { Err(format!("of {} runs {cold} had a cold start", 2 * runs).into()) }
    }
}
