//! Ids: one kind everywhere, a UUID whose first 48 bits are milliseconds, so that rows and their ids grow together
//! (a time-ordered unique index costs less than half of a random one).
//!
//! * events of ours: UUIDv7;
//! * events that follow from a delivery: UUIDv8, the parent's time and a hash of what they follow from, so that
//!   deciding them twice gives the same id;
//! * deliveries and attempts: UUIDv8 that carries the log's row number, see [`RowId`].

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ambient;

/// The id of an event. Unique together with the event's source.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventId {
    /// Made here: time-ordered.
    Ours(Uuid),
    /// Given by whoever sent the event, kept as it came.
    Foreign(Arc<str>),
}

impl EventId {
    pub fn new() -> Self {
        Self::Ours(ambient::uuid())
    }

    /// An id from outside. A text that happens to be a UUID stays foreign: only ids made here are known to be
    /// ordered by time.
    pub fn foreign(text: &str) -> Self {
        Self::Foreign(text.into())
    }

    /// The id of output number `position` of a delivery whose event came at `time`: the same inputs, the same id.
    pub fn following(time: DateTime<Utc>, delivery: RowId, position: u32) -> Self {
        let digest = Sha256::new().chain_update(delivery.0).chain_update(position.to_be_bytes()).finalize();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&millis(time).to_be_bytes()[2..]);
        bytes[6..].copy_from_slice(&digest[..10]);
        Self::Ours(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl Default for EventId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours(uuid) => uuid.fmt(f),
            Self::Foreign(text) => f.write_str(text),
        }
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of a delivery or an attempt: milliseconds and 12 random bits of its making, and the row it has in the
/// owner's log. The row is found without an index; the time and salt are compared with the row, so an id from
/// before a log was restored from a backup never names somebody else's row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowId(Uuid);

/// What a [`RowId`] remembers of its making: 48 bits of milliseconds, 12 bits of salt. Stored with the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Born(pub i64);

impl Born {
    pub fn now() -> Self {
        Self::at(ambient::now())
    }

    pub fn at(time: DateTime<Utc>) -> Self {
        Self(((millis(time) << 12) | salt()) as i64)
    }

    pub fn time(self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.0 >> 12).unwrap_or_default()
    }
}

/// Twelve bits that differ from one birth to the next, and from one process to the next.
fn salt() -> u64 {
    static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(Uuid::now_v7().as_u64_pair().1));
    #[cfg(test)]
    if let Some(salt) = crate::simulation::surroundings::salt() {
        return salt;
    }
    // A step that is odd goes through all values; a large one keeps neighbours apart.
    NEXT.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed) >> 52
}

impl RowId {
    pub fn new(born: Born, row: i64) -> Self {
        let time = (born.0 as u64) >> 12;
        let salt = (born.0 as u64) & 0x0fff;
        let high = (time << 16) | 0x8000 | salt;
        let low = (0b10 << 62) | (row as u64 & (u64::MAX >> 2));
        Self(Uuid::from_u64_pair(high, low))
    }

    pub fn row(self) -> i64 {
        (self.0.as_u64_pair().1 & (u64::MAX >> 2)) as i64
    }

    pub fn born(self) -> Born {
        let high = self.0.as_u64_pair().0;
        Born((((high >> 16) << 12) | (high & 0x0fff)) as i64)
    }

    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl FromStr for RowId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Ok(Self(text.parse()?))
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn millis(time: DateTime<Utc>) -> u64 {
    time.timestamp_millis().max(0) as u64 & 0x0000_ffff_ffff_ffff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_id_gives_back_its_row_and_its_birth(row in 0_i64..(1 << 61), ms in 0_i64..(1 << 47)) {
            let born = Born::at(DateTime::from_timestamp_millis(ms).unwrap_or_default());
            let id = RowId::new(born, row);
            prop_assert_eq!(id.row(), row);
            prop_assert_eq!(id.born(), born);
            prop_assert_eq!(id.to_string().parse::<RowId>(), Ok(id));
            prop_assert_eq!(id.uuid().get_version_num(), 8);
            prop_assert_eq!(id.uuid().get_variant(), uuid::Variant::RFC4122);
        }
    }

    #[test]
    fn what_follows_from_a_delivery_has_the_same_id_each_time_it_is_decided() {
        let delivery = RowId::new(Born::now(), 7);
        let time = Utc::now();
        assert_eq!(EventId::following(time, delivery, 0), EventId::following(time, delivery, 0));
        assert_ne!(EventId::following(time, delivery, 0), EventId::following(time, delivery, 1));
    }

    #[test]
    fn two_deliveries_born_in_one_millisecond_differ_by_row() {
        let born = Born::now();
        assert_ne!(RowId::new(born, 1), RowId::new(born, 2));
    }
}
