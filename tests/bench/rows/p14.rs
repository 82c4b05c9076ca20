//! P14: what keep-alive by the cost window costs, beside ten minutes always.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::Spec;
use crate::{
    Result,
    bench::{Bench, fnbus},
    row::{Figure, Noise, Row, Target},
};

pub(super) const SPEC: Spec = Spec {
    id: "P14",
    work: "keep-alive on the trace of seed 42: cold starts and idle memory",
    measure: |bench| Box::pin(measure(bench)),
};

/// Not a matter of time: the same on every machine.
async fn measure(bench: &Bench) -> Result<Row> {
    let apps = bench.pick("1000", "100");
    let bar = bench.progress(SPEC.id, 1);
    bar.set_message(format!("replaying {apps} apps"));
    let mut command = Command::new(fnbus()?);
    command.args(["bench", "pool", "--json", "--apps", apps]).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await?;
    bar.finish();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let lines: Vec<Value> =
        String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
    let of = |policy: &str, key: &str| {
        let line = lines.iter().find(|line| line["policy"] == policy);
        line.and_then(|line| line[key].as_f64()).ok_or_else(|| format!("fnbus bench pool says no {key} of {policy}"))
    };
    let ratio = |what, key, target| -> Result<Figure> {
        let ratio = of("cost-window", key)?;
        Ok(Figure {
            what,
            value: ratio,
            unit: "x",
            floor: Some(1.0),
            ratio: Some(ratio),
            target: Target::AtMost(target),
        })
    };
    let percent = |policy| of(policy, "cold_percent");
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![ratio("cold starts", "cold_ratio", 0.25)?, ratio("idle memory", "memory_ratio", 1.0)?],
        cpu_ms_per_unit: None,
        floor_cpu_ms_per_unit: None,
        noise: Noise::default(),
        note: format!(
            "{apps} apps, 7 days; floor: ten minutes always, {:.2} % cold against {:.2} %; {} starts before a call",
            percent("fixed")?,
            percent("cost-window")?,
            of("cost-window", "prewarm_starts")?
        ),
    })
}
