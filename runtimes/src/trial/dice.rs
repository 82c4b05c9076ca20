//! Chance from a seed: the same on every machine. `SplitMix64` (Steele, Lea and Flood, 2014), and what is drawn with it.

use std::f64::consts::TAU;

#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// Dice of their own for the `n`th of a trace, so that what one draws does not change another.
    pub(super) fn new(seed: u64, n: u64) -> Self {
        let mut dice = Self(seed);
        let mixed = dice.next();
        Self(mixed ^ n.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 0 to `below` - 1.
    pub(super) fn index(&mut self, below: usize) -> usize {
        (self.unit() * below as f64) as usize
    }

    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    pub(super) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Of a shape of at least 1 (Marsaglia and Tsang, 2000).
    pub(super) fn gamma(&mut self, shape: f64, mean: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return mean * d * v / shape;
            }
        }
    }

    /// How many, at least 1, of this mean.
    pub(super) fn geometric(&mut self, mean: f64) -> usize {
        if mean <= 1.0 {
            return 1;
        }
        1 + ((1.0 - self.unit()).ln() / (1.0 - 1.0 / mean).ln()) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_published_generator() {
        let mut dice = Dice(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| dice.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    /// Mean, and the coefficient of variation.
    fn measured(mut draw: impl FnMut(&mut Dice) -> f64) -> (f64, f64) {
        let mut dice = Dice::new(7, 0);
        let all: Vec<f64> = (0..40_000).map(|_| draw(&mut dice)).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn what_is_drawn_has_the_mean_and_the_spread_that_were_asked_for() {
        let near = |(mean, spread): (f64, f64), expect: (f64, f64)| {
            assert!((mean / expect.0 - 1.0).abs() < 0.03 && (spread - expect.1).abs() < 0.03, "{mean} {spread}");
        };
        near(measured(|dice| dice.exponential(5.0)), (5.0, 1.0));
        near(measured(|dice| dice.gamma(4.0, 60.0)), (60.0, 0.5));
        near(measured(|dice| dice.log_normal(5.0, 0.5)), (5.0 * (0.125_f64).exp(), ((0.25_f64).exp() - 1.0).sqrt()));
        near(measured(|dice| dice.geometric(8.0) as f64), (8.0, (7.0_f64 / 8.0).sqrt()));
        near(measured(|dice| dice.index(9) as f64), (4.0, (60.0_f64 / 9.0).sqrt() / 4.0));
    }
}
