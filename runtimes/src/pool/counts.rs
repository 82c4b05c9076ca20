//! What a pool has seen, for `fnbus functions`.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use bus::{
    outcome::{Fault, Start, Times},
    presence::{Quantiles, StartStatus},
};

use crate::{instance::Instance, lock};

/// What a pool has seen.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) invocations: AtomicU64,
    pub(crate) cold_starts: AtomicU64,
    /// Started before anybody called, and those of them that were called.
    pub(crate) pre_warmed: AtomicU64,
    pub(crate) pre_warmed_used: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) last_error: Mutex<Option<String>>,
    /// Invocations and errors that were not looked at.
    fresh: [AtomicU64; 2],
    /// Of warm, partial and cold ones; made when the first is there.
    times: Mutex<[Option<Box<Timed>>; 3]>,
}

/// Invocations that found an instance in one way: where their time went.
#[derive(Default)]
struct Timed {
    queue: Histogram,
    start: Histogram,
    init: Histogram,
    run: Histogram,
}

impl Timed {
    fn add(&mut self, other: &Self) {
        self.queue.add(&other.queue);
        self.start.add(&other.start);
        self.init.add(&other.init);
        self.run.add(&other.run);
    }
}

impl Counts {
    /// `started`: a process was started for this invocation alone.
    pub(crate) fn invoked(&self, fault: Option<&Fault>, started: bool, found: Start, times: &Times) {
        self.invocations.fetch_add(1, Ordering::Relaxed);
        self.fresh[0].fetch_add(1, Ordering::Relaxed);
        self.handed_out(started);
        if let Some(fault) = fault {
            self.failed(fault);
        }
        let timed = &mut lock(&self.times)[found as usize];
        let timed = timed.get_or_insert_default();
        timed.queue.record(times.queue.as_micros());
        timed.run.record(times.run.as_micros());
        if found != Start::Warm {
            timed.start.record(times.start.as_micros());
            timed.init.record(times.init.as_micros());
        }
    }

    /// An instance was started, for nobody or for who waits.
    pub(super) fn started(&self, ahead: bool) {
        self.pre_warmed.fetch_add(u64::from(ahead), Ordering::Relaxed);
    }

    /// An instance is handed out: if it was started before anybody called, that paid.
    pub(super) fn used(&self, instance: &mut Instance) {
        let was_ahead = std::mem::take(&mut instance.is_ahead);
        self.pre_warmed_used.fetch_add(u64::from(was_ahead), Ordering::Relaxed);
    }

    pub(super) fn handed_out(&self, cold: bool) {
        self.cold_starts.fetch_add(u64::from(cold), Ordering::Relaxed);
    }

    /// Invocations and errors since this was asked last.
    pub(crate) fn fresh(&self) -> (u64, u64) {
        let [calls, errors] = &self.fresh;
        (calls.swap(0, Ordering::Relaxed), errors.swap(0, Ordering::Relaxed))
    }

    /// The same, and the next who asks is told again.
    pub(crate) fn unseen(&self) -> (u64, u64) {
        let [calls, errors] = &self.fresh;
        (calls.load(Ordering::Relaxed), errors.load(Ordering::Relaxed))
    }

    /// Takes over what another pool of the function has seen.
    pub(crate) fn add(&self, other: &Self) {
        let pairs = [
            (&self.invocations, &other.invocations),
            (&self.cold_starts, &other.cold_starts),
            (&self.pre_warmed, &other.pre_warmed),
            (&self.pre_warmed_used, &other.pre_warmed_used),
            (&self.errors, &other.errors),
        ];
        for (mine, others) in pairs {
            mine.fetch_add(others.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for (mine, others) in lock(&self.times).iter_mut().zip(&*lock(&other.times)) {
            if let Some(others) = others {
                mine.get_or_insert_default().add(others);
            }
        }
        let last = lock(&other.last_error).clone();
        if last.is_some() {
            *lock(&self.last_error) = last;
        }
    }

    pub(crate) fn failed(&self, fault: &Fault) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.fresh[1].fetch_add(1, Ordering::Relaxed);
        *lock(&self.last_error) = Some(format!("{}: {}", fault.kind, fault.message));
    }

    /// Invocations by what they found, and where their time went.
    pub(crate) fn starts(&self) -> Vec<StartStatus> {
        let times = lock(&self.times);
        let of = |found: Start| {
            let timed = times[found as usize].as_ref()?;
            Some(StartStatus {
                found,
                count: timed.run.count(),
                queue_us: timed.queue.quantiles(),
                start_us: timed.start.quantiles(),
                init_us: timed.init.quantiles(),
                run_us: timed.run.quantiles(),
            })
        };
        [Start::Warm, Start::Partial, Start::Cold].into_iter().filter_map(of).collect()
    }
}

/// Buckets of microseconds, four for each doubling: a quantile is at most a fifth too large.
const BUCKETS: usize = 4 * 34;

struct Histogram([u32; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    fn record(&mut self, us: u128) {
        let at = ((us.max(1) as f64).log2() * 4.0).ceil() as usize;
        let bucket = &mut self.0[at.min(BUCKETS - 1)];
        *bucket = bucket.saturating_add(1);
    }

    fn add(&mut self, other: &Self) {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            *mine = mine.saturating_add(*others);
        }
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|&count| u64::from(count)).sum()
    }

    fn quantiles(&self) -> Quantiles {
        let count = self.count();
        let of = |share: f64| {
            let wanted = (count as f64 * share).ceil().max(1.0) as u64;
            let mut seen = 0;
            let at = self.0.iter().position(|&count| {
                seen += u64::from(count);
                seen >= wanted
            });
            at.map_or(0, |at| (at as f64 / 4.0).exp2().round() as u64)
        };
        Quantiles { p50: of(0.5), p99: of(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn quantiles_of_times_are_near_what_was_recorded() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantiles(), Quantiles { p50: 0, p99: 0 });
        (1..=1000).for_each(|us| histogram.record(us));
        let Quantiles { p50, p99 } = histogram.quantiles();
        assert!((500..=600).contains(&p50) && (990..=1200).contains(&p99), "{p50} {p99}");
        histogram.record(u128::MAX);
        histogram.record(0);
        assert_eq!(histogram.count(), 1002);
    }

    #[test]
    fn invocations_are_counted_by_what_they_found() {
        let counts = Counts::default();
        let times = Times { init: Duration::from_millis(8), run: Duration::from_millis(1), ..Times::default() };
        counts.invoked(None, true, Start::Cold, &times);
        counts.invoked(None, false, Start::Warm, &times);
        counts.invoked(None, false, Start::Warm, &times);
        let starts = counts.starts();
        let counted: Vec<_> = starts.iter().map(|start| (start.found, start.count)).collect();
        assert_eq!(counted, [(Start::Warm, 2), (Start::Cold, 1)]);
        assert!(starts[0].init_us.p50 == 0 && (8000..9600).contains(&starts[1].init_us.p50), "{starts:?}");
    }
}
