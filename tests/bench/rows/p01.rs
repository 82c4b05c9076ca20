//! P1: warm synchronous calls of a native function, 32 connections, every call logged.

use super::{
    Spec,
    warm::{self, Aims},
};
use crate::{Result, bench::Bench, code::Code, row::Row};

pub(super) const SPEC: Spec = Spec {
    id: "P1",
    work: "sync HTTP -> native function -> HTTP, 32 connections, log = \"full\"",
    measure: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Row> {
    warm::measure(bench, &SPEC, Code::Native, Aims { rate: 0.5, cpu: 0.15 }).await
}
