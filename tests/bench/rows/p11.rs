//! P11: a pipeline of three warm steps, every step in the log before the next begins.
//!
//! It is called synchronously: from the request, which is synced as any accepted event, to the answer of the last step.
//! The steps are native no-ops, so that what is measured is the bus.

use super::Spec;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::{Cost, Meter},
    floor::{Part, Server},
    load::{Body, Expected, Load, Pace, Until},
    node::{Node, Project},
    row::{Figure, Row, Target},
    turns::{Side, Turn, Turns, median},
};

pub(super) const SPEC: Spec = Spec {
    id: "P11",
    work: "a pipeline of 3 warm native steps, durable, from request to answer",
    measure: |bench| Box::pin(measure(bench)),
};

const STEPS: [&str; 3] = ["first", "second", "third"];
/// Runs at once where their rate is measured.
const CONNECTIONS: usize = 32;

async fn measure(bench: &Bench) -> Result<Row> {
    let runs = bench.pick(1000, 100);
    let server = Server::start(bench).await?;
    let folder = bench.folder("steps")?;
    let arguments = [runs.to_string(), STEPS.len().to_string()];
    let path = folder.path().display().to_string();
    let mut floor = Part::start(&["steps", &server.url, &path, &arguments[0], &arguments[1]])?;
    floor.hear()?;
    let node = node(bench).await?;
    let expected = Expected { status: 200, body: Body::Is("null".into()) };
    let one = node.load(1, "/run", br#"{"order":1}"#, expected);
    // an instance of each step, and then as many as there will be
    let warm = STEPS.len() * 2 * std::thread::available_parallelism()?.get();
    node.warm(&one, warm).await?;
    let many = Load { connections: CONNECTIONS, ..one.clone() };
    let roots = [node.id()];
    let (one, many) = (Side { load: &one, roots: &roots }, Side { load: &many, roots: &roots });

    let bar = bench.progress(SPEC.id, bench.rounds());
    bar.set_message("warming up");
    many.turn(Until::After(bench.round() / 2), Pace::Closed).await?;
    let (mut turns, mut rates) = (Turns::default(), Vec::new());
    for _ in 0..bench.rounds() {
        let meter = Meter::start(&[floor.id(), server.id()])?;
        floor.go()?;
        let p50: f64 = floor.hear()?.parse()?;
        let below = turn(p50, runs, meter.stop()?);
        turns.add(below, one.turn(Until::Sent(runs), Pace::Closed).await?);
        let rate = many.turn(Until::After(bench.round()), Pace::Closed).await?;
        turns.noise.worse(&rate.cost);
        bar.set_message(format!("{:.0}/s", rate.per_second));
        bar.inc(1);
        rates.push(rate);
    }
    bar.finish();
    check(&node)?;
    let (p50, floor_p50, ratio) = turns.medians(|turn| turn.p50);
    let (cpu, floor_cpu, _) = turns.medians(|turn| turn.cpu_ms_per_unit);
    let of = |measure: fn(&Turn) -> f64| median(rates.iter().map(measure).collect());
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![
            Figure {
                what: "p50, one run at a time",
                value: p50,
                unit: "ms",
                floor: Some(floor_p50),
                ratio: Some(ratio),
                target: Target::AtMost(2.0),
            },
            Figure {
                what: "rate, 32 runs at a time",
                value: of(|turn| turn.per_second),
                unit: "runs/s",
                floor: None,
                ratio: None,
                target: Target::AtLeast(1500.0),
            },
        ],
        cpu_ms_per_unit: Some(cpu),
        floor_cpu_ms_per_unit: Some(floor_cpu),
        noise: turns.noise,
        note: format!(
            "floor: 3 x (a row synced by SQLite + JetStream publish to delivery), in one process, with no function; 32 at \
             a time: CPU {:.3} ms/run, p50 {:.1} ms, p99 {:.1} ms",
            of(|turn| turn.cpu_ms_per_unit),
            of(|turn| turn.p50),
            of(|turn| turn.p99)
        ),
    })
}

fn turn(p50: f64, runs: usize, cost: Cost) -> Turn {
    Turn { per_second: 1e3 / p50, p50, p99: 0.0, cpu_ms_per_unit: cost.cpu_ms / runs as f64, cost, count: runs as u64 }
}

async fn node(bench: &Bench) -> Result<Node> {
    let warm = 2 * std::thread::available_parallelism()?.get();
    let functions = STEPS.map(|name| (name, Code::Native));
    let runtime = Code::Native.runtime();
    let table = |name| format!("[functions.{name}]\nruntime = \"{runtime}\"\nconcurrency = {warm}\nwarm = {warm}\n\n");
    let config = STEPS.map(table).concat();
    let config = format!(
        "{config}[pipelines.line]\nsteps = {STEPS:?}\n\n\
         [triggers.run]\nhttp = \"POST /run\"\npayload = \"body\"\nto = \"line\"\n"
    );
    Ok(Project::new(bench, &functions, &config)?.start().await?.0)
}

/// Every run has ended well, by a step each.
fn check(node: &Node) -> Result<()> {
    let (runs, done, steps): (i64, i64, i64) = node.log()?.query_row(
        "SELECT (SELECT count(*) FROM run), (SELECT count(*) FROM delivery WHERE run IS NULL AND status = 10), \
         (SELECT count(*) FROM delivery WHERE run IS NOT NULL AND status = 10)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if done == runs && steps == runs * STEPS.len() as i64 && runs > 0 {
        return Ok(());
    }
    Err(format!("of {runs} runs {done} are done, with {steps} steps").into())
}
