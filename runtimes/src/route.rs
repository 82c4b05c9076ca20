//! Which version calls go to. Pure.

use serde::{Deserialize, Serialize};

/// Versions that served before, as far as they are remembered.
const REMEMBERED: usize = 20;

/// Where the calls of a function go that name no version: the alias `live`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    /// What serves; none before the first deploy.
    pub(crate) version: Option<u32>,
    /// It stays until somebody promotes another one; else it is the newest.
    #[serde(default)]
    pub(crate) pinned: bool,
    /// What served before, the last one at the end.
    #[serde(default)]
    before: Vec<u32>,
}

impl Route {
    /// After the deploy of a version; none when nothing changes.
    pub(crate) fn deployed(&self, number: u32) -> Option<Self> {
        (!self.pinned && self.version != Some(number)).then(|| self.moved(number, false))
    }

    /// After a version was chosen by hand. The newest one is followed again by those that come.
    pub(crate) fn promoted(&self, number: u32, is_latest: bool) -> Self {
        if self.version == Some(number) {
            Self { pinned: !is_latest, ..self.clone() }
        } else {
            self.moved(number, !is_latest)
        }
    }

    /// What served before and is still kept, and the route with it in service.
    pub(crate) fn rolled_back(&self, is_kept: impl Fn(u32) -> bool) -> Option<(u32, Self)> {
        let at = self.before.iter().rposition(|number| is_kept(*number) && self.version != Some(*number))?;
        let number = self.before[at];
        Some((number, Self { version: Some(number), pinned: true, before: self.before[..at].to_vec() }))
    }

    fn moved(&self, number: u32, pinned: bool) -> Self {
        let mut before = self.before.clone();
        before.extend(self.version);
        let from = before.len().saturating_sub(REMEMBERED);
        Self { version: Some(number), pinned, before: before.split_off(from) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployed(numbers: &[u32]) -> Route {
        numbers.iter().fold(Route::default(), |route, number| route.deployed(*number).unwrap_or(route))
    }

    #[test]
    fn the_newest_serves_until_another_is_chosen_and_that_one_until_the_newest_is() {
        let route = deployed(&[1, 2, 2]);
        assert_eq!((route.version, route.pinned, &route.before[..]), (Some(2), false, &[1][..]));
        let pinned = route.promoted(1, false);
        assert_eq!((pinned.version, pinned.pinned, pinned.deployed(3)), (Some(1), true, None));
        let back = pinned.promoted(3, true);
        assert_eq!((back.version, back.pinned), (Some(3), false));
        assert_eq!(back.deployed(4).unwrap().version, Some(4));
        assert!(route.promoted(2, false).pinned, "what serves can be held");
    }

    #[test]
    fn a_rollback_goes_back_step_by_step_over_what_is_not_kept_any_more() {
        let route = deployed(&[1, 2, 3, 4]);
        let (number, back) = route.rolled_back(|number| number != 3).unwrap();
        assert_eq!((number, back.version, back.pinned, &back.before[..]), (2, Some(2), true, &[1][..]));
        let (number, back) = back.rolled_back(|_| true).unwrap();
        assert_eq!((number, back.rolled_back(|_| true)), (1, None));
        assert_eq!(back.deployed(5), None, "an edit does not undo it");
    }

    #[test]
    fn what_served_before_is_remembered_up_to_a_bound() {
        let all: Vec<u32> = (1..100).collect();
        assert_eq!(deployed(&all).before, (79..99).collect::<Vec<u32>>());
    }
}
