//! P1 to P4: warm synchronous calls, 32 connections, every call logged. The rows differ in what runs.

use std::time::Duration;

use super::{Spec, small};
use crate::{
    Result,
    bench::Bench,
    code::Code,
    floor::Front,
    load::Pace,
    node::Node,
    row::{Figure, Row, Target},
    turns::{Side, Turns},
};

const CONNECTIONS: usize = 32;

/// What a row aims at.
pub(super) struct Aims {
    /// Of the floor's rate.
    pub(super) rate: f64,
    /// Milliseconds a request.
    pub(super) cpu: f64,
}

pub(super) async fn measure(bench: &Bench, spec: &Spec, code: Code<'_>, aims: Aims) -> Result<Row> {
    let front = Front::start(bench).await?;
    let (node, load) = small::node(bench, code, CONNECTIONS).await?;
    let floor_load = small::floor(&front, CONNECTIONS);
    let floor = Side { load: &floor_load, roots: &front.roots() };
    let value = Side { load: &load, roots: &[node.id()] };
    let turns = Turns::take(bench, spec.id, floor, value, Pace::Closed).await?;
    let logged = logged(&node, turns.calls)?;
    let (rate, floor_rate, rate_ratio) = turns.medians(|turn| turn.per_second);
    let (p99, floor_p99, p99_ratio) = turns.medians(|turn| turn.p99);
    let (cpu, floor_cpu, _) = turns.medians(|turn| turn.cpu_ms_per_unit);
    Ok(Row {
        id: spec.id,
        work: spec.work,
        figures: vec![
            Figure {
                what: "rate",
                value: rate,
                unit: "req/s",
                floor: Some(floor_rate),
                ratio: Some(rate_ratio),
                target: Target::AtLeast(aims.rate),
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
            Figure {
                what: "CPU",
                value: cpu,
                unit: "ms/req",
                floor: None,
                ratio: None,
                target: Target::AtMost(aims.cpu),
            },
        ],
        cpu_ms_per_unit: Some(cpu),
        floor_cpu_ms_per_unit: Some(floor_cpu),
        noise: turns.noise,
        note: format!(
            "no NATS in ours (a call of the own node); floor: axum -> core NATS -> bare responder; p50 {:.2} ms; {logged:.1} % of the calls are in the log",
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
