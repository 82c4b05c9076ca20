//! A trace made from a seed, with the distributions that were published of Azure Functions (Shahrad et al., USENIX ATC
//! 2020), read from their plots: how often apps are called, how evenly, how long they run, what they hold.

use super::{App, Call, MEMORY, Trace, dice::Dice};

const DAY: f64 = 86_400.0;
/// Calls a day at most: what is called more often is always warm, and only makes the trace longer.
const BUSIEST: f64 = 3000.0;
/// More app-days are not made: their calls would not fit into the memory of a small machine.
pub const MOST_APP_DAYS: u64 = 70_000;

/// A quantile and its value.
type Table = [(f64, f64)];

/// Calls a day of an app.
const RATE: &Table = &[
    (0.0, 0.078),
    (0.05, 0.15),
    (0.10, 0.29),
    (0.25, 1.8),
    (0.50, 53.0),
    (0.75, 613.0),
    (0.80, 1278.0),
    (0.90, 4939.0),
    (0.95, 22_100.0),
    (1.0, 350_000.0),
];

/// The coefficient of variation of the time between an app's calls: 0 is a timer, 1 is chance, more comes in sessions.
const VARIATION: &Table = &[
    (0.0, 0.0),
    (0.20, 0.0),
    (0.25, 0.05),
    (0.40, 0.37),
    (0.50, 0.73),
    (0.60, 1.1),
    (0.70, 1.8),
    (0.75, 2.3),
    (0.80, 2.9),
    (0.90, 5.6),
    (0.95, 10.3),
    (1.0, 19.0),
];

/// Seconds an app's call takes on average, and at most.
const RUNS: &Table = &[
    (0.0, 0.012),
    (0.05, 0.028),
    (0.10, 0.062),
    (0.25, 0.22),
    (0.50, 0.93),
    (0.75, 4.2),
    (0.80, 6.4),
    (0.90, 22.7),
    (0.95, 60.0),
    (1.0, 200.0),
];
const RUNS_MOST: &Table = &[
    (0.0, 0.03),
    (0.05, 0.068),
    (0.10, 0.20),
    (0.25, 0.93),
    (0.50, 3.6),
    (0.75, 17.0),
    (0.80, 25.0),
    (0.90, 67.0),
    (0.95, 144.0),
    (1.0, 396.0),
];

/// MB on average.
const HOLDS: &Table = &[
    (0.0, 90.0),
    (0.05, 96.0),
    (0.10, 102.0),
    (0.25, 117.0),
    (0.50, 140.0),
    (0.75, 188.0),
    (0.80, 193.0),
    (0.90, 222.0),
    (0.95, 286.0),
    (1.0, 585.0),
];

/// What timers are set to, in minutes.
const TIMERS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 240.0, 360.0, 720.0, 1440.0, 10_080.0];
/// Seconds a timer may be late.
const LATE: f64 = 0.5;

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    pub seed: u64,
    pub apps: u64,
    pub days: u64,
    /// Calls take time and apps differ in memory, as they do. Else neither, as the literature compares policies.
    pub drawn: bool,
}

/// Makes the trace; says after each app how many there are.
pub fn trace(recipe: Recipe, mut tell: impl FnMut(u64)) -> Trace {
    let seconds = recipe.days as f64 * DAY;
    // each quantity has its strata in an order of its own
    let order = |n| shuffled(recipe.apps as usize, &mut Dice::new(recipe.seed, u64::MAX - n));
    let (variations, runs, holds) = (order(0), order(1), order(2));
    let stratum = |n: usize| (n as f64 + 0.5) / recipe.apps as f64;
    let mut apps = Vec::new();
    for n in 0..recipe.apps as usize {
        let mut dice = Dice::new(recipe.seed, n as u64);
        let rate = quantile(RATE, stratum(n), Scale::Log).min(BUSIEST);
        let variation = quantile(VARIATION, stratum(variations[n]), Scale::Linear);
        let mut calls: Vec<Call> =
            arrivals(rate, variation, seconds, &mut dice).into_iter().map(|at| Call { at, took: 0.0 }).collect();
        let mut memory = MEMORY;
        if recipe.drawn {
            let at = stratum(runs[n]);
            let (mean, most) = (quantile(RUNS, at, Scale::Log), quantile(RUNS_MOST, at, Scale::Log));
            for call in &mut calls {
                call.took = dice.log_normal(mean / (0.5 * SPREAD * SPREAD).exp(), SPREAD).min(most);
            }
            memory = quantile(HOLDS, stratum(holds[n]), Scale::Log);
        }
        if !calls.is_empty() {
            apps.push(App { start: 1.0, memory, calls });
        }
        tell(n as u64 + 1);
    }
    Trace { apps, seconds }
}

/// Of the times that the calls of one app take, in the logarithm.
const SPREAD: f64 = 0.5;

/// When an app is called, by how often in a day and how unevenly.
fn arrivals(rate: f64, variation: f64, until: f64, dice: &mut Dice) -> Vec<f64> {
    let mean = DAY / rate;
    match variation {
        ..0.02 => timer(mean, until, dice),
        ..0.95 => renewal(until, mean * dice.unit(), || dice.gamma(variation.powi(-2), mean)),
        ..=1.05 => {
            let first = dice.exponential(mean);
            renewal(until, first, || dice.exponential(mean))
        }
        _ => sessions(mean, f64::midpoint(variation * variation, 1.0), until, dice),
    }
}

fn timer(mean: f64, until: f64, dice: &mut Dice) -> Vec<f64> {
    let off = |period: f64| (period * 60.0 / mean).ln().abs();
    let period = TIMERS.iter().copied().min_by(|a, b| off(*a).total_cmp(&off(*b))).unwrap_or(1.0) * 60.0;
    let mut at = period * dice.unit();
    let mut calls = Vec::new();
    while at < until {
        calls.push((at + LATE * dice.unit()).min(until));
        at += period;
    }
    calls
}

fn renewal(until: f64, first: f64, mut gap: impl FnMut() -> f64) -> Vec<f64> {
    let mut calls = Vec::new();
    let mut at = first;
    while at < until {
        calls.push(at);
        at += gap();
    }
    calls
}

/// Calls come in sessions of so many on average, a few seconds apart, and more by day than by night. That is as uneven
/// as was asked for when the pauses between sessions are long.
fn sessions(mean: f64, size: f64, until: f64, dice: &mut Dice) -> Vec<f64> {
    const SWING: f64 = 0.2;
    let mut calls = Vec::new();
    let mut begin = 0.0;
    loop {
        // drawn as often as at the busiest hour, and left out by the hour
        begin += dice.exponential(mean * size / (1.0 + SWING));
        if begin >= until {
            break;
        }
        let hour = (std::f64::consts::TAU * begin / DAY).sin();
        if dice.unit() * (1.0 + SWING) > 1.0 + SWING * hour {
            continue;
        }
        let mut at = begin;
        for _ in 0..dice.geometric(size) {
            if at >= until {
                break;
            }
            calls.push(at);
            at += dice.log_normal(5.0, 1.2);
        }
    }
    calls.sort_by(f64::total_cmp);
    calls
}

#[derive(Clone, Copy)]
enum Scale {
    Linear,
    Log,
}

/// Between two rows of a table what lies between their values.
fn quantile(table: &Table, at: f64, scale: Scale) -> f64 {
    let above = table.iter().position(|(p, _)| *p >= at).unwrap_or(table.len() - 1).max(1);
    let ((p0, low), (p1, high)) = (table[above - 1], table[above]);
    let share = ((at - p0) / (p1 - p0)).clamp(0.0, 1.0);
    match scale {
        Scale::Linear => low + share * (high - low),
        Scale::Log => low * (high / low).powf(share),
    }
}

fn shuffled(n: usize, dice: &mut Dice) -> Vec<usize> {
    let mut all: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        all.swap(i, dice.index(i + 1));
    }
    all
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const RECIPE: Recipe = Recipe { seed: 42, apps: 40, days: 3, drawn: false };

    #[test]
    fn the_same_seed_makes_the_same_trace_and_another_another() {
        let first = trace(RECIPE, |_| {});
        assert_eq!(trace(RECIPE, |_| {}), first);
        assert_ne!(trace(Recipe { seed: 43, ..RECIPE }, |_| {}), first);
    }

    #[test]
    fn calls_are_in_order_and_within_the_days() {
        for drawn in [false, true] {
            let made = trace(Recipe { drawn, ..RECIPE }, |_| {});
            assert!(made.calls() > 1000 && made.apps.len() <= 40);
            for app in &made.apps {
                assert!(!app.calls.is_empty() && app.calls.is_sorted_by(|a, b| a.at <= b.at));
                assert!(app.calls.iter().all(|call| (0.0..=made.seconds).contains(&call.at)));
                assert_eq!(app.calls.iter().all(|call| call.took == 0.0), !drawn);
            }
        }
    }

    #[rstest]
    #[case::timer(0.0, 0.01)]
    #[case::even(0.5, 0.02)]
    #[case::chance(1.0, 0.05)]
    #[case::sessions(4.0, 0.8)]
    fn gaps_are_as_uneven_as_was_asked_for(#[case] variation: f64, #[case] within: f64) {
        let calls = arrivals(20.0, variation, 2000.0 * DAY, &mut Dice::new(1, 1));
        let gaps: Vec<f64> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let measured = variance.sqrt() / mean;
        assert!((measured - variation).abs() <= within, "{measured}");
        assert!((mean * 20.0 / DAY - 1.0).abs() < 0.2, "a day has {}", DAY / mean);
    }

    #[rstest]
    #[case::a_row(0.5, 53.0)]
    #[case::between_two(0.0, 0.078)]
    #[case::the_last(1.0, 350_000.0)]
    fn a_table_is_read_at_any_quantile(#[case] at: f64, #[case] value: f64) {
        assert!((quantile(RATE, at, Scale::Log) / value - 1.0).abs() < 1e-9);
    }
}
