//! C1: how P1, P6 and P7 grow with the number of functions that are configured and have nothing to do.
//!
//! A node for each number, all of them running, measured in turns. Of each node one native function works; the others
//! are like it, each with code and a route of its own. They have been deployed, and the instance that showed that they
//! work has expired, before anything is measured.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::{Spec, p07, small};
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::{Cost, Meter},
    load::{Load, Pace, Until},
    node::{Node, Project, accepted},
    row::{Figure, Noise, Row, Target},
    turns::{Side, Turn, median},
};

pub(super) const SPEC: Spec = Spec {
    id: "C1",
    work: "P1, P6 and P7 with 1, 100 and 1,000 configured functions",
    measure: |bench| Box::pin(measure(bench)),
};

/// The largest of the numbers may be this much slower than the smallest.
const AT_LEAST: f64 = 0.8;
const CONNECTIONS: usize = 32;
/// Functions of each node.
const FUNCTIONS: [usize; 3] = [1, 100, 1000];
/// What is measured of each node, in this order; named at all numbers but the first.
const NAMES: [[&str; 2]; 3] = [
    ["P1 at 100 functions", "P1 at 1,000 functions"],
    ["P6 at 100 functions", "P6 at 1,000 functions"],
    ["P7 at 100 functions", "P7 at 1,000 functions"],
];

async fn measure(bench: &Bench) -> Result<Row> {
    let rounds = bench.pick(3, 1);
    let bar = bench.progress(SPEC.id, rounds + FUNCTIONS.len());
    let mut sizes = Vec::new();
    for functions in FUNCTIONS {
        bar.set_message(format!("deploying {functions} functions"));
        sizes.push(Size::start(bench, functions).await?);
        bar.inc(1);
    }
    let mut noise = Noise::default();
    for _ in 0..rounds {
        for size in &mut sizes {
            bar.set_message(format!("{} functions", size.functions));
            size.round(bench, &mut noise).await?;
        }
        bar.inc(1);
    }
    let rest = at_rest(bench, &sizes, &mut noise).await?;
    bar.finish();

    let (smallest, others) = sizes.split_first().ok_or("no sizes")?;
    let mut figures = Vec::new();
    for (work, names) in NAMES.iter().enumerate() {
        for (size, what) in others.iter().zip(names) {
            figures.push(Figure {
                what,
                value: size.rate(work),
                unit: "/s",
                floor: Some(smallest.rate(work)),
                ratio: Some(ratio(size, smallest, work)),
                target: Target::AtLeast(AT_LEAST),
            });
        }
    }
    let largest = sizes.last().ok_or("no sizes")?;
    let mut note = String::from("floor: the same with 1 function; nodes");
    for (size, (memory, share)) in sizes.iter().zip(rest) {
        write!(
            note,
            " of {}: answers after {:.0} ms, all deployed after {:.1} s, {memory:.0} MiB (PSS of fnbus), {share:.2} % \
             of a core at rest;",
            size.functions,
            size.answers.as_secs_f64() * 1e3,
            size.deployed.as_secs_f64(),
        )?;
    }
    note += " CPU is of P1, with most and with one";
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures,
        cpu_ms_per_unit: Some(median(largest.turns.iter().map(|turns| turns[0].cpu_ms_per_unit).collect())),
        floor_cpu_ms_per_unit: Some(median(smallest.turns.iter().map(|turns| turns[0].cpu_ms_per_unit).collect())),
        noise,
        note,
    })
}

/// The median of the rounds' own ratios.
fn ratio(size: &Size, to: &Size, work: usize) -> f64 {
    let rounds = size.turns.iter().zip(&to.turns);
    median(rounds.map(|(turns, to)| turns[work].per_second / to[work].per_second.max(1e-9)).collect())
}

/// A node with so many functions.
struct Size {
    functions: usize,
    node: Node,
    call: Load,
    publish: Load,
    /// How long it took until it answered, and until every function was deployed.
    answers: Duration,
    deployed: Duration,
    turns: Vec<[Turn; NAMES.len()]>,
}

impl Size {
    async fn start(bench: &Bench, functions: usize) -> Result<Self> {
        let idle: Vec<String> = (1..functions).map(|n| format!("idle{n}")).collect();
        let codes: Vec<(&str, Code<'_>)> =
            std::iter::once("small").chain(idle.iter().map(String::as_str)).map(|name| (name, Code::Native)).collect();
        let project = Project::new(bench, &codes, &config(functions, concurrency()?))?;
        let begun = Instant::now();
        let (node, answers) = project.start().await?;
        let deployed = node.deployed(functions, begun).await?;
        node.rests(concurrency()?).await?;
        let call = small::load(&node, Code::Native, CONNECTIONS);
        let publish = node.load(CONNECTIONS, "/publish", &p07::body(), accepted());
        let roots = [node.id()];
        let warm = Side { load: &call, roots: &roots };
        warm.turn(Until::After(bench.round() / 2), Pace::Closed).await?;
        Ok(Self { functions, call, publish, answers, deployed, turns: Vec::new(), node })
    }

    async fn round(&mut self, bench: &Bench, noise: &mut Noise) -> Result<()> {
        let node = &self.node;
        let roots = [node.id()];
        node.warm(&self.call, concurrency()?).await?;
        let calls = Side { load: &self.call, roots: &roots }.turn(Until::After(bench.round()), Pace::Closed).await?;

        // stopped, it takes what comes and lets it wait
        node.project().configure(&config(self.functions, 0))?;
        node.rests(0).await?;
        let backlog = bench.pick(15_000, 3_000);
        let before = last(node)?;
        let taken = Side { load: &self.publish, roots: &roots }.turn(Until::Sent(backlog), Pace::Closed).await?;

        let meter = Meter::start(&roots)?;
        node.project().configure(&config(self.functions, concurrency()?))?;
        p07::finish(node, last(node)?).await?;
        let worked = worked_off(node, before, backlog, meter.stop()?)?;
        for turn in [&calls, &taken, &worked] {
            noise.worse(&turn.cost);
        }
        self.turns.push([calls, taken, worked]);
        Ok(())
    }

    fn rate(&self, work: usize) -> f64 {
        median(self.turns.iter().map(|turns| turns[work].per_second).collect())
    }
}

fn concurrency() -> Result<usize> {
    Ok(2 * std::thread::available_parallelism()?.get())
}

/// The last delivery.
fn last(node: &Node) -> Result<i64> {
    Ok(node.log()?.query_row("SELECT coalesce(max(seq), 0) FROM delivery", [], |row| row.get(0))?)
}

/// By the log's own times, as P7. Synchronous calls are in the log too; their publication is 0.
fn worked_off(node: &Node, before: i64, backlog: usize, cost: Cost) -> Result<Turn> {
    let (done, micros): (usize, i64) = node.log()?.query_row(
        "SELECT count(*), max(d.ended) - min(a.started) FROM delivery d JOIN attempt a ON a.id = (d.seq << 12) + 1 \
         WHERE d.seq > ?1 AND d.publication > 0 AND d.status = 10 AND d.attempts = 1",
        [before],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if done != backlog {
        return Err(format!("{done} of {backlog} deliveries were done, each by one attempt").into());
    }
    Ok(p07::turn(backlog, micros as f64 / 1e6, cost))
}

/// Memory in MiB and percent of a core of each node while nothing happens.
async fn at_rest(bench: &Bench, sizes: &[Size], noise: &mut Noise) -> Result<Vec<(f64, f64)>> {
    let time = bench.pick(5, 1);
    let before: Vec<f64> = sizes.iter().map(|size| size.node.own_ms()).collect::<Result<_>>()?;
    let meter = Meter::start(&sizes.iter().map(|size| size.node.id()).collect::<Vec<_>>())?;
    tokio::time::sleep(Duration::from_secs(time)).await;
    let cost = meter.stop()?;
    noise.worse(&cost);
    let each = sizes.iter().zip(before).map(|(size, before)| {
        let used = size.node.own_ms()? - before;
        Ok((size.node.memory()?.0, used / 10.0 / cost.seconds))
    });
    each.collect()
}

/// One that works, and idle ones, each with a route.
fn config(functions: usize, concurrency: usize) -> String {
    let runtime = Code::Native.runtime();
    let mut config = format!(
        "[functions.small]\nruntime = \"{runtime}\"\nconcurrency = {concurrency}\nwarm = {concurrency}\n\n\
         [triggers.call]\nhttp = \"POST /call\"\nlog = \"full\"\nto = \"small\"\n\n\
         [triggers.publish]\nhttp = \"POST /publish\"\nmode = \"async\"\npayload = \"body\"\nto = \"small\"\n\n"
    );
    for n in 1..functions {
        let _ = write!(
            config,
            "[functions.idle{n}]\nruntime = \"{runtime}\"\nkeep_alive = \"1s\"\n\n\
             [triggers.idle{n}]\nhttp = \"POST /idle/{n}\"\nto = \"idle{n}\"\n\n"
        );
    }
    config
}
