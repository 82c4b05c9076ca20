//! P7n: P7 with a native function, which costs next to nothing itself.

use super::{Spec, p07};
use crate::{Result, bench::Bench, code::Code, row::Row};

pub(super) const SPEC: Spec = Spec {
    id: "P7n",
    work: "asynchronous, end to end: a backlog of 50k through a native no-op, outcomes committed, acked",
    measure: |bench| Box::pin(measure(bench)),
};

async fn measure(bench: &Bench) -> Result<Row> {
    p07::work_off(bench, &SPEC, Code::Native).await
}
