//! The rows. To add one: a file with `SPEC` and `measure`, and a line in [`ALL`].

// Configured functions that do nothing.
mod c1;
// Warm synchronous calls: native, Python, Node.js, WebAssembly.
mod p01;
mod p02;
mod p03;
mod p04;
// One call at a time.
mod p05;
// Accepting.
mod p06;
// Working a backlog off: Python, native.
mod p07;
mod p07n;
// Calls that find no instance: in general, with something else there, with nothing there.
mod cold;
mod p08;
mod p09;
// Memory of one more instance.
mod p10;
// A pipeline: warm, cold.
mod p11;
mod p12;
// Keeping instances.
mod p14;
// Doing nothing.
mod p15;
// Several functions at once.
mod p18;
// Starting.
mod p16;
// The small JSON of P1 to P5, P8 and C1.
mod small;
// What P1 to P4 are.
mod warm;

use std::pin::Pin;

use crate::{Result, bench::Bench, code, report, row::Row};

/// A row that can be measured.
pub(crate) struct Spec {
    pub(crate) id: &'static str,
    pub(crate) work: &'static str,
    measure: for<'a> fn(&'a Bench) -> Measured<'a>,
}

type Measured<'a> = Pin<Box<dyn Future<Output = Result<Row>> + 'a>>;

pub(crate) const ALL: &[Spec] = &[
    p01::SPEC,
    p02::SPEC,
    p03::SPEC,
    p04::SPEC,
    p05::SPEC,
    p06::SPEC,
    p07::SPEC,
    p07n::SPEC,
    p08::SPEC,
    p09::SPEC,
    p10::SPEC,
    p11::SPEC,
    p12::SPEC,
    p14::SPEC,
    p15::SPEC,
    p16::SPEC,
    p18::SPEC,
    c1::SPEC,
];

/// The rows of these ids; all that this bench has without any.
pub(crate) fn wanted(ids: &[String]) -> Result<Vec<&'static Spec>> {
    if ids.is_empty() {
        return Ok(ALL.iter().filter(|row| row.id != p04::SPEC.id || code::wasm().is_some()).collect());
    }
    let find = |id: &String| ALL.iter().find(|row| row.id.eq_ignore_ascii_case(id));
    let known = || ALL.iter().map(|row| row.id).collect::<Vec<_>>().join(" ");
    ids.iter().map(|id| find(id).ok_or_else(|| format!("there is no row {id}; there are {}", known()).into())).collect()
}

/// Measures row after row; each is told on stdout as soon as it is known.
pub(crate) async fn measure(bench: &Bench, wanted: &[&Spec]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for spec in wanted {
        let row = (spec.measure)(bench).await.map_err(|error| format!("{}: {error}", spec.id))?;
        report::line(&row)?;
        rows.push(row);
    }
    Ok(rows)
}
