//! Greedy-dual keep-alive (Fuerst and Sharma, ASPLOS 2021): instances stay until memory is short, then the one goes that
//! is worth least: seldom called, soon started again, large. What goes sets the clock, so that one that is not called any
//! more loses against what came later.

use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    calls: f64,
    /// None where there is no instance.
    worth: Option<f64>,
}

/// One for all functions of a node; a function is a number.
#[derive(Debug, Clone, Default)]
pub struct GreedyDual {
    clock: f64,
    functions: Vec<Held>,
    /// By worth: the bits of a number that is not negative are in the order of the numbers.
    order: BTreeSet<(u64, usize)>,
}

impl GreedyDual {
    /// A function was called, and has an instance from here on. `start` is what one takes to start, in seconds, `memory`
    /// what it holds, in MB.
    pub fn called(&mut self, function: usize, start: f64, memory: f64) {
        if self.functions.len() <= function {
            self.functions.resize(function + 1, Held::default());
        }
        let held = &mut self.functions[function];
        if let Some(worth) = held.worth {
            self.order.remove(&(worth.to_bits(), function));
        }
        held.calls += 1.0;
        let worth = self.clock + held.calls * start.max(0.0) / memory.max(1.0);
        held.worth = Some(worth);
        self.order.insert((worth.to_bits(), function));
    }

    /// Ends the instance that is worth least of those that may end; which function's it is.
    pub fn evict(&mut self, may_end: impl Fn(usize) -> bool) -> Option<usize> {
        let &(worth, function) = self.order.iter().find(|(_, function)| may_end(*function))?;
        self.order.remove(&(worth, function));
        self.clock = f64::from_bits(worth);
        self.functions[function] = Held::default();
        Some(function)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_called_seldom_starts_soon_or_is_large_goes_first() {
        let mut policy = GreedyDual::default();
        policy.called(0, 1.0, 100.0);
        policy.called(0, 1.0, 100.0);
        policy.called(1, 1.0, 100.0);
        policy.called(2, 0.1, 100.0);
        policy.called(3, 1.0, 500.0);
        let order: Vec<_> = std::iter::from_fn(|| policy.evict(|_| true)).collect();
        assert_eq!(order, [2, 3, 1, 0]);
    }

    #[test]
    fn one_that_runs_is_not_ended() {
        let mut policy = GreedyDual::default();
        policy.called(0, 1.0, 100.0);
        policy.called(1, 2.0, 100.0);
        assert_eq!(policy.evict(|function| function != 0), Some(1));
        assert_eq!(policy.evict(|function| function != 0), None);
    }

    #[test]
    fn one_that_was_called_often_once_goes_in_the_end() {
        let mut policy = GreedyDual::default();
        (0..50).for_each(|_| policy.called(0, 1.0, 1.0));
        let mut rounds = 0;
        loop {
            rounds += 1;
            policy.called(rounds, 1.0, 1.0);
            if policy.evict(|_| true) == Some(0) {
                break;
            }
            assert!(rounds < 100, "it stays for good");
        }
    }

    proptest! {
        #[test]
        fn each_instance_ends_once_and_the_clock_never_goes_back(
            calls in prop::collection::vec((0_usize..20, 0.0..5.0, 1.0..500.0), 0..200)
        ) {
            let mut policy = GreedyDual::default();
            let mut there = BTreeSet::new();
            for (n, (function, start, memory)) in calls.into_iter().enumerate() {
                policy.called(function, start, memory);
                there.insert(function);
                if n % 3 == 0 {
                    let clock = policy.clock;
                    let ended = policy.evict(|_| true);
                    prop_assert!(ended.is_some_and(|ended| there.remove(&ended)));
                    prop_assert!(policy.clock >= clock);
                }
            }
            let ended: BTreeSet<_> = std::iter::from_fn(|| policy.evict(|_| true)).collect();
            prop_assert_eq!(ended, there);
        }
    }
}
