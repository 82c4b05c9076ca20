//! P4: warm synchronous calls of a WebAssembly program, 32 connections, every call logged. Each has an instance of its own.

use super::{
    Spec,
    warm::{self, Aims},
};
use crate::{Result, bench::Bench, code::Code, row::Row};

pub(super) const SPEC: Spec = Spec {
    id: "P4",
    work: "sync HTTP -> wasm program, an instance a call -> HTTP, 32 connections, log = \"full\"",
    measure: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Row> {
    warm::measure(bench, &SPEC, Code::Wasm, Aims { rate: 0.45, cpu: 0.25 }).await
}
