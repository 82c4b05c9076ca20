//! Floor and value in turns, so that a busy minute hits both; medians, so that one bad round hits nothing.

use crate::{
    Result,
    bench::Bench,
    cost::{Cost, Meter},
    load::{Fired, Load, Pace, Until},
    row::Noise,
};

/// The host may take this much of the CPU before a round is measured again.
const STEAL: f64 = 10.0;
/// Rounds that are measured again, at most, in one row.
const AGAIN: usize = 3;

/// A measured round of one side.
pub(crate) struct Turn {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) cpu_ms_per_unit: f64,
    pub(crate) cost: Cost,
    pub(crate) count: u64,
}

/// All rounds of a row.
#[derive(Default)]
pub(crate) struct Turns {
    pub(crate) floor: Vec<Turn>,
    pub(crate) value: Vec<Turn>,
    pub(crate) noise: Noise,
    /// Answers of the value's side, those of rounds that do not count included.
    pub(crate) calls: u64,
}

/// One side: a load, and the processes that answer it.
pub(crate) struct Side<'a> {
    pub(crate) load: &'a Load,
    pub(crate) roots: &'a [u32],
}

impl Side<'_> {
    pub(crate) async fn turn(&self, until: Until, pace: Pace) -> Result<Turn> {
        let meter = Meter::start(self.roots)?;
        let fired = self.load.fire(until, pace).await?;
        Ok(Turn::of(&fired, meter.stop()?))
    }
}

impl Turn {
    pub(crate) fn of(fired: &Fired, cost: Cost) -> Self {
        Self {
            per_second: fired.per_second(),
            p50: fired.latencies.quantile(0.5),
            p99: fired.latencies.quantile(0.99),
            cpu_ms_per_unit: cost.cpu_ms / fired.latencies.count().max(1) as f64,
            cost,
            count: fired.latencies.count(),
        }
    }
}

impl Turns {
    /// Warms both sides up, then measures them in turns.
    pub(crate) async fn take(bench: &Bench, id: &str, floor: Side<'_>, value: Side<'_>, pace: Pace) -> Result<Self> {
        let until = Until::After(bench.round());
        let bar = bench.progress(id, bench.rounds());
        bar.set_message("warming up");
        floor.turn(Until::After(bench.round() / 2), pace).await?;
        let warm = value.turn(Until::After(bench.round() / 2), pace).await?;
        let mut turns = Self { calls: warm.count, ..Self::default() };
        let mut again = 0;
        while turns.value.len() < bench.rounds() {
            let pair = (floor.turn(until, pace).await?, value.turn(until, pace).await?);
            turns.calls += pair.1.count;
            if pair.0.cost.steal_percent.max(pair.1.cost.steal_percent) > STEAL && again < AGAIN {
                again += 1;
                continue;
            }
            bar.set_message(format!("{:.0}/s, floor {:.0}/s", pair.1.per_second, pair.0.per_second));
            bar.inc(1);
            turns.add(pair.0, pair.1);
        }
        bar.finish();
        Ok(turns)
    }

    pub(crate) fn add(&mut self, floor: Turn, value: Turn) {
        self.noise.worse(&floor.cost);
        self.noise.worse(&value.cost);
        self.floor.push(floor);
        self.value.push(value);
    }

    /// The medians of a measure: of the value, of the floor, and of the rounds' ratios.
    pub(crate) fn medians(&self, measure: impl Fn(&Turn) -> f64) -> (f64, f64, f64) {
        let value: Vec<f64> = self.value.iter().map(&measure).collect();
        let floor: Vec<f64> = self.floor.iter().map(&measure).collect();
        let ratios = value.iter().zip(&floor).map(|(value, floor)| value / floor.max(1e-9)).collect();
        (median(value), median(floor), median(ratios))
    }
}

pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        n if n % 2 == 1 => numbers[n / 2],
        n => f64::midpoint(numbers[n / 2 - 1], numbers[n / 2]),
    }
}
