//! Places for synchronous calls: a bound on all of them, and some that each function has for itself, so that a flood of one
//! function leaves places for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use bus::Name;

use crate::lock;

/// Calls that run or wait for an instance at once; more are told that all are busy.
const SHARED: usize = 4096;
/// Calls of one function that are taken however many others there are.
const OWN: usize = 32;

#[derive(Default)]
pub(crate) struct Places {
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    of: HashMap<Name, usize>,
}

/// A place, as long as this lives.
pub(crate) struct Place {
    places: Arc<Places>,
    function: Name,
}

impl Places {
    /// A place for a call of this function; none when it has to be told that all are busy.
    pub(crate) fn take(self: &Arc<Self>, function: &Name) -> Option<Place> {
        let mut taken = lock(&self.taken);
        let own = taken.of.get(function).copied().unwrap_or_default();
        if own >= OWN && taken.all >= SHARED {
            return None;
        }
        taken.all += 1;
        taken.of.insert(function.clone(), own + 1);
        Some(Place { places: self.clone(), function: function.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.all -= 1;
        if let Some(own) = taken.of.get_mut(&self.function) {
            *own -= 1;
            // names come from callers: only those that are being called are kept
            if *own == 0 {
                taken.of.remove(&self.function);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_function_leaves_places_for_the_others() {
        let places = Arc::new(Places::default());
        let (flooded, quiet) = ("flooded".parse().unwrap(), "quiet".parse().unwrap());
        let flood: Vec<Place> = (0..2 * SHARED).map_while(|_| places.take(&flooded)).collect();
        assert_eq!(flood.len(), SHARED);
        let mut calls: Vec<Place> = (0..2 * OWN).map_while(|_| places.take(&quiet)).collect();
        assert_eq!(calls.len(), OWN);
        calls.pop();
        assert!(places.take(&flooded).is_none());
        assert!(places.take(&quiet).is_some());
        drop((flood, calls));
        assert!(lock(&places.taken).of.is_empty() && places.take(&flooded).is_some());
    }
}
