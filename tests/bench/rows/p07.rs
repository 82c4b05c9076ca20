//! P7: a backlog of accepted events, worked off: pulled, begun, run, its outcome committed, acknowledged.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Spec;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::Meter,
    floor::{Part, Server},
    node::{Node, Project},
    row::{Figure, Row, Target},
    turns::{Turn, Turns},
};

pub(super) const SPEC: Spec = Spec {
    id: "P7",
    work: "asynchronous, end to end: a backlog of 50k through a Python no-op, outcomes committed, acked",
    measure: |bench| Box::pin(measure(bench)),
};

/// Without any progress for so long a round has failed.
const STALLED: Duration = Duration::from_secs(15);
/// Between two looks at the log; each costs microseconds.
const LOOK: Duration = Duration::from_millis(50);

const CODE: &str = "def handler(event, context):\n    return None\n";

async fn measure(bench: &Bench) -> Result<Row> {
    work_off(bench, &SPEC, Code::Python(CODE)).await
}

/// The row, of any code that answers null.
pub(super) async fn work_off(bench: &Bench, spec: &Spec, code: Code<'_>) -> Result<Row> {
    let backlog = bench.pick(50_000, 5_000);
    let rounds = bench.pick(3, 1);
    let bar = bench.progress(spec.id, rounds * 2);
    let mut turns = Turns::default();
    for _ in 0..rounds {
        let floor = floor(bench, backlog).await?;
        bar.inc(1);
        bar.set_message(format!("floor {:.0}/s; accepting {backlog} events", floor.per_second));
        let value = value(bench, code, backlog).await?;
        bar.inc(1);
        bar.set_message(format!("{:.0}/s, floor {:.0}/s", value.per_second, floor.per_second));
        turns.add(floor, value);
    }
    bar.finish();
    let (rate, floor_rate, ratio) = turns.medians(|turn| turn.per_second);
    let (cpu, floor_cpu, _) = turns.medians(|turn| turn.cpu_ms_per_unit);
    Ok(Row {
        id: spec.id,
        work: spec.work,
        figures: vec![Figure {
            what: "rate",
            value: rate,
            unit: "deliveries/s",
            floor: Some(floor_rate),
            ratio: Some(ratio),
            target: Target::AtLeast(0.10),
        }],
        cpu_ms_per_unit: Some(cpu),
        floor_cpu_ms_per_unit: Some(floor_cpu),
        noise: turns.noise,
        note: format!("backlog of {backlog}; floor: JetStream continuous pull + ack, work queue, 1 KiB, Nats-Msg-Id"),
    })
}

/// 1 KiB of JSON.
pub(super) fn body() -> Vec<u8> {
    format!(r#"{{"order":"{}"}}"#, "x".repeat(1024 - 12)).into_bytes()
}

async fn floor(bench: &Bench, messages: usize) -> Result<Turn> {
    let server = Server::start(bench).await?;
    let mut part = Part::start(&["pull", &server.url, &messages.to_string()])?;
    part.hear()?;
    let meter = Meter::start(&[part.id(), server.id()])?;
    part.go()?;
    let seconds: f64 = part.hear()?.parse()?;
    Ok(turn(messages, seconds, meter.stop()?))
}

pub(super) fn turn(units: usize, seconds: f64, cost: crate::cost::Cost) -> Turn {
    Turn {
        per_second: units as f64 / seconds,
        p50: 0.0,
        p99: 0.0,
        cpu_ms_per_unit: cost.cpu_ms / units as f64,
        cost,
        count: units as u64,
    }
}

fn config(code: Code<'_>, concurrency: usize) -> String {
    format!(
        "[functions.noop]\nruntime = \"{}\"\nconcurrency = {concurrency}\n\n\
         [triggers.noop]\nhttp = \"POST /noop\"\nmode = \"async\"\npayload = \"body\"\nto = \"noop\"\n",
        code.runtime()
    )
}

async fn value(bench: &Bench, code: Code<'_>, backlog: usize) -> Result<Turn> {
    let (node, _) = Project::new(bench, &[("noop", code)], &config(code, 0))?.start().await?;
    node.accept(backlog, "/noop", &body()).await?;
    let meter = Meter::start(&[node.id()])?;
    node.project().configure(&config(code, 2 * std::thread::available_parallelism()?.get()))?;
    finish(&node, backlog as i64).await?;
    let cost = meter.stop()?;
    // by the log's own times: from the first attempt, so that the quiet time before a reload is not within it
    let micros: i64 =
        node.log()?
            .query_row("SELECT (SELECT max(ended) FROM delivery) - min(started) FROM attempt", [], |r| r.get(0))?;
    check(&node, backlog)?;
    Ok(turn(backlog, micros as f64 / 1e6, cost))
}

/// Waits until nothing is unended, up to this row of the deliveries.
pub(super) async fn finish(node: &Node, last: i64) -> Result<()> {
    let log = node.log()?;
    let mut newest = log.prepare("SELECT coalesce(max(id) >> 12, 0) FROM attempt")?;
    let mut open = log.prepare("SELECT count(*) FROM delivery WHERE status IN (0, 1, 2)")?;
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let now: i64 = newest.query_row([], |row| row.get(0))?;
        // the last has begun: only now is it worth counting what is open
        if now >= last && open.query_row([], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(());
        }
        if now > seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > STALLED {
            return Err(format!("nothing moved after delivery {now} of {last}; fnbus said:\n{}", node.said()).into());
        }
        sleep(LOOK).await;
    }
}

/// Every delivery is done, and ran once.
fn check(node: &Node, backlog: usize) -> Result<()> {
    let (done, attempts): (i64, i64) = node.log()?.query_row(
        "SELECT (SELECT count(*) FROM delivery WHERE status = 10), (SELECT count(*) FROM attempt WHERE outcome = 'ok')",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if done == backlog as i64 && attempts == done {
        return Ok(());
    }
    Err(format!("{done} of {backlog} deliveries are done, by {attempts} attempts").into())
}
