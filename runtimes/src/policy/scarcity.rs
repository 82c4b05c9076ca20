//! What memory is worth, by how much of it is taken: dearer while more than nine tenths are, cheaper while less.

/// How fast: in ten seconds at a full or an empty budget, by these exponents of the distance.
const RATE: f64 = 0.05;
/// Taken of the budget where the price stays.
const TARGET: f64 = 0.9;
/// It never gets cheaper or dearer than this, by the usual price.
const LEAST: f64 = 0.1;
const MOST: f64 = 300.0;

/// A price that follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scarcity {
    usual: f64,
    price: f64,
}

impl Scarcity {
    pub fn new(usual: f64) -> Self {
        Self { usual, price: usual }
    }

    /// The price after so many seconds in which this share of the budget was taken.
    pub fn after(&mut self, seconds: f64, share: f64) -> f64 {
        let moved = self.price * (RATE * seconds * (share - TARGET)).exp();
        self.price = moved.clamp(LEAST * self.usual, MOST * self.usual);
        self.price
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_gets_dear_while_it_is_short_and_cheap_while_there_is_plenty() {
        let mut price = Scarcity::new(1.0);
        assert!((price.after(10.0, 0.9) - 1.0).abs() < 1e-9);
        assert!(price.after(10.0, 1.0) > 1.04);
        assert!(price.after(60.0, 0.2) < 0.2);
        assert!((price.after(1e9, 0.0) - LEAST).abs() < 1e-9, "not for nothing");
        assert!((price.after(1e9, 2.0) - MOST).abs() < 1e-6, "not beyond all bounds");
        assert!(price.after(120.0, 0.0) < 10.0, "and it comes back");
    }
}
