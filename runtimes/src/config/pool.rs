//! `[pool]`: what the instances of all functions share.

use std::sync::LazyLock;

use bus::config::{Key, Reader, Section, Shape, Size};

/// `[pool]` as configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolConfig {
    /// Bytes that all functions may hold together; none: half of what the machine has, or its control group allows.
    pub memory: Option<u64>,
}

static SECTION: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "What the instances of all functions share.",
    keys: vec![Key::new(
        "memory",
        Shape::Size,
        "What all functions may hold together; half of the machine's memory, or of its control group's, unless set.",
    )],
    later: &[],
});

impl PoolConfig {
    pub fn section() -> &'static Section {
        &SECTION
    }

    pub fn read(reader: Reader<'_>) -> Self {
        let config = Self { memory: reader.get("memory").map(|Size(bytes)| bytes) };
        reader.finish();
        config
    }
}
