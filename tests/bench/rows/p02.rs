//! P2: warm synchronous calls of a Python function, 32 connections, every call logged.

use std::time::Duration;

use super::{Spec, small};
use crate::{
    Result,
    bench::Bench,
    floor::Front,
    load::Pace,
    node::Node,
    row::{Figure, Row, Target},
    turns::{Side, Turns},
};

pub(super) const SPEC: Spec = Spec {
    id: "P2",
    work: "sync HTTP -> NATS -> warm Python -> HTTP, 32 connections, log = \"full\"",
    measure: |bench| Box::pin(measure(bench)),
};

const CONNECTIONS: usize = 32;

async fn measure(bench: &Bench) -> Result<Row> {
    let front = Front::start(bench).await?;
    let (node, load) = small::node(bench, CONNECTIONS).await?;
    let floor_load = small::floor(&front, CONNECTIONS);
    let floor = Side { load: &floor_load, roots: &front.roots() };
    let value = Side { load: &load, roots: &[node.id()] };
    let turns = Turns::take(bench, SPEC.id, floor, value, Pace::Closed).await?;
    let logged = logged(&node, turns.calls)?;
    let (rate, floor_rate, rate_ratio) = turns.medians(|turn| turn.per_second);
    let (p99, floor_p99, p99_ratio) = turns.medians(|turn| turn.p99);
    let (cpu, floor_cpu, _) = turns.medians(|turn| turn.cpu_ms_per_unit);
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![
            Figure {
                what: "rate",
                value: rate,
                unit: "req/s",
                floor: Some(floor_rate),
                ratio: Some(rate_ratio),
                target: Target::AtLeast(0.4),
            },
            Figure {
                what: "p99",
                value: p99,
                unit: "ms",
                floor: Some(floor_p99),
                ratio: Some(p99_ratio),
                target: Target::AtMost(3.0),
            },
            // the worst that is still good, not a ratio: CPU time hardly depends on who else is busy
            Figure { what: "CPU", value: cpu, unit: "ms/req", floor: None, ratio: None, target: Target::AtMost(0.25) },
        ],
        cpu_ms_per_unit: Some(cpu),
        floor_cpu_ms_per_unit: Some(floor_cpu),
        noise: turns.noise,
        note: format!(
            "floor: axum -> core NATS -> bare responder; p50 {:.2} ms; {logged:.1} % of the calls are in the log",
            turns.medians(|turn| turn.p50).0
        ),
    })
}

/// The share of calls that were logged: under pressure they may be dropped, and then the row would measure less work.
fn logged(node: &Node, calls: u64) -> Result<f64> {
    // the last of them are written a moment later
    let mut found = 0;
    for _ in 0..20 {
        found = node
            .log()?
            .query_row("SELECT count(*) FROM attempt WHERE outcome = 'ok'", [], |row| row.get::<_, u64>(0))?;
        if found >= calls {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // those that warmed it up are in the log too
    Ok((found as f64 / calls as f64 * 100.0).min(100.0))
}
