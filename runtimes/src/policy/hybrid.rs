//! The hybrid histogram (Shahrad et al., "Serverless in the Wild", USENIX ATC 2020): a histogram of the gaps between
//! calls, a forecast where most gaps are longer than it reaches, a long fixed time where it says nothing.
//!
//! What the paper leaves open is chosen so that it does best: two gaps before anything is concluded from them, the forecast
//! where more than half of them are too long. It is the median of the last twelve, where the paper has an ARIMA model.

use std::collections::VecDeque;

use super::{Policy, Window};

/// Seconds.
const BIN: f64 = 60.0;
/// Four hours of them.
const BINS: usize = 240;
const REACH: f64 = BIN * BINS as f64;
const ENOUGH: u32 = 2;
const FORECAST_OF: usize = 12;
/// The gaps are concentrated enough to go by when their counts vary as much as this.
const REPRESENTATIVE: f64 = 2.0;
const MARGIN: f64 = 0.1;
const FORECAST_MARGIN: f64 = 0.15;

#[derive(Debug, Clone)]
pub struct Hybrid {
    bins: Box<[u32; BINS]>,
    /// In the histogram.
    within: u32,
    /// Longer than it reaches.
    beyond: u32,
    squares: f64,
    /// The last ones beyond.
    longest: VecDeque<f64>,
}

impl Default for Hybrid {
    fn default() -> Self {
        Self { bins: Box::new([0; BINS]), within: 0, beyond: 0, squares: 0.0, longest: VecDeque::new() }
    }
}

impl Hybrid {
    /// How much the counts of the bins vary, over their mean.
    fn variation(&self) -> f64 {
        let mean = f64::from(self.within) / BINS as f64;
        let variance = (self.squares / BINS as f64 - mean * mean).max(0.0);
        if mean > 0.0 { variance.sqrt() / mean } else { 0.0 }
    }

    /// The first bin at whose end this share of the gaps is over.
    fn percentile(&self, share: f64) -> usize {
        let enough = share * f64::from(self.within);
        let mut sum = 0.0;
        self.bins
            .iter()
            .position(|&count| {
                sum += f64::from(count);
                sum >= enough && sum > 0.0
            })
            .unwrap_or(BINS - 1)
    }

    fn forecast(&self) -> f64 {
        let mut last: Vec<f64> = self.longest.iter().copied().collect();
        last.sort_by(f64::total_cmp);
        let half = last.len() / 2;
        if last.len() % 2 == 1 { last[half] } else { f64::midpoint(last[half - 1], last[half]) }
    }
}

impl Policy for Hybrid {
    fn called_after(&mut self, gap: f64) {
        if gap >= REACH {
            self.beyond += 1;
            if self.longest.len() == FORECAST_OF {
                self.longest.pop_front();
            }
            self.longest.push_back(gap);
            return;
        }
        let bin = &mut self.bins[(gap / BIN) as usize];
        self.squares += 2.0 * f64::from(*bin) + 1.0;
        *bin += 1;
        self.within += 1;
    }

    fn window(&mut self) -> Window {
        let seen = self.within + self.beyond;
        if seen < ENOUGH {
            return Window::keep(REACH);
        }
        if self.beyond > seen / 2 {
            let next = self.forecast();
            return Window { from: (1.0 - FORECAST_MARGIN) * next, until: (1.0 + FORECAST_MARGIN) * next };
        }
        if self.variation() < REPRESENTATIVE {
            return Window::keep(REACH);
        }
        let head = self.percentile(0.05) as f64 * BIN;
        let tail = (self.percentile(0.99) + 1) as f64 * BIN;
        Window { from: (1.0 - MARGIN) * head, until: (1.0 + MARGIN) * tail }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(gaps: impl IntoIterator<Item = f64>) -> Hybrid {
        let mut policy = Hybrid::default();
        gaps.into_iter().for_each(|gap| policy.called_after(gap));
        policy
    }

    #[test]
    fn too_little_is_known_of_a_new_function_to_end_it_early() {
        assert_eq!(after([60.0]).window(), Window::keep(REACH));
    }

    #[test]
    fn who_calls_each_half_hour_finds_an_instance_that_was_started_for_it() {
        let window = after([1800.0; 20]).window();
        assert_eq!(window, Window { from: 0.9 * 1800.0, until: 1.1 * 1860.0 });
    }

    #[test]
    fn gaps_beyond_the_histogram_are_forecast() {
        let window = after([86_400.0; 12]).window();
        assert_eq!(window, Window { from: 0.85 * 86_400.0, until: 1.15 * 86_400.0 });
    }

    #[test]
    fn gaps_that_are_all_over_the_histogram_say_nothing() {
        let gaps = (0..BINS).map(|bin| bin as f64 * BIN);
        assert_eq!(after(gaps).window(), Window::keep(REACH));
    }

    proptest! {
        #[test]
        fn a_window_has_a_length_whatever_came(gaps in prop::collection::vec(0.0..200_000.0, 0..100)) {
            let policy = after(gaps);
            let squares: f64 = policy.bins.iter().map(|&count| f64::from(count).powi(2)).sum();
            prop_assert!((squares - policy.squares).abs() < 1e-6, "kept as it is counted");
            let window = policy.clone().window();
            prop_assert!(window.from >= 0.0 && window.until > window.from);
            prop_assert!(policy.longest.len() <= FORECAST_OF);
        }
    }
}
