//! P3: warm synchronous calls of a Node.js function, 32 connections, every call logged.

use super::{
    Spec, small,
    warm::{self, Aims},
};
use crate::{Result, bench::Bench, row::Row};

pub(super) const SPEC: Spec = Spec {
    id: "P3",
    work: "sync HTTP -> warm Node.js -> HTTP, 32 connections, log = \"full\"",
    measure: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Row> {
    warm::measure(bench, &SPEC, small::NODE, Aims { rate: 0.4, cpu: 0.25 }).await
}
