//! The deliveries of a key go one at a time, in the order of the log, and behind a dead letter only when it is settled: I5.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use super::{Delivery, Executed, Said, holds};
use crate::{
    Target,
    log::{Status, attempt::delivery_of},
};

impl Said<'_> {
    /// Of the deliveries to one target with one key, each began when the one before had ended and was settled.
    pub(super) fn keys_keep_their_order(&self, executed: &Executed) -> Result<(), String> {
        let mut places: BTreeMap<i64, i64> = BTreeMap::new();
        let mut lines: BTreeMap<(&Target, &str), Vec<(i64, &Delivery)>> = BTreeMap::new();
        let mut unclear = BTreeSet::new();
        for delivery in &self.deliveries {
            let Some(key) = delivery.key.as_deref() else { continue };
            let row = delivery.id.row();
            let line = lines.entry((&delivery.target, key)).or_default();
            let Ok(before) = self.instead_of(delivery) else {
                unclear.insert((&delivery.target, key));
                continue;
            };
            let place = before.and_then(|before| places.get(&before.id.row()).copied()).unwrap_or(row);
            places.insert(row, place);
            line.push((place, delivery));
        }
        lines.retain(|line, _| !unclear.contains(line));
        for mut line in lines.into_values() {
            line.sort_by_key(|(place, delivery)| (*place, delivery.id.row()));
            for pair in line.windows(2) {
                let [(place, first), (next, then)] = pair else { continue };
                let free = if place == next { first.ended } else { first.lets_go() };
                self.begins_after(then, free, executed)?;
            }
        }
        Ok(())
    }

    /// A delivery neither ran nor ended before.
    fn begins_after(&self, delivery: &Delivery, free: i64, executed: &Executed) -> Result<(), String> {
        let row = delivery.id.row();
        holds!(free <= delivery.ended, "delivery {row} ended before an earlier one with its key");
        let runs = self.runs.iter().filter(|(_, of, _, _)| *of == row).map(|(_, _, _, started)| *started);
        let attempts = executed.iter().filter(|(id, _)| delivery_of(id.row()).0 == row);
        let began = runs.chain(attempts.map(|(_, made)| made.began.timestamp_micros())).min();
        holds!(
            began.is_none_or(|began| began >= free),
            "delivery {row} began at {began:?}, before an earlier one with its key let it go at {free}"
        );
        Ok(())
    }

    /// The dead letter whose place a delivery took, for it is the same once more; an error when nobody can tell.
    fn instead_of(&self, delivery: &Delivery) -> Result<Option<&Delivery>, Unclear> {
        let same = |other: &&Delivery| {
            let again = (other.event, &other.trigger, other.generation + 1)
                == (delivery.event, &delivery.trigger, delivery.generation);
            let corrected = other.corrected == Some(delivery.event) && delivery.generation == 0;
            other.target == delivery.target && (again || corrected) && other.keeps_its_place() && !other.is_dropped()
        };
        let mut letters = self.deliveries.iter().filter(same);
        let Some(letter) = letters.next() else { return Ok(None) };
        let (born, ended) = (delivery.id.born().time().timestamp_millis(), letter.ended / 1000);
        // what is replayed while it is open goes to the end of its line
        match born.cmp(&ended) {
            _ if letters.next().is_some() => Err(Unclear),
            Ordering::Equal if delivery.replayed => Err(Unclear),
            Ordering::Less => Ok(None),
            _ => Ok(Some(letter)),
        }
    }
}

/// Two things happened in one millisecond.
struct Unclear;

impl Delivery {
    fn keeps_its_place(&self) -> bool {
        self.block && self.status != Status::Done
    }

    fn is_dropped(&self) -> bool {
        self.settled.is_some() && self.corrected.is_none()
    }

    /// When the next one may begin.
    fn lets_go(&self) -> i64 {
        if self.keeps_its_place() { self.settled.unwrap_or(i64::MAX) } else { self.ended }
    }
}
