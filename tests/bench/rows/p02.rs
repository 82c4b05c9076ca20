//! P2: warm synchronous calls of a Python function, 32 connections, every call logged.

use super::{
    Spec, small,
    warm::{self, Aims},
};
use crate::{Result, bench::Bench, row::Row};

pub(super) const SPEC: Spec = Spec {
    id: "P2",
    work: "sync HTTP -> warm Python -> HTTP, 32 connections, log = \"full\"",
    measure: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Row> {
    warm::measure(bench, &SPEC, small::PYTHON, Aims { rate: 0.4, cpu: 0.25 }).await
}
