//! Which version calls go to. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::canary::Canary;

/// Versions that served before, as far as they are remembered.
const REMEMBERED: usize = 20;

/// Where the calls go that name an alias; those that name none go to `live`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    /// What gets all that others have no share in; none before the first deploy.
    pub(crate) version: Option<u32>,
    /// It stays until somebody promotes another one; else it is the newest.
    #[serde(default)]
    pub(crate) pinned: bool,
    /// What served before, the last one at the end.
    #[serde(default)]
    before: Vec<u32>,
    /// Other versions and their parts of the calls, from 0 to 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shares: BTreeMap<u32, f64>,
    /// One that has a part of the calls for a while, and is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<Canary>,
}

impl Route {
    /// After the deploy of a version; none when nothing changes.
    pub(crate) fn deployed(&self, number: u32) -> Option<Self> {
        (!self.pinned && self.version != Some(number)).then(|| self.moved(number, false))
    }

    /// After a version was chosen by hand, for all calls.
    pub(crate) fn promoted(&self, number: u32, pinned: bool) -> Self {
        if self.version == Some(number) { Self { pinned, ..self.whole() } } else { self.moved(number, pinned) }
    }

    /// With a part of the calls for another version.
    pub(crate) fn shared(&self, number: u32, share: f64) -> Self {
        Self { pinned: true, shares: BTreeMap::from([(number, share)]), canary: None, ..self.clone() }
    }

    /// With a part of the calls for a version that is watched.
    pub(crate) fn tried(&self, canary: Canary) -> Self {
        Self { pinned: true, shares: BTreeMap::new(), canary: Some(canary), ..self.clone() }
    }

    /// Back to what served before: without another version's part, else to the version before it that is still kept.
    pub(crate) fn rolled_back(&self, is_kept: impl Fn(u32) -> bool) -> Option<(u32, Self)> {
        if let Some(number) = self.version.filter(|_| self.shares().next().is_some()) {
            return Some((number, self.whole()));
        }
        let at = self.before.iter().rposition(|number| is_kept(*number) && self.version != Some(*number))?;
        let number = self.before[at];
        let before = self.before[..at].to_vec();
        Some((number, Self { version: Some(number), pinned: true, before, ..Self::default() }))
    }

    /// With all calls for its version.
    pub(crate) fn whole(&self) -> Self {
        Self { shares: BTreeMap::new(), canary: None, ..self.clone() }
    }

    /// Where a call goes whose place between 0 and 1 is this. The same call goes the same way as long as the parts are the
    /// same, and where a part only grows it keeps what it had.
    pub(crate) fn choose(&self, place: f64) -> Option<u32> {
        let mut end = 0.0;
        for (number, share) in self.shares() {
            end += share;
            if place < end {
                return Some(number);
            }
        }
        self.version
    }

    /// The other versions that get calls, and their parts.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (u32, f64)> {
        let canary = self.canary.as_ref().map(|canary| (canary.version, canary.share));
        self.shares.iter().map(|(number, share)| (*number, *share)).chain(canary)
    }

    /// Every version that gets calls.
    pub(crate) fn versions(&self) -> BTreeSet<u32> {
        self.shares().map(|(number, _)| number).chain(self.version).collect()
    }

    fn moved(&self, number: u32, pinned: bool) -> Self {
        let mut before = self.before.clone();
        before.extend(self.version);
        let from = before.len().saturating_sub(REMEMBERED);
        Self { version: Some(number), pinned, before: before.split_off(from), ..Self::default() }
    }
}

/// The place of a call between 0 and 1, by its id: evenly spread, and the same at each attempt.
pub(crate) fn place(id: Uuid) -> f64 {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let (high, low) = id.as_u64_pair();
    (mix(mix(high).wrapping_add(low)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;

    fn deployed(numbers: &[u32]) -> Route {
        numbers.iter().fold(Route::default(), |route, number| route.deployed(*number).unwrap_or(route))
    }

    fn canary(version: u32, share: f64) -> Canary {
        Canary {
            version,
            share,
            ends: DateTime::UNIX_EPOCH + Duration::from_mins(10),
            max_errors: 0.05,
            min_calls: 20,
            pin: false,
            calls: 0,
            errors: 0,
        }
    }

    #[test]
    fn the_newest_serves_until_another_is_chosen_and_that_one_until_the_newest_is() {
        let route = deployed(&[1, 2, 2]);
        assert_eq!((route.version, route.pinned, &route.before[..]), (Some(2), false, &[1][..]));
        let pinned = route.promoted(1, true);
        assert_eq!((pinned.version, pinned.pinned, pinned.deployed(3)), (Some(1), true, None));
        let back = pinned.promoted(3, false);
        assert_eq!((back.version, back.pinned), (Some(3), false));
        assert_eq!(back.deployed(4).unwrap().version, Some(4));
        assert!(route.promoted(2, true).pinned, "what serves can be held");
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

    #[test]
    fn another_version_gets_its_part_of_the_calls_and_each_call_goes_the_same_way_again() {
        let ids: Vec<Uuid> = (0..10_000).map(|_| Uuid::now_v7()).collect();
        let route = deployed(&[1, 2]).shared(1, 0.1);
        let to_one = |route: &Route| ids.iter().filter(|id| route.choose(place(**id)) == Some(1)).count();
        let (few, more) = (to_one(&route), to_one(&route.shared(1, 0.3)));
        assert!((800..1200).contains(&few) && (2700..3300).contains(&more), "{few}, {more}");
        let grown = route.shared(1, 0.3);
        let kept = ids.iter().filter(|id| route.choose(place(**id)) == Some(1));
        assert!(kept.map(|id| grown.choose(place(*id))).all(|chosen| chosen == Some(1)));
        assert_eq!((to_one(&route.shared(1, 0.0)), to_one(&route.shared(1, 1.0))), (0, ids.len()));
        assert_eq!(route.whole().choose(0.0), Some(2));
    }

    #[test]
    fn a_rollback_first_takes_the_part_of_another_version_away() {
        let route = deployed(&[1, 2]).tried(canary(1, 0.5));
        assert_eq!(route.versions(), BTreeSet::from([1, 2]));
        let (number, back) = route.rolled_back(|_| true).unwrap();
        assert_eq!((number, back.versions()), (2, BTreeSet::from([2])));
        assert_eq!(back.rolled_back(|_| true).unwrap().0, 1);
        assert_eq!(route.promoted(1, false).versions(), BTreeSet::from([1]), "one that was promoted has all");
    }
}
