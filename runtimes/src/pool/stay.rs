//! How long idle instances of a pool stay, and when one is started before anybody calls: what happens to the pool, told to
//! its policy. Pure: times come in.

use std::time::{Duration, Instant};

use crate::{
    config::KeepAlive,
    policy::{
        Policy, Window,
        cost_window::{Cost, CostWindow, Prices},
    },
};

/// What is assumed of an instance before one was measured.
const ASSUMED: Cost = Cost { start: 0.1, memory: 40.0 };
/// How much the newest start counts.
const NEWEST: f64 = 0.2;

pub(super) struct Stay {
    keep: KeepAlive,
    policy: CostWindow,
    prices: Prices,
    cost: Cost,
    /// Whether a start was measured.
    has_started: bool,
    was_called: bool,
    /// Since when nothing runs and nobody waits; none before the first call.
    rests: Option<Instant>,
    window: Window,
    /// What was to be started in this rest has been.
    is_ahead: bool,
}

impl Stay {
    pub(super) fn new(keep: KeepAlive, prices: Prices) -> Self {
        let mut policy = CostWindow::new(prices, ASSUMED);
        Self {
            keep,
            window: policy.window(),
            policy,
            prices,
            cost: ASSUMED,
            has_started: false,
            was_called: false,
            rests: None,
            is_ahead: false,
        }
    }

    /// Another key, for instances that live on.
    pub(super) fn keep(&mut self, keep: KeepAlive) {
        self.keep = keep;
    }

    /// Somebody asks for an instance.
    pub(super) fn called(&mut self, now: Instant) {
        if !self.is_auto() {
            return;
        }
        let gap = self.rests.take().map_or(Duration::ZERO, |rest| now.saturating_duration_since(rest));
        if std::mem::replace(&mut self.was_called, true) {
            self.policy.called_after(gap.as_secs_f64());
        }
    }

    /// Nothing runs any more. True when an instance may be due sooner than those before it were. `price`: of memory, now.
    pub(super) fn rested(&mut self, now: Instant, price: impl FnOnce() -> f64) -> bool {
        if self.rests.is_some() || !self.is_auto() {
            return false;
        }
        self.policy.price(price());
        (self.rests, self.is_ahead) = (Some(now), false);
        let before = std::mem::replace(&mut self.window, self.policy.window());
        self.window.from > 0.0 || self.window.until < before.until || before.from > 0.0
    }

    /// An instance was started for this pool.
    pub(super) fn started(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let known = if std::mem::replace(&mut self.has_started, true) { self.cost.start } else { took };
        self.cost.start = known + NEWEST * (took - known);
        self.policy.costs(self.cost);
    }

    /// An instance that came to rest holds so much.
    pub(super) fn measured(&mut self, bytes: u64) {
        self.cost.memory = bytes as f64 / 1e6;
        self.policy.costs(self.cost);
    }

    /// Bytes that another one will hold, as far as is known.
    pub(super) fn size(&self) -> u64 {
        (self.cost.memory * 1e6) as u64
    }

    /// How long starts take; none before one was measured.
    pub(super) fn start(&self) -> Option<Duration> {
        self.has_started.then(|| seconds(self.cost.start))
    }

    /// What the cold start that an idle instance spares is worth, for each MB and call.
    pub(super) fn worth(&self) -> f64 {
        self.cost.start * 1e3 / self.cost.memory.max(0.1)
    }

    pub(super) fn is_auto(&self) -> bool {
        self.keep == KeepAlive::Auto
    }

    /// When an instance ends that is idle since then.
    pub(super) fn ends(&self, since: Instant) -> Instant {
        let keep = match self.keep {
            KeepAlive::For(keep) => return since + keep,
            KeepAlive::Auto => seconds(self.window.until.max(self.prices.gap)),
        };
        let Some(rest) = self.rests.filter(|_| self.window.from > 0.0) else { return since + keep };
        if since <= rest {
            // it served, and another one is to be there for the next call
            rest
        } else if since < rest + seconds(self.window.from) {
            // an edit was tried with it
            since + seconds(self.prices.gap)
        } else {
            rest + seconds(self.window.until)
        }
    }

    /// When one is started before anybody calls, where that is to be.
    pub(super) fn starts(&self) -> Option<Instant> {
        let rest = self.rests.filter(|_| self.is_auto() && !self.is_ahead && self.window.from > 0.0)?;
        Some(rest + seconds(self.window.from))
    }

    /// Whether one is to be started now; once in a rest, and not when it would end at once.
    pub(super) fn takes_start(&mut self, now: Instant) -> bool {
        let is_due = self.starts().is_some_and(|at| at <= now);
        self.is_ahead |= is_due;
        is_due && self.rests.is_some_and(|rest| now < rest + seconds(self.window.until))
    }
}

/// Windows are at most a few days.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn usual() -> f64 {
        Prices::default().memory
    }

    /// A function that is called each so many seconds, and what is known of it in the rest after the last call.
    fn called_each(every: u32, keep: KeepAlive) -> (Stay, Instant) {
        let mut stay = Stay::new(keep, Prices::default());
        let mut now = Instant::now();
        stay.started(SECOND);
        stay.measured(140_000_000);
        for _ in 0..20 {
            now += every * SECOND;
            stay.called(now);
            stay.rested(now, usual);
        }
        (stay, now)
    }

    #[test]
    fn a_fixed_time_is_kept_to_whatever_the_calls_are_like() {
        let (mut stay, rest) = called_each(3600, KeepAlive::For(7 * SECOND));
        assert_eq!((stay.ends(rest), stay.starts()), (rest + 7 * SECOND, None));
        assert!(!stay.rested(rest, usual), "a call never wakes the keeper");
    }

    #[test]
    fn before_the_first_call_and_after_it_an_instance_stays_for_ten_minutes() {
        let mut stay = Stay::new(KeepAlive::Auto, Prices::default());
        let now = Instant::now();
        assert_eq!(stay.ends(now), now + 600 * SECOND);
        stay.called(now);
        stay.rested(now, usual);
        assert_eq!((stay.ends(now), stay.starts()), (now + 600 * SECOND, None));
    }

    #[test]
    fn what_is_called_each_hour_ends_at_once_and_is_started_once_before_the_next_call() {
        let (mut stay, rest) = called_each(3600, KeepAlive::Auto);
        assert_eq!(stay.ends(rest), rest);
        let ahead = stay.starts().unwrap();
        assert!((1800 * SECOND..3600 * SECOND).contains(&(ahead - rest)), "{:?}", ahead - rest);
        assert!(!stay.takes_start(rest + SECOND) && stay.takes_start(ahead) && !stay.takes_start(ahead));
        assert_eq!(stay.starts(), None);
        assert!(stay.ends(ahead) > rest + 3600 * SECOND, "it is there when the call comes");
        stay.called(rest + 3600 * SECOND);
        assert!(stay.ends(ahead) > rest + 3600 * SECOND, "and while it runs");
    }

    #[test]
    fn a_start_that_is_too_late_is_left_out() {
        let (mut stay, rest) = called_each(3600, KeepAlive::Auto);
        assert!(!stay.takes_start(rest + 86_400 * SECOND) && stay.starts().is_none());
    }

    #[test]
    fn an_edit_in_a_long_rest_leaves_its_instance_for_a_minute() {
        let (stay, rest) = called_each(3600, KeepAlive::Auto);
        assert_eq!(stay.ends(rest + 10 * SECOND), rest + 70 * SECOND);
    }

    #[test]
    fn who_starts_in_no_time_is_kept_for_a_minute_all_the_same() {
        let (mut stay, rest) = called_each(20, KeepAlive::Auto);
        for _ in 0..100 {
            stay.started(Duration::ZERO);
        }
        stay.called(rest + SECOND);
        stay.rested(rest + SECOND, usual);
        assert_eq!(stay.ends(rest + SECOND), rest + 61 * SECOND);
    }
}
