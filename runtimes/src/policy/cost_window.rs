//! The cost window, fnbus' own: an instance is there where the cold starts that it saves are worth more than the memory
//! it holds meanwhile.
//!
//! Of each function it knows how long the gaps between calls were, counted in bins that grow with the gap and forget what
//! is long ago. From that follows what it gains to be there over any stretch of time after a call, and the best stretch
//! is the window: no thresholds, and one price for all functions.

use std::sync::LazyLock;

use super::{Policy, Window};

/// Bins grow by this, from one second to two days.
const RATIO: f64 = 1.25;
const BINS: usize = 56;
/// What a new gap weighs against one that was seen before it.
const GROWTH: f32 = 1.0 / 0.98;
/// What is assumed of a function weighs as much as so many gaps.
const ASSUMED: f64 = 2.0;
/// Half of the gaps are assumed to be longer than this.
const ASSUMED_MEDIAN: f64 = 1800.0;
/// A function that was called once is likely to be called again: somebody tries it.
const FIRST: f64 = 600.0;
/// The median app's, in MB: the price is that of so much memory.
const UNIT: f64 = 140.0;
/// Windows are a little wider than what was seen.
const MARGIN: f64 = 0.1;
/// A start that is of no use costs this share of what a start saves that is of use: it takes a core, but nobody waits.
const START_SHARE: f64 = 0.02;
/// A busy function decides anew once in so many calls, as long as the gaps are shorter than this.
const BUSY_CALLS: u32 = 16;
const BUSY_GAP: f64 = 10.0;

/// Where bins begin and end.
static EDGES: LazyLock<[f64; BINS + 1]> =
    LazyLock::new(|| std::array::from_fn(|i| if i == 0 { 0.0 } else { RATIO.powi(i as i32 - 1) }));

/// What share of the gaps is assumed to be in each bin.
static PRIOR: LazyLock<[f64; BINS]> = LazyLock::new(|| {
    let before = |x: f64| x / (x + ASSUMED_MEDIAN);
    std::array::from_fn(|i| before(EDGES[i + 1]) - before(EDGES[i]))
});

/// What holds for all functions of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Of a second of the memory of a median app (140 MB), in seconds that somebody waits.
    pub memory: f64,
    /// An instance is not ended to be started again within this many seconds: starts cost CPU.
    pub gap: f64,
}

impl Default for Prices {
    fn default() -> Self {
        Self { memory: 3.5e-4, gap: 60.0 }
    }
}

/// What an instance of a function costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// How many seconds a call waits for a cold start.
    pub start: f64,
    /// MB.
    pub memory: f64,
}

/// The state of one function: about 300 bytes.
#[derive(Debug, Clone)]
pub struct CostWindow {
    prices: Prices,
    cost: Cost,
    /// How many gaps fell into each bin. A new one weighs more than those before it, which is the same as if those had
    /// been made less.
    bins: [f32; BINS],
    /// All gaps, the longest too.
    total: f32,
    /// What the newest gap weighs.
    weight: f32,
    called_again: bool,
    /// Calls since the window was chosen; none: it has to be.
    chosen: Option<(Window, u32)>,
}

impl CostWindow {
    pub fn new(prices: Prices, cost: Cost) -> Self {
        Self { prices, cost, bins: [0.0; BINS], total: 0.0, weight: 1.0, called_again: false, chosen: None }
    }

    /// Starts were measured anew.
    pub fn costs(&mut self, cost: Cost) {
        if cost != self.cost {
            (self.cost, self.chosen) = (cost, None);
        }
    }

    /// Memory is worth so much now. Small changes change no window.
    pub fn price(&mut self, memory: f64) {
        if (memory / self.prices.memory).ln().abs() > 0.1 {
            (self.prices.memory, self.chosen) = (memory, None);
        }
    }

    /// The stretch that gains most. One pass: the best begin for each end is the best of those before it.
    fn best(&self) -> Window {
        let Prices { memory: price, gap } = self.prices;
        let Cost { start, memory } = self.cost;
        let rent = price * memory / UNIT;
        let in_vain = START_SHARE * start;
        let assumed = ASSUMED * f64::from(self.weight);
        let all = f64::from(self.total) + assumed;

        let (mut gained, mut left) = (0.0, 1.0);
        // (what it costs to begin there, where)
        let mut begin = (0.0, 0);
        let mut best = (0.0, 0, 0);
        for i in 0..BINS {
            if i > 0 && EDGES[i] >= gap {
                let cost = gained + in_vain * left;
                if cost < begin.0 {
                    begin = (cost, i);
                }
            }
            let share = (f64::from(self.bins[i]) + assumed * PRIOR[i]) / all;
            let after = left - share;
            gained += start * share - rent * (EDGES[i + 1] - EDGES[i]) * f64::midpoint(left, after);
            left = after;
            if gained - begin.0 > best.0 {
                best = (gained - begin.0, begin.1, i + 1);
            }
        }
        let (_, from, until) = best;
        let ready = (1.0 - MARGIN) * EDGES[from] - start;
        Window { from: if from == 0 { 0.0 } else { ready.max(0.0) }, until: (1.0 + MARGIN) * EDGES[until] }
    }
}

impl Policy for CostWindow {
    fn called_after(&mut self, gap: f64) {
        self.weight *= GROWTH;
        if self.weight > 1e6 {
            let less = self.weight;
            self.bins.iter_mut().for_each(|count| *count /= less);
            (self.total, self.weight) = (self.total / less, 1.0);
        }
        if let Some(bin) = self.bins.get_mut(bin_of(gap)) {
            *bin += self.weight;
        }
        self.total += self.weight;
        self.called_again = true;
        self.chosen = self.chosen.filter(|(_, calls)| gap < BUSY_GAP && *calls + 1 < BUSY_CALLS);
        if let Some((_, calls)) = &mut self.chosen {
            *calls += 1;
        }
    }

    fn window(&mut self) -> Window {
        if !self.called_again {
            return Window::keep(FIRST);
        }
        let (window, calls) = self.chosen.unwrap_or_else(|| (self.best(), 0));
        self.chosen = Some((window, calls));
        window
    }
}

fn bin_of(gap: f64) -> usize {
    if gap < 1.0 { 0 } else { 1 + (gap.ln() / RATIO.ln()) as usize }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    const COST: Cost = Cost { start: 1.0, memory: UNIT };

    fn after(gaps: impl IntoIterator<Item = f64>) -> CostWindow {
        let mut policy = CostWindow::new(Prices::default(), COST);
        gaps.into_iter().for_each(|gap| policy.called_after(gap));
        policy
    }

    /// What any window of whole bins gains, by its definition.
    fn gains(policy: &CostWindow) -> impl Fn(usize, usize) -> f64 {
        let (start, assumed) = (policy.cost.start, ASSUMED * f64::from(policy.weight));
        let all = f64::from(policy.total) + assumed;
        let shares: Vec<f64> = (0..BINS).map(|i| (f64::from(policy.bins[i]) + assumed * PRIOR[i]) / all).collect();
        let left: Vec<f64> = (0..=BINS).map(|i| 1.0 - shares[..i].iter().sum::<f64>()).collect();
        let rent = policy.prices.memory * policy.cost.memory / UNIT;
        let held = |i: usize| rent * (EDGES[i + 1] - EDGES[i]) * f64::midpoint(left[i], left[i + 1]);
        let bins: Vec<f64> = (0..BINS).map(|i| start * shares[i] - held(i)).collect();
        move |from, until| {
            let in_vain = if from > 0 { START_SHARE * start * left[from] } else { 0.0 };
            bins[from..until].iter().sum::<f64>() - in_vain
        }
    }

    #[test]
    fn a_function_that_was_called_once_is_kept_for_ten_minutes() {
        assert_eq!(after([]).window(), Window::keep(FIRST));
    }

    #[test]
    fn one_that_is_called_each_minute_stays() {
        let window = after([60.0; 50]).window();
        assert!(window.from == 0.0 && window.holds(60.0) && window.until < 1800.0, "{window:?}");
    }

    #[rstest]
    #[case::hour(3600.0)]
    #[case::two_hours(7200.0)]
    fn one_that_is_called_each(#[case] gap: f64) {
        let window = after([gap; 50]).window();
        assert!(window.holds(gap) && window.from > gap / 2.0, "ends, and is started before the call: {window:?}");
    }

    #[test]
    fn one_whose_start_costs_nothing_is_not_kept() {
        let mut policy = after([60.0; 50]);
        policy.costs(Cost { start: 0.0, ..COST });
        assert_eq!(policy.window(), Window::NOTHING);
    }

    #[test]
    fn the_larger_one_is_kept_for_less_long() {
        let gaps = || (0..200).map(|n| f64::from(n * 37 % 200) * 30.0);
        let mut large = after(gaps());
        large.costs(Cost { memory: 10.0 * UNIT, ..COST });
        let (usual, large) = (after(gaps()).window(), large.window());
        assert!(large.until < usual.until, "{large:?} {usual:?}");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut policy = after([3600.0; 400]);
        assert!(!policy.window().holds(30.0));
        (0..200).for_each(|_| policy.called_after(30.0));
        let window = policy.window();
        assert!(window.holds(30.0) && window.until < 600.0, "{window:?}");
    }

    #[test]
    fn the_state_of_a_function_is_small() {
        assert!(size_of::<CostWindow>() <= 336, "{}", size_of::<CostWindow>());
    }

    fn gap() -> impl Strategy<Value = f64> {
        prop_oneof![0.0..5.0, 0.0..600.0, 0.0..10_000.0, 0.0..400_000.0]
    }

    proptest! {
        #[test]
        fn no_other_window_gains_more(
            gaps in prop::collection::vec(gap(), 1..80),
            start in 0.001..5.0,
            memory in 1.0..1000.0,
            price in 1e-6..1e-2,
        ) {
            let prices = Prices { memory: price, gap: 60.0 };
            let mut policy = CostWindow::new(prices, Cost { start, memory });
            for gap in gaps {
                policy.called_after(gap);
            }
            let begins = (0..BINS).filter(|&i| i == 0 || EDGES[i] >= prices.gap);
            let gain = gains(&policy);
            let all = begins.flat_map(|from| (from + 1..=BINS).map(move |until| (from, until)));
            let best = all.map(|(from, until)| gain(from, until)).fold(0.0, f64::max);
            let window = policy.best();
            let edge = |at: f64| EDGES.iter().position(|edge| (edge - at).abs() < 1e-6 * at.max(1.0)).unwrap();
            let chosen = match window {
                Window::NOTHING => 0.0,
                Window { from: 0.0, until } => gain(0, edge(until / 1.1)),
                Window { from, until } => gain(edge((from + start) / 0.9), edge(until / 1.1)),
            };
            prop_assert!((chosen - best).abs() < 1e-6, "{window:?} gains {chosen}, another one {best}");
        }

        #[test]
        fn counts_stay_sound_over_any_number_of_calls(gaps in prop::collection::vec(gap(), 0..3000)) {
            let policy = after(gaps);
            prop_assert!(policy.weight.is_finite() && policy.weight <= 1e6 * GROWTH);
            let within: f32 = policy.bins.iter().sum();
            prop_assert!(within <= policy.total * 1.001 && policy.total <= 51.0 * policy.weight, "{}", policy.total);
            let window = policy.clone().window();
            prop_assert!(window.from >= 0.0 && (window.until > window.from || window == Window::NOTHING));
        }
    }
}
