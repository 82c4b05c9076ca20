//! When somebody sets the clock back: seen by a clock that nobody can set.
//!
//! The time of a retry is a time of the wall, because it has to survive the node. When the wall clock is set back while the
//! node runs, those times are moved with it: a retry in a second would come in an hour and a second. One that was decided on
//! since the clock was set comes too early by that, as all do when it is set ahead.

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

    /// How far the wall clock was set back since the last look, if it was.
    pub(crate) fn set_back(&mut self, wall: DateTime<Utc>, steady: Instant) -> Option<TimeDelta> {
        let passed = TimeDelta::from_std(steady.duration_since(self.steady)).unwrap_or_default();
        let back = self.wall + passed - wall;
        *self = Self { wall, steady };
        (back > SET).then_some(back)
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
    #[case::it_is_set_ahead(5, 3605, None)]
    #[case::it_is_set_back(5, -3595, Some(3600))]
    #[case::it_is_set_back_by_as_much_as_has_passed(3600, 0, Some(3600))]
    fn what_is_seen_of_the_wall_clock(#[case] passed: u64, #[case] wall: i64, #[case] back: Option<i64>) {
        let (now, steady) = (Utc::now(), Instant::now());
        let mut clocks = Clocks::new(now, steady);
        let seen = clocks.set_back(now + TimeDelta::seconds(wall), steady + Duration::from_secs(passed));
        assert_eq!(seen, back.map(TimeDelta::seconds));
    }
}
