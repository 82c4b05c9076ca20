//! When to hand out, start, wait or refuse. Pure: numbers in, a decision out.

use std::time::{Duration, Instant};

/// The instances of a pool, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Instances without an invocation.
    pub(crate) idle: usize,
    /// Instances with one or more.
    pub(crate) busy: usize,
    pub(crate) starting: usize,
    /// Invocations that an instance runs at once.
    pub(crate) each: usize,
    /// Invocations that run.
    pub(crate) running: usize,
    /// How many more can run on the busy ones.
    pub(crate) open: usize,
    /// Who waits for an instance.
    pub(crate) waiting: usize,
    /// Most instances at once; 0 stops the function.
    pub(crate) concurrency: usize,
    /// Instances kept at all times.
    pub(crate) warm: usize,
    /// How long an invocation takes, and a start; none where that is not known.
    pub(crate) pace: Option<Pace>,
    /// How long the first of those who wait has waited.
    pub(crate) waited: Duration,
}

/// How long things take with a function, by what it did lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) run: Duration,
    pub(crate) start: Duration,
}

/// What who asks for an instance gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// An idle one, or one that has room for another invocation.
    HandOut,
    /// A place in the queue.
    Wait,
    /// Nothing: the function is stopped.
    Refuse,
}

impl Slots {
    pub(crate) fn total(&self) -> usize {
        self.idle + self.busy + self.starting
    }

    pub(crate) fn admit(&self) -> Admission {
        match self {
            Self { concurrency: 0, .. } => Admission::Refuse,
            Self { waiting: 0, idle: 1.., .. } | Self { waiting: 0, open: 1.., .. } => Admission::HandOut,
            _ => Admission::Wait,
        }
    }

    /// Whether one more must be started for those who wait.
    pub(crate) fn starts_for_waiting(&self) -> bool {
        self.may_start() && self.held_back().is_none()
    }

    /// Those who wait will have an instance that is busy now before another one could be started; if they have not, when
    /// they have waited for so long, one is started.
    pub(crate) fn held_back(&self) -> Option<Duration> {
        let pace = self.pace.filter(|_| self.may_start() && self.busy > 0)?;
        let turns = (self.waiting - self.starting * self.each) as u32;
        let wait = pace.run.saturating_mul(turns) / ((self.busy + self.starting) * self.each) as u32;
        (wait < pace.start && self.waited < pace.start).then_some(pace.start)
    }

    fn may_start(&self) -> bool {
        self.starting * self.each < self.waiting && self.total() < self.concurrency
    }

    /// Whether one more must be started to keep the function warm.
    pub(crate) fn starts_for_warmth(&self) -> bool {
        self.total() < self.warm.min(self.concurrency)
    }

    /// Whether one may be started that nobody waits for, in place of one that its invocation ended or ahead of a call: there
    /// is none, and the next caller is not to wait for a start.
    pub(crate) fn starts_first(&self) -> bool {
        self.total() == 0 && self.concurrency > 0
    }

    /// Idle ones that must end now, as the limit was lowered.
    pub(crate) fn surplus(&self) -> usize {
        self.total().saturating_sub(self.concurrency).min(self.idle)
    }

    /// Idle ones that may end when they have been idle long enough.
    pub(crate) fn expendable(&self) -> usize {
        self.total().saturating_sub(self.warm.min(self.concurrency)).min(self.idle)
    }
}

/// Waits between starts that fail, so that a broken function costs little.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(30);

    pub(crate) fn failed(&mut self, now: Instant) {
        let wait = Self::FIRST.saturating_mul(1 << self.failures.min(16)).min(Self::LONGEST);
        self.failures += 1;
        self.not_before = Some(now + wait);
    }

    pub(crate) fn worked(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn has_worked(&self) -> bool {
        self.failures == 0
    }

    /// The next start may be now; should it fail, the one after it comes as late as it would have.
    pub(crate) fn skip(&mut self) {
        self.not_before = None;
    }

    /// When the next start may be; none: now.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|&t| t > now)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const EMPTY: Slots = Slots {
        idle: 0,
        busy: 0,
        starting: 0,
        each: 1,
        running: 0,
        open: 0,
        waiting: 0,
        concurrency: 4,
        warm: 0,
        pace: None,
        waited: Duration::ZERO,
    };
    const MS: Duration = Duration::from_millis(1);
    /// A start takes as long as five invocations.
    const QUICK: Slots =
        Slots { busy: 1, waiting: 1, pace: Some(Pace { run: MS, start: Duration::from_millis(5) }), ..EMPTY };

    #[rstest]
    #[case::an_idle_one_is_handed_out(Slots { idle: 1, ..EMPTY }, Admission::HandOut)]
    #[case::who_waits_already_comes_first(Slots { idle: 1, waiting: 1, ..EMPTY }, Admission::Wait)]
    #[case::nothing_there(EMPTY, Admission::Wait)]
    #[case::all_busy(Slots { busy: 4, ..EMPTY }, Admission::Wait)]
    #[case::one_has_a_slot_free(Slots { busy: 4, open: 1, ..EMPTY }, Admission::HandOut)]
    #[case::stopped(Slots { idle: 1, concurrency: 0, ..EMPTY }, Admission::Refuse)]
    fn who_asks_gets(#[case] slots: Slots, #[case] expect: Admission) {
        assert_eq!(slots.admit(), expect);
    }

    #[rstest]
    #[case::nobody_waits(EMPTY, false)]
    #[case::one_waits(Slots { waiting: 1, ..EMPTY }, true)]
    #[case::one_is_starting_for_the_one_who_waits(Slots { waiting: 1, starting: 1, ..EMPTY }, false)]
    #[case::more_wait_than_are_starting(Slots { waiting: 2, starting: 1, ..EMPTY }, true)]
    #[case::the_cap_counts_busy_and_starting(Slots { waiting: 9, starting: 1, busy: 3, ..EMPTY }, false)]
    #[case::what_is_starting_is_for_several(Slots { waiting: 4, starting: 1, each: 4, ..EMPTY }, false)]
    #[case::more_wait_than_its_slots(Slots { waiting: 5, starting: 1, each: 4, ..EMPTY }, true)]
    #[case::below_the_cap(Slots { waiting: 9, starting: 1, busy: 2, ..EMPTY }, true)]
    fn one_is_started_for_who_waits_when(#[case] slots: Slots, #[case] expect: bool) {
        assert_eq!(slots.starts_for_waiting(), expect);
    }

    #[rstest]
    #[case::the_busy_one_is_free_before_another_is_started(QUICK, false)]
    #[case::so_many_wait_that_a_start_is_sooner(Slots { waiting: 5, ..QUICK }, true)]
    #[case::several_are_free_soon(Slots { busy: 3, waiting: 9, ..QUICK }, false)]
    #[case::each_of_its_slots_is_free_soon(Slots { waiting: 9, each: 2, ..QUICK }, false)]
    #[case::what_is_being_started_takes_its_part(Slots { starting: 2, waiting: 9, ..QUICK }, false)]
    #[case::it_took_longer_than_was_thought(Slots { waited: 5 * MS, ..QUICK }, true)]
    #[case::nobody_is_busy(Slots { busy: 0, ..QUICK }, true)]
    #[case::nothing_is_known(Slots { pace: None, ..QUICK }, true)]
    #[case::slow(Slots { pace: Some(Pace { run: 9 * MS, start: 5 * MS }), ..QUICK }, true)]
    #[case::never_over_the_cap(Slots { busy: 4, waited: 5 * MS, ..QUICK }, false)]
    fn in_a_burst_another_one_is_started_where_waiting_costs_more(#[case] slots: Slots, #[case] expect: bool) {
        assert_eq!(slots.starts_for_waiting(), expect);
        let again = slots.held_back();
        assert_eq!(again, (!expect && slots.busy < 4).then_some(5 * MS), "and if not, it is looked at again");
    }

    #[rstest]
    #[case::cold_is_fine(EMPTY, false, 0)]
    #[case::too_few(Slots { warm: 2, idle: 1, ..EMPTY }, true, 0)]
    #[case::busy_ones_are_warm(Slots { warm: 2, idle: 1, busy: 1, ..EMPTY }, false, 0)]
    #[case::never_over_the_cap(Slots { warm: 9, busy: 4, ..EMPTY }, false, 0)]
    #[case::idle_ones_beyond_warm_may_end(Slots { warm: 1, idle: 3, ..EMPTY }, false, 2)]
    #[case::to_zero(Slots { idle: 3, ..EMPTY }, false, 3)]
    fn warmth_is_kept(#[case] slots: Slots, #[case] start: bool, #[case] expendable: usize) {
        assert_eq!((slots.starts_for_warmth(), slots.expendable()), (start, expendable));
    }

    #[rstest]
    #[case::the_last_one(EMPTY, true)]
    #[case::another_is_idle(Slots { idle: 1, ..EMPTY }, false)]
    #[case::another_works(Slots { busy: 1, ..EMPTY }, false)]
    #[case::one_is_starting_already(Slots { starting: 1, waiting: 1, ..EMPTY }, false)]
    #[case::the_only_one_there_may_be(Slots { concurrency: 1, ..EMPTY }, true)]
    #[case::stopped(Slots { concurrency: 0, ..EMPTY }, false)]
    fn an_instance_that_was_lost_is_replaced_when_it_was(#[case] slots: Slots, #[case] expect: bool) {
        assert_eq!(slots.starts_first(), expect);
    }

    #[test]
    fn a_lowered_limit_ends_idle_ones_first() {
        assert_eq!(Slots { idle: 2, busy: 3, ..EMPTY }.surplus(), 1);
        assert_eq!(Slots { idle: 2, busy: 3, concurrency: 1, ..EMPTY }.surplus(), 2);
        assert_eq!(Slots { idle: 2, busy: 1, ..EMPTY }.surplus(), 0);
    }

    #[test]
    fn failing_starts_come_less_and_less_often() {
        let (now, mut backoff) = (Instant::now(), Backoff::default());
        assert_eq!(backoff.until(now), None);
        let waits: Vec<u128> = (0..12)
            .map(|_| {
                backoff.failed(now);
                backoff.until(now).unwrap().duration_since(now).as_millis()
            })
            .collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 30_000);
        backoff.worked();
        assert_eq!(backoff.until(now), None);
    }
}
