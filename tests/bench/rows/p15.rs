//! P15: what a node takes that has nothing to do.

use std::{
    thread::available_parallelism,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::Spec;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::Meter,
    load::{Body, Expected, Pace, Until},
    node::Project,
    row::{Figure, Noise, Row, Target},
};

pub(super) const SPEC: Spec = Spec {
    id: "P15",
    work: "idle: memory of fnbus without nats-server, CPU, open instances",
    measure: |bench| Box::pin(measure(bench)),
};

const CONFIG: &str = "\
[functions.idle]
runtime = \"python\"
keep_alive = \"1s\"

[triggers.call]
http = \"POST /call\"
to = \"idle\"

[triggers.later]
http = \"POST /later\"
mode = \"async\"
to = \"idle\"
";

/// Instances may take this long to end after they have expired.
const PATIENCE: Duration = Duration::from_secs(10);

async fn measure(bench: &Bench) -> Result<Row> {
    let code = "def handler(event, context):\n    return {'ok': True}\n";
    let (node, _) = Project::new(bench, &[("idle", Code::Python(code))], CONFIG)?.start().await?;
    // it has worked before it rests
    let expected = Expected { status: 200, body: Body::Is(r#"{"ok":true}"#.into()) };
    let load = node.load(8, "/call", b"{}", expected);
    node.warm(&load, 1).await?;
    load.fire(Until::Sent(1000), Pace::Closed).await?;
    node.accept(1000, "/later", b"{}").await?;

    let time = bench.pick(20, 3);
    let bar = bench.progress(SPEC.id, time);
    bar.set_message("until the instances have expired");
    let begun = Instant::now();
    sleep(Duration::from_secs(2)).await;
    while node.warm_instances()? > 0 && begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(100)).await;
    }
    let instances = node.warm_instances()?;
    bar.set_message("at rest");
    let alone = Meter::start(&[node.id()])?;
    let before = node.own_ms()?;
    for _ in 0..time {
        sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish();
    let own = node.own_ms()? - before;
    let cost = alone.stop()?;
    let (pss, rss) = node.memory()?;
    let share = |cpu_ms: f64| cpu_ms / 10.0 / cost.seconds;
    let mut noise = Noise::default();
    noise.worse(&cost);
    let absolute = |what, value, unit, target| Figure { what, value, unit, floor: None, ratio: None, target };
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![
            absolute("memory (PSS)", pss, "MiB", Target::AtMost(40.0)),
            absolute("CPU", share(own), "% of a core", Target::AtMost(0.5)),
            absolute("open instances", instances as f64, "instances", Target::AtMost(0.0)),
        ],
        cpu_ms_per_unit: None,
        floor_cpu_ms_per_unit: None,
        noise,
        note: format!(
            "RSS {rss:.0} MiB; {} processes wait to become an instance; with its nats-server {:.2} % of a core; {} cores",
            node.instances()?,
            share(cost.cpu_ms),
            available_parallelism()?
        ),
    })
}
