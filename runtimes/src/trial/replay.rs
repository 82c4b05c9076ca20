//! A trace replayed through a policy, and what that would have cost.
//!
//! One instance per app: calls that overlap find it busy, which no keep-alive can help, and count as warm.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{App, Trace};
use crate::policy::{
    Policy,
    cost_window::{Cost, CostWindow, Prices},
    fixed::Fixed,
    greedy_dual::GreedyDual,
    hybrid::Hybrid,
};

/// A policy with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Contender {
    Fixed {
        minutes: f64,
    },
    Hybrid,
    /// Keeps what fits into this share of what fixed ten minutes hold on average.
    GreedyDual {
        share: f64,
    },
    CostWindow(Prices),
}

/// What a policy cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    pub calls: u64,
    pub cold: u64,
    /// Starts before anybody called.
    pub prewarmed: u64,
    /// Seconds that calls waited for cold starts, all together.
    pub waited: f64,
    /// Seconds that instances were there and did nothing, and the same times MB.
    pub idle: f64,
    pub idle_memory: f64,
    /// Of each app which share of its calls was cold; ascending when all is counted.
    shares: Vec<f64>,
}

impl Tally {
    pub fn cold_share(&self) -> f64 {
        self.cold as f64 / (self.calls as f64).max(1.0)
    }

    /// So many of the apps (0.5: half) have at most this share of cold calls.
    pub fn app_share(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.shares.len() as f64).ceil() as usize;
        self.shares.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The share of apps of which each call was cold.
    pub fn always_cold(&self) -> f64 {
        self.shares.iter().filter(|share| **share >= 1.0).count() as f64 / (self.shares.len() as f64).max(1.0)
    }

    fn add(&mut self, app: &App, cold: u64, prewarmed: u64, idle: f64) {
        self.calls += app.calls.len() as u64;
        self.cold += cold;
        self.prewarmed += prewarmed;
        self.waited += cold as f64 * app.start;
        self.idle += idle;
        self.idle_memory += idle * app.memory;
        self.shares.push(cold as f64 / app.calls.len() as f64);
    }
}

/// Replays the trace; says after each app how many are done.
pub fn replay(trace: &Trace, contender: Contender, mut tell: impl FnMut(u64)) -> Tally {
    let fixed = |minutes: f64| move |_: &App| Fixed { seconds: 60.0 * minutes };
    let mut tally = match contender {
        Contender::Fixed { minutes } => apart(trace, fixed(minutes), tell),
        Contender::Hybrid => apart(trace, |_| Hybrid::default(), tell),
        Contender::CostWindow(prices) => {
            let new = |app: &App| CostWindow::new(prices, Cost { start: app.start, memory: app.memory });
            apart(trace, new, tell)
        }
        Contender::GreedyDual { share } => {
            let ten = apart(trace, fixed(10.0), |_| {});
            let tally = together(trace, share * ten.idle_memory / trace.seconds.max(1.0));
            tell(trace.apps.len() as u64);
            tally
        }
    };
    tally.shares.sort_by(f64::total_cmp);
    tally
}

/// Each app with a policy of its own.
fn apart<P: Policy>(trace: &Trace, new: impl Fn(&App) -> P, mut tell: impl FnMut(u64)) -> Tally {
    let mut tally = Tally::default();
    for (n, app) in trace.apps.iter().enumerate() {
        alone(app, trace.seconds, new(app), &mut tally);
        tell(n as u64 + 1);
    }
    tally
}

/// An app whose instance depends on nobody else's.
fn alone(app: &App, seconds: f64, mut policy: impl Policy, tally: &mut Tally) {
    let (mut cold, mut prewarmed, mut idle) = (0, 0, 0.0);
    let mut last: Option<f64> = None;
    for call in &app.calls {
        match last {
            None => cold += 1,
            Some(end) if call.at < end => policy.called_after(0.0),
            Some(end) => {
                let (gap, window) = (call.at - end, policy.window());
                cold += u64::from(!window.holds(gap));
                prewarmed += u64::from(window.starts_within(gap));
                idle += window.idle(gap);
                policy.called_after(gap);
            }
        }
        let end = call.at + call.took;
        last = Some(last.map_or(end, |last| last.max(end)));
    }
    if let Some(rest) = last.map(|end| seconds - end).filter(|rest| *rest > 0.0) {
        let window = policy.window();
        prewarmed += u64::from(window.starts_within(rest));
        idle += window.idle(rest);
    }
    tally.add(app, cold, prewarmed, idle);
}

/// What an app has in the memory that all share.
#[derive(Clone, Default)]
struct Held {
    is_there: bool,
    /// When it became idle, or will.
    free: f64,
    cold: u64,
    idle: f64,
}

/// Apps that are kept until memory is short.
fn together(trace: &Trace, budget: f64) -> Tally {
    let mut tally = Tally::default();
    let mut policy = GreedyDual::default();
    let mut held = vec![Held::default(); trace.apps.len()];
    let mut used = 0.0;
    // times are not negative, so their bits are in their order
    let next = |app: usize, n: usize| Some(Reverse((trace.apps[app].calls.get(n)?.at.to_bits(), app, n)));
    let mut queue: BinaryHeap<_> = (0..trace.apps.len()).filter_map(|app| next(app, 0)).collect();
    while let Some(Reverse((at, app, n))) = queue.pop() {
        let (at, this) = (f64::from_bits(at), &trace.apps[app]);
        queue.extend(next(app, n + 1));
        if held[app].is_there {
            held[app].idle += (at - held[app].free).max(0.0);
        } else {
            while used + this.memory > budget {
                let Some(gone) = policy.evict(|other| held[other].free <= at) else { break };
                held[gone].idle += at - held[gone].free;
                held[gone].is_there = false;
                used -= trace.apps[gone].memory;
            }
            used += this.memory;
            held[app].is_there = true;
            held[app].cold += 1;
        }
        held[app].free = held[app].free.max(at + this.calls[n].took);
        policy.called(app, this.start, this.memory);
    }
    for (app, held) in trace.apps.iter().zip(held) {
        let rest = if held.is_there { (trace.seconds - held.free).max(0.0) } else { 0.0 };
        tally.add(app, held.cold, 0, held.idle + rest);
    }
    tally
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::trial::{
        Call, MEMORY,
        synthetic::{self, Recipe},
    };

    fn app(calls: &[(f64, f64)]) -> App {
        let calls = calls.iter().map(|&(at, took)| Call { at, took }).collect();
        App { start: 2.0, memory: MEMORY, calls }
    }

    fn one(calls: &[(f64, f64)]) -> Trace {
        Trace { apps: vec![app(calls)], seconds: 10_000.0 }
    }

    const TEN: Contender = Contender::Fixed { minutes: 10.0 };

    #[rstest]
    #[case::once(&[(0.0, 0.0)], 1, 600.0)]
    #[case::soon_again(&[(0.0, 0.0), (100.0, 0.0)], 1, 700.0)]
    #[case::too_late(&[(0.0, 0.0), (700.0, 0.0)], 2, 1200.0)]
    #[case::time_that_it_runs_is_not_idle(&[(0.0, 500.0), (700.0, 100.0)], 1, 800.0)]
    #[case::two_at_once(&[(0.0, 500.0), (100.0, 10.0)], 1, 600.0)]
    #[case::what_is_idle_at_the_end(&[(9900.0, 0.0)], 1, 100.0)]
    #[case::what_runs_beyond_the_end(&[(9900.0, 500.0)], 1, 0.0)]
    fn cold_starts_and_idle_time_are_counted(#[case] calls: &[(f64, f64)], #[case] cold: u64, #[case] idle: f64) {
        let tally = replay(&one(calls), TEN, |_| {});
        assert_eq!((tally.calls, tally.cold, tally.idle), (calls.len() as u64, cold, idle));
        assert_eq!((tally.waited, tally.idle_memory), (2.0 * cold as f64, idle * MEMORY));
    }

    #[test]
    fn a_start_before_the_call_is_counted_as_one_and_saves_a_cold_start() {
        let calls: Vec<(f64, f64)> = (0..100).map(|n| (f64::from(n) * 3600.0, 0.0)).collect();
        let trace = Trace { apps: vec![app(&calls)], seconds: 360_000.0 };
        let (fixed, ours) =
            (replay(&trace, TEN, |_| {}), replay(&trace, Contender::CostWindow(Prices::default()), |_| {}));
        assert_eq!((fixed.cold, fixed.prewarmed), (100, 0));
        assert!(ours.cold < 10 && ours.prewarmed > 90, "{ours:?}");
    }

    #[test]
    fn who_is_always_cold_is_told_from_who_is_often() {
        let often = app(&[(0.0, 0.0), (10.0, 0.0), (700.0, 0.0), (710.0, 0.0)]);
        let apps = vec![app(&[(0.0, 0.0)]), often, app(&[(0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (3.0, 0.0)])];
        let tally = replay(&Trace { apps, seconds: 10_000.0 }, TEN, |_| {});
        assert_eq!((tally.app_share(0.3), tally.app_share(0.5), tally.app_share(0.75)), (0.25, 0.5, 1.0));
        assert!((tally.always_cold() - 1.0 / 3.0).abs() < 1e-9 && (tally.cold_share() - 4.0 / 9.0).abs() < 1e-9);
    }

    #[test]
    fn when_memory_is_short_the_one_that_is_called_less_goes() {
        // on average ten minutes of each hold two thirds of both
        let often: Vec<(f64, f64)> = (0..60).map(|n| (f64::from(n) * 150.0, 0.0)).collect();
        let trace = Trace { apps: vec![app(&often), app(&[(1000.0, 0.0), (5000.0, 0.0)])], seconds: 9600.0 };
        let share = MEMORY * 9600.0 / replay(&trace, TEN, |_| {}).idle_memory;
        let tight = replay(&trace, Contender::GreedyDual { share: share * 1.01 }, |_| {});
        assert!(tight.cold >= 4, "one of two has room: {tight:?}");
        let wide = replay(&trace, Contender::GreedyDual { share: 2.0 * share * 1.01 }, |_| {});
        assert_eq!(wide.cold, 2, "both have room");
        assert!(tight.idle_memory <= MEMORY * 9600.0 * 1.001, "it holds no more than it may");
    }

    #[test]
    fn ours_has_a_quarter_of_the_cold_starts_of_ten_minutes_and_holds_less() {
        let trace = synthetic::trace(Recipe { seed: 42, apps: 120, days: 4, drawn: false }, |_| {});
        let (ten, ours) =
            (replay(&trace, TEN, |_| {}), replay(&trace, Contender::CostWindow(Prices::default()), |_| {}));
        assert_eq!((ten.calls, ours.calls), (trace.calls() as u64, trace.calls() as u64));
        let (cold, memory) = (ours.cold as f64 / ten.cold as f64, ours.idle_memory / ten.idle_memory);
        assert!(cold < 0.3 && memory < 1.05, "{cold:.3}x the cold starts, {memory:.3}x the memory");
    }
}
