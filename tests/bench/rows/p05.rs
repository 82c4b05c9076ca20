//! P5: what one call takes when nothing else happens.

use std::time::Duration;

use super::{Spec, small};
use crate::{
    Result,
    bench::Bench,
    floor::Front,
    load::Pace,
    row::{Figure, Row, Target},
    turns::{Side, Turns},
};

pub(super) const SPEC: Spec = Spec {
    id: "P5",
    work: "idle latency, 1 connection, warm Python, through the whole bus",
    measure: |bench| Box::pin(measure(bench)),
};

/// Between an answer and the next request: long enough that everything has gone to sleep.
const PAUSE: Duration = Duration::from_millis(1);

async fn measure(bench: &Bench) -> Result<Row> {
    let front = Front::start(bench).await?;
    let (node, load) = small::node(bench, small::PYTHON, 1).await?;
    let floor_load = small::floor(&front, 1);
    let floor = Side { load: &floor_load, roots: &front.roots() };
    let value = Side { load: &load, roots: &[node.id()] };
    let turns = Turns::take(bench, SPEC.id, floor, value, Pace::Pause(PAUSE)).await?;
    let (p50, floor_p50, ratio) = turns.medians(|turn| turn.p50);
    let (p99, floor_p99, _) = turns.medians(|turn| turn.p99);
    let (cpu, floor_cpu, _) = turns.medians(|turn| turn.cpu_ms_per_unit);
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![Figure {
            what: "p50",
            value: p50,
            unit: "ms",
            floor: Some(floor_p50),
            ratio: Some(ratio),
            target: Target::AtMost(2.0),
        }],
        cpu_ms_per_unit: Some(cpu),
        floor_cpu_ms_per_unit: Some(floor_cpu),
        noise: turns.noise,
        note: format!(
            "floor: the same request through axum -> core NATS -> responder; p99 {p99:.2} ms, floor {floor_p99:.2} ms"
        ),
    })
}
