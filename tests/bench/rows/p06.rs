//! P6: events accepted over HTTP, synced before the answer, while nothing runs them.

use std::time::Duration;

use super::Spec;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    floor::Front,
    load::{Load, Pace, Until, post},
    node::{Project, accepted},
    row::{Figure, Row, Target},
    turns::{Side, Turns},
};

pub(super) const SPEC: Spec = Spec {
    id: "P6",
    work: "202 HTTP accept, 1 KiB, 32 connections, fsync before the answer, target paused",
    measure: |bench| Box::pin(measure(bench)),
};

const CONNECTIONS: usize = 32;
const CONFIG: &str = "\
[functions.paused]
runtime = \"python\"
concurrency = 0

[triggers.paused]
http = \"POST /publish\"
mode = \"async\"
to = \"paused\"
";

async fn measure(bench: &Bench) -> Result<Row> {
    let front = Front::start(bench).await?;
    let code = "def handler(event, context):\n    pass\n";
    let (node, _) = Project::new(bench, &[("paused", Code::Python(code))], CONFIG)?.start().await?;
    let body = super::p07::body();
    let load = node.load(CONNECTIONS, "/publish", &body, accepted());
    let floor_load = Load {
        address: front.address,
        connections: CONNECTIONS,
        request: post(front.address, "/publish", &body),
        expected: accepted(),
    };
    let floor = Side { load: &floor_load, roots: &front.roots() };
    let value = Side { load: &load, roots: &[node.id()] };
    let turns = Turns::take(bench, SPEC.id, floor, value, Pace::Closed).await?;
    let (rate, floor_rate, ratio) = turns.medians(|turn| turn.per_second);
    let (cpu, floor_cpu, _) = turns.medians(|turn| turn.cpu_ms_per_unit);
    let half = Pace::Every(Duration::from_secs_f64(CONNECTIONS as f64 / (rate / 2.0)));
    let paced = load.fire(Until::After(bench.round() * 2), half).await?;
    check(&node.log()?)?;
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![
            Figure {
                what: "rate",
                value: rate,
                unit: "events/s",
                floor: Some(floor_rate),
                ratio: Some(ratio),
                target: Target::AtLeast(0.5),
            },
            Figure {
                what: "p99 at half that rate",
                value: paced.latencies.quantile(0.99),
                unit: "ms",
                floor: None,
                ratio: None,
                target: Target::AtMost(15.0),
            },
        ],
        cpu_ms_per_unit: Some(cpu),
        floor_cpu_ms_per_unit: Some(floor_cpu),
        noise: turns.noise,
        note: format!(
            "floor: axum -> JetStream publish + ack -> 202, not synced; p50 at half rate {:.2} ms",
            paced.latencies.quantile(0.5)
        ),
    })
}

/// Everything is there and waits.
fn check(log: &rusqlite::Connection) -> Result<()> {
    let (events, waiting): (i64, i64) = log.query_row(
        "SELECT (SELECT count(*) FROM event), (SELECT count(*) FROM delivery WHERE status = 1)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if events == waiting && events > 0 { Ok(()) } else { Err(format!("{waiting} of {events} events wait").into()) }
}
