//! Calls that find no instance: a function that is called again only when its instance has expired and its process is
//! gone. The whole request is measured, over HTTP, and nothing is subtracted.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::time::sleep;

use super::small;
use crate::{
    Result,
    bench::Bench,
    code::Code,
    cost::{Cost, Meter},
    histogram::Histogram,
    load::{Connection, Load},
    node::{Node, Project},
    row::Noise,
};

/// Cold calls of one kind, and their floor.
#[derive(Default)]
pub(super) struct Colds {
    pub(super) value: Histogram,
    pub(super) floor: Histogram,
    /// Of the node's whole tree, the processes that have ended included, and what it did between the calls.
    pub(super) cpu_ms: f64,
}

/// A function whose instances expire at once.
pub(super) struct Cold {
    pub(super) node: Node,
    load: Load,
    /// Processes that stay: those that know no function yet, or have loaded one and run nothing.
    stays: usize,
    /// As the log writes it: 1 where the runtime was up, 2 where nothing was.
    pub(super) kind: i64,
}

impl Cold {
    pub(super) async fn start(bench: &Bench, code: Code<'_>) -> Result<Self> {
        let config = small::config(code, "concurrency = 1\nkeep_alive = \"1ms\"\n");
        let (node, _) = Project::new(bench, &[("small", code)], &config)?.start().await?;
        let load = small::load(&node, code, 1);
        let stays = small::stays(code);
        node.deployed(1, Instant::now()).await?;
        Ok(Self { node, load, stays, kind: if stays > 0 { 1 } else { 2 } })
    }

    /// Calls and floors in turns.
    pub(super) async fn measure(
        self,
        calls: usize,
        bar: &ProgressBar,
        noise: &mut Noise,
        mut floor: impl AsyncFnMut() -> Result<Duration>,
        before: impl AsyncFn(&Node) -> Result<()>,
    ) -> Result<Colds> {
        let mut colds = Colds::default();
        let mut connection = Connection::open(self.load.address).await?;
        let whole = Meter::start(&[self.node.id()])?;
        for _ in 0..calls {
            colds.floor.record(floor().await?);
            self.node.rests(self.stays).await?;
            before(&self.node).await?;
            let begun = Instant::now();
            let (status, body) = connection.exchange(&self.load.request).await?;
            colds.value.record(begun.elapsed());
            self.load.expected.check(status, body)?;
            bar.inc(1);
        }
        let cost: Cost = whole.stop()?;
        colds.cpu_ms = cost.cpu_ms;
        noise.worse(&cost);
        self.check(calls).await?;
        Ok(colds)
    }

    /// Every call was a cold one.
    async fn check(&self, calls: usize) -> Result<()> {
        let log = self.node.log()?;
        let mut counted = (0, 0);
        // the last is written a moment later
        for _ in 0..40 {
            counted = log.query_row(
                "SELECT count(*), count(*) FILTER (WHERE cold = ?1) FROM attempt WHERE outcome = 'ok'",
                [self.kind],
                |row| Ok((row.get::<_, usize>(0)?, row.get::<_, usize>(1)?)),
            )?;
            if counted == (calls, calls) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(format!("of {calls} calls {} are in the log and {} were cold", counted.0, counted.1).into())
    }
}
