//! `order_by`: which events of a trigger must not overtake each other, and what one that is given up means for those
//! behind it.

use crate::{config::Word, path::KeyPath};

/// `order_by` as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Events with the same value there are of one key.
    pub key: KeyPath,
    pub on_dead: OnDead,
}

/// What happens with the events behind a dead letter of their key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDead {
    /// They go on without it.
    #[default]
    Park,
    /// They wait until it is redriven, edited or dropped.
    Block,
}

impl Word for OnDead {
    const WORDS: &'static [(&'static str, Self)] = &[("park", Self::Park), ("block", Self::Block)];
    const MEANING: &'static str = "\"park\" goes on with the next of the key, \"block\" lets those behind a dead letter \
                                   wait until it is redriven, edited or dropped";
}
