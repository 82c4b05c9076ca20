//! Whether and when to try again: a pure decision. The clock and the dice are parameters.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a function's failed deliveries are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub attempts: u32,
    /// Wait before the second attempt; doubles from there.
    pub wait: Duration,
    /// The longest wait.
    pub max_wait: Duration,
    /// No attempt begins later than this after the event was accepted.
    pub max_age: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            wait: Duration::from_secs(1),
            max_wait: Duration::from_mins(5),
            max_age: Duration::from_hours(6),
        }
    }
}

/// So many workers vanished while they ran one delivery that it is taken for what ends them.
pub const LOST_LIMIT: u32 = 10;
/// Wait before the third attempt when the first two were lost; doubles from there.
const LOST_WAIT: Duration = Duration::from_secs(2);
/// The longest wait after a loss.
const LOST_MAX_WAIT: Duration = Duration::from_mins(5);

/// Wait of a delivery that began and could not be run, as no instance was there for it.
const NO_CAPACITY: Duration = Duration::from_secs(1);

/// How long a delivery waits that was taken back for want of an instance.
pub fn without_capacity(dice: f64) -> Duration {
    spread(NO_CAPACITY, dice)
}

/// Decides after the worker of a delivery vanished for the `lost`th time (from 1): how long to wait, or none when it is
/// enough. The first loss is nobody's fault and is made good at once; what may be the cause of the others comes back
/// later and later, spread out, so that everything else gets done in between.
pub fn after_loss(lost: u32, dice: f64) -> Option<Duration> {
    match lost {
        0 | 1 => Some(Duration::ZERO),
        LOST_LIMIT.. => None,
        _ => Some(spread(doubled(LOST_WAIT, lost - 1).min(LOST_MAX_WAIT), dice)),
    }
}

/// The wait before attempt `n + 1`, doubled with each.
fn doubled(wait: Duration, n: u32) -> Duration {
    wait.saturating_mul(1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX))
}

/// Spreads a wait over its upper half, so that what failed together does not come back together.
fn spread(wait: Duration, dice: f64) -> Duration {
    wait.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0))
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this long.
    After(Duration),
    /// All attempts are used up.
    Exhausted,
    /// Another attempt would begin later than `max_age`.
    TooOld,
}

impl RetryPolicy {
    /// Decides after attempt number `n` (from 1) of a delivery of this `age` failed; `dice` in 0..1 spreads the wait.
    pub fn after(&self, n: u32, age: Duration, dice: f64) -> Next {
        if n >= self.attempts {
            return Next::Exhausted;
        }
        let wait = spread(doubled(self.wait, n).min(self.max_wait), dice);
        if age + wait > self.max_age { Next::TooOld } else { Next::After(wait) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 5,
        wait: Duration::from_secs(1),
        max_wait: Duration::from_secs(5),
        max_age: Duration::from_mins(1),
    };

    #[rstest]
    #[case::first_wait_is_the_configured_one(1, 0, 1.0, Next::After(Duration::from_secs(1)))]
    #[case::it_doubles(2, 0, 1.0, Next::After(Duration::from_secs(2)))]
    #[case::up_to_max_wait(4, 0, 1.0, Next::After(Duration::from_secs(5)))]
    #[case::jitter_takes_off_up_to_a_half(1, 0, 0.0, Next::After(Duration::from_millis(500)))]
    #[case::the_last_attempt_is_the_last(5, 0, 1.0, Next::Exhausted)]
    #[case::too_old_to_try_again(1, 60, 1.0, Next::TooOld)]
    fn after_a_failure(#[case] n: u32, #[case] age: u64, #[case] dice: f64, #[case] expect: Next) {
        assert_eq!(POLICY.after(n, Duration::from_secs(age), dice), expect);
    }

    #[test]
    fn a_loss_is_made_good_at_once_and_the_next_ones_later_and_later_until_it_is_enough() {
        assert_eq!(after_loss(1, 1.0), Some(Duration::ZERO));
        assert_eq!([2, 3, 4].map(|lost| after_loss(lost, 1.0)), [2, 4, 8].map(|s| Some(Duration::from_secs(s))));
        assert_eq!(after_loss(LOST_LIMIT, 1.0), None);
    }

    #[test]
    fn a_storm_of_kills_that_ends_within_four_minutes_cannot_quarantine_anything() {
        let least: Duration = (1..LOST_LIMIT).filter_map(|lost| after_loss(lost, 0.0)).sum();
        assert!(least >= Duration::from_mins(4), "{least:?}");
    }

    #[test]
    fn a_thousand_failures_do_not_overflow_the_wait() {
        let policy = RetryPolicy { attempts: 2000, ..POLICY };
        assert_eq!(policy.after(1000, Duration::ZERO, 1.0), Next::After(policy.max_wait));
    }
}
