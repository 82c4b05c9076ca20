//! Which slots are due now, and which of those that were missed are made up for: a decision on times alone.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Expression;
use crate::config::{CronTrigger, Missed};

/// A slot that is no later than this is on time, whatever kept us.
const ON_TIME: TimeDelta = TimeDelta::minutes(1);

/// A time of the schedule, and the expression it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) time: DateTime<Utc>,
    pub(super) expression: usize,
}

/// What to do with the slots since the last look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// In order of their times.
    pub(super) fire: Vec<Slot>,
    /// Slots that were missed and are not made up for; those before `missed_within` are not counted.
    pub(super) dropped: usize,
}

/// The slots after `done` up to `now`, as `missed` wants them.
pub(super) fn due(config: &CronTrigger, began: DateTime<Utc>, done: DateTime<Utc>, now: DateTime<Utc>) -> Due {
    let within = TimeDelta::from_std(config.missed_within).unwrap_or(TimeDelta::MAX).max(ON_TIME);
    let oldest = now.checked_sub_signed(within).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut slots = Vec::new();
    let mut after = done.max(oldest);
    while let Some(slot) = next(config, began, after).filter(|slot| slot.time <= now) {
        after = slot.time;
        slots.push(slot);
    }
    let number = slots.len();
    let fire = match config.missed {
        Missed::All => slots,
        Missed::Last => slots.split_off(number.saturating_sub(1)),
        Missed::None => {
            let late = slots.iter().filter(|slot| now - slot.time > ON_TIME).count();
            slots.split_off(late.max(number.saturating_sub(1)))
        }
    };
    Due { dropped: number - fire.len(), fire }
}

/// The first slot after an instant, of all expressions of a trigger. Two expressions at one time are one slot.
pub(super) fn next(config: &CronTrigger, began: DateTime<Utc>, after: DateTime<Utc>) -> Option<Slot> {
    let slot =
        |(expression, e): (usize, &Expression)| Some(Slot { time: e.next(after, config.zone.0, began)?, expression });
    config.expressions.iter().enumerate().filter_map(slot).min_by_key(|slot| slot.time)
}

/// How long to sleep until a slot. Never long: the wall clock may be set meanwhile, and nobody would tell.
pub(super) fn nap(slot: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Duration {
    const LONGEST: Duration = Duration::from_secs(10);
    let left = slot.and_then(|slot| (slot - now).to_std().ok());
    left.map_or(LONGEST, |left| left.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;
    use rstest::rstest;

    use super::*;
    use crate::config::{Overlap, Zone};

    fn time(text: &str) -> DateTime<Utc> {
        format!("2026-03-01T{text}Z").parse().unwrap()
    }

    fn config(missed: Missed) -> CronTrigger {
        CronTrigger {
            expressions: vec!["*/10 * * * *".parse().unwrap(), "30 * * * *".parse().unwrap()],
            zone: Zone(Tz::UTC),
            overlap: Overlap::Skip,
            missed,
            missed_within: Duration::from_hours(1),
        }
    }

    #[rstest]
    #[case::nothing_is_due(Missed::Last, "10:00:00", "10:09:59", &[], 0)]
    #[case::to_the_second(Missed::Last, "10:00:00", "10:10:00", &["10:10:00"], 0)]
    #[case::the_last_of_three(Missed::Last, "10:00:00", "10:35:00", &["10:30:00"], 2)]
    #[case::all_of_three(Missed::All, "10:00:00", "10:35:00", &["10:10:00", "10:20:00", "10:30:00"], 0)]
    #[case::none_of_three(Missed::None, "10:00:00", "10:35:00", &[], 3)]
    #[case::only_what_is_on_time(Missed::None, "10:00:00", "10:30:59", &["10:30:00"], 2)]
    #[case::nothing_from_before_the_window(Missed::All, "06:00:00", "10:05:00", &["09:10:00", "09:20:00",
        "09:30:00", "09:40:00", "09:50:00", "10:00:00"], 0)]
    #[case::a_clock_that_went_back(Missed::Last, "11:00:00", "10:35:00", &[], 0)]
    fn what_was_missed_is_made_up_for_as_configured(
        #[case] missed: Missed,
        #[case] done: &str,
        #[case] now: &str,
        #[case] fire: &[&str],
        #[case] dropped: usize,
    ) {
        let due = due(&config(missed), time("00:00:00"), time(done), time(now));
        assert_eq!(
            due.fire.iter().map(|slot| slot.time).collect::<Vec<_>>(),
            fire.iter().map(|t| time(t)).collect::<Vec<_>>()
        );
        assert_eq!(due.dropped, dropped);
    }

    #[test]
    fn a_nap_ends_with_the_slot_and_is_never_long() {
        assert_eq!(nap(Some(time("10:00:05")), time("10:00:00")), Duration::from_secs(5));
        assert_eq!(nap(Some(time("10:00:00")), time("10:00:05")), Duration::from_secs(10));
        assert_eq!(nap(None, time("10:00:05")), Duration::from_secs(10));
    }
}
