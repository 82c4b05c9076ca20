//! `[log]`: how much of what happened is kept.

use std::{sync::LazyLock, time::Duration};

use super::{Key, Reader, Section, Shape, Size, duration_text, size_text};

/// `[log]` as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How long what has ended is kept.
    pub keep: Duration,
    /// How long dead letters are kept at least.
    pub keep_dead: Duration,
    /// In bytes; beyond it the oldest that has ended goes first.
    pub max_size: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { keep: Duration::from_hours(7 * 24), keep_dead: Duration::from_hours(14 * 24), max_size: 5_000_000_000 }
    }
}

static SECTION: LazyLock<Section> = LazyLock::new(|| {
    let default = LogConfig::default();
    Section {
        doc: "The event log.",
        keys: vec![
            Key::new("keep", Shape::Duration, "How long events that have ended are kept.")
                .default(duration_text(default.keep)),
            Key::new("keep_dead", Shape::Duration, "How long dead letters are kept, whatever the other two say.")
                .default(duration_text(default.keep_dead)),
            Key::new("max_size", Shape::Size, "Beyond this size the oldest ended events go first.")
                .default(size_text(default.max_size)),
        ],
        later: &[],
    }
});

impl LogConfig {
    pub fn section() -> &'static Section {
        &SECTION
    }

    pub fn read(reader: Reader<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            keep: reader.get_or("keep", default.keep),
            keep_dead: reader.get_or("keep_dead", default.keep_dead),
            max_size: reader.get_or("max_size", Size(default.max_size)).0,
        };
        reader.finish();
        config
    }
}
