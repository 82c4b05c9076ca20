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
    /// Decides after attempt number `n` (from 1) of a delivery of this `age` failed. `dice` in 0..1 spreads the
    /// wait over its upper half, so that what failed together does not come back together.
    pub fn after(&self, n: u32, age: Duration, dice: f64) -> Next {
        if n >= self.attempts {
            return Next::Exhausted;
        }
        let doubled = self.wait.saturating_mul(1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX));
        let full = doubled.min(self.max_wait);
        let wait = full.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0));
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
    fn a_thousand_failures_do_not_overflow_the_wait() {
        let policy = RetryPolicy { attempts: 2000, ..POLICY };
        assert_eq!(policy.after(1000, Duration::ZERO, 1.0), Next::After(policy.max_wait));
    }
}
