//! P10: what one more instance of a Python function takes that imports much.

use super::Spec;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::{self, Meter},
    load::{Body, Expected},
    node::Project,
    row::{Figure, Noise, Row, Target},
};

pub(super) const SPEC: Spec = Spec {
    id: "P10",
    work: "memory of one more Python instance with heavy imports",
    measure: |bench| Box::pin(measure(bench)),
};

const CODE: Code<'_> = Code::Python(
    "\
import asyncio, concurrent.futures, csv, decimal, email.message, http.client, json, logging, sqlite3, ssl
import urllib.request, uuid, xml.etree.ElementTree, zipfile

def handler(event, context):
    return {'ok': True}
",
);

async fn measure(bench: &Bench) -> Result<Row> {
    let bar = bench.progress(SPEC.id, 2);
    let meter = Meter::start(&[std::process::id()])?;
    bar.set_message("forked");
    let forked = one_more(bench, true).await?;
    bar.inc(1);
    bar.set_message("each for itself");
    let fresh = one_more(bench, false).await?;
    bar.finish();
    let mut noise = Noise::default();
    noise.worse(&meter.stop()?);
    Ok(Row {
        id: SPEC.id,
        work: SPEC.work,
        figures: vec![Figure {
            what: "PSS",
            value: forked,
            unit: "MiB",
            floor: Some(fresh),
            ratio: Some(forked / fresh),
            target: Target::AtMost(0.2),
        }],
        cpu_ms_per_unit: None,
        floor_cpu_ms_per_unit: None,
        noise,
        note: format!(
            "all processes of {FEW} and of {MANY} instances that have answered, by the difference; floor: each loads the code itself"
        ),
    })
}

const FEW: usize = 2;
const MANY: usize = 10;

/// MiB that each instance adds.
async fn one_more(bench: &Bench, zygote: bool) -> Result<f64> {
    let (few, many) = (memory(bench, zygote, FEW).await?, memory(bench, zygote, MANY).await?);
    Ok((many - few) / (MANY - FEW) as f64)
}

/// MiB that all processes of functions share when so many instances are there.
async fn memory(bench: &Bench, zygote: bool, instances: usize) -> Result<f64> {
    let config = format!(
        "[functions.heavy]\nruntime = \"python\"\nconcurrency = {instances}\nwarm = {instances}\nzygote = {zygote}\n\n\
         [triggers.heavy]\nhttp = \"POST /call\"\nto = \"heavy\"\n"
    );
    let (node, _) = Project::new(bench, &[("heavy", CODE)], &config)?.start().await?;
    let expected = Expected { status: 200, body: Body::Is(r#"{"ok":true}"#.into()) };
    let load = node.load(instances, "/call", b"{}", expected);
    // the zygote, and what it has forked ahead
    let all = instances + if zygote { 2 } else { 0 };
    node.warm(&load, all).await?;
    load.fire(crate::load::Until::Sent(100 * instances), crate::load::Pace::Closed).await?;
    node.rests(all).await?;
    node.below()?.into_iter().map(|id| cost::memory(id).map(|(pss, _)| pss)).sum()
}
