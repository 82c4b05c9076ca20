//! When somebody sets the clock: seen by a clock that nobody can set.
//!
//! The time of a retry is a time of the wall, because it has to survive the node. When the wall clock is set while the node
//! runs, those times are moved with it, so that a retry in a second stays one.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

/// A difference that no clock drifts within a sweep.
const SET: TimeDelta = TimeDelta::seconds(2);

/// Both clocks, as they stood together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    wall: DateTime<Utc>,
    steady: Instant,
}

impl Clocks {
    pub(crate) fn new(wall: DateTime<Utc>, steady: Instant) -> Self {
        Self { wall, steady }
    }

    /// How far the wall clock was set since the last look, if it was.
    pub(crate) fn jumped(&mut self, wall: DateTime<Utc>, steady: Instant) -> Option<TimeDelta> {
        let passed = TimeDelta::from_std(steady.duration_since(self.steady)).unwrap_or_default();
        let jump = wall - self.wall - passed;
        *self = Self { wall, steady };
        (jump.abs() > SET).then_some(jump)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::it_goes_on(5, 5, None)]
    #[case::it_drifts(5, 6, None)]
    #[case::set_ahead(5, 3605, Some(3600))]
    #[case::set_back(5, -3595, Some(-3600))]
    #[case::stopped_for_an_hour_and_set_back_by_as_much(3600, 0, Some(-3600))]
    fn what_is_seen_of_the_wall_clock(#[case] passed: u64, #[case] wall: i64, #[case] jump: Option<i64>) {
        let (now, steady) = (Utc::now(), Instant::now());
        let mut clocks = Clocks::new(now, steady);
        let seen = clocks.jumped(now + TimeDelta::seconds(wall), steady + Duration::from_secs(passed));
        assert_eq!(seen, jump.map(TimeDelta::seconds));
    }
}
