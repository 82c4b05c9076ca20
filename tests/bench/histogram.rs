//! Latencies in buckets of 1.6 %, so that counting costs nothing and millions fit.

use std::time::Duration;

/// Buckets within a power of two.
const STEPS: u32 = 6;

#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, latency: Duration) {
        let bucket = bucket(latency.as_nanos() as u64);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    /// In milliseconds; `share` in 0..1.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return value(bucket) / 1e6;
            }
        }
        0.0
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(1 << STEPS);
    let power = nanos.ilog2();
    let within = (nanos >> (power - STEPS)) & ((1 << STEPS) - 1);
    (((power - STEPS) as usize) << STEPS) + within as usize
}

/// The middle of a bucket.
fn value(bucket: usize) -> f64 {
    let (power, within) = (bucket >> STEPS, bucket & ((1 << STEPS) - 1));
    (f64::from(1 << STEPS) + within as f64 + 0.5) * 2_f64.powi(power as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_two_percent_of_what_was_recorded() {
        let mut histogram = Histogram::default();
        for micros in 1..=10_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, expected) in [(0.5, 5.0), (0.99, 9.9), (1.0, 10.0)] {
            let found = histogram.quantile(share);
            assert!((found / expected - 1.0).abs() < 0.02, "{share}: {found} ms instead of {expected} ms");
        }
    }

    #[test]
    fn what_is_too_short_to_be_told_is_counted_all_the_same() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::ZERO);
        assert_eq!(histogram.count(), 1);
    }
}
