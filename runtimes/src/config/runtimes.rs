//! `[runtimes]`: versions and runtimes of all functions.

use std::sync::LazyLock;

use bus::config::{Key, Reader, Section, Shape};

/// `[runtimes]` as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimesConfig {
    /// Versions of each function that are kept, beside those in use. Default 10.
    pub keep_versions: u32,
    /// Whether functions of a runtime that has ended are refused, from its dates on. Default no.
    pub enforce: bool,
}

impl Default for RuntimesConfig {
    fn default() -> Self {
        Self { keep_versions: 10, enforce: false }
    }
}

static SECTION: LazyLock<Section> = LazyLock::new(|| {
    let default = RuntimesConfig::default();
    Section {
        doc: "Versions and runtimes of all functions.",
        keys: vec![
            Key::new(
                "keep_versions",
                Shape::Integer(1..=1000),
                "Versions of each function that are kept, beside those in use.",
            )
            .default(i64::from(default.keep_versions)),
            Key::new(
                "enforce",
                Shape::Bool,
                "From the dates of its runtime on no function is made, changed or run (`fnbus runtimes`).",
            )
            .default(default.enforce),
        ],
        later: &[],
    }
});

impl RuntimesConfig {
    pub fn section() -> &'static Section {
        &SECTION
    }

    pub fn read(reader: Reader<'_>) -> Self {
        let default = Self::default();
        let config = Self {
            keep_versions: reader.get_or("keep_versions", default.keep_versions),
            enforce: reader.get_or("enforce", default.enforce),
        };
        reader.finish();
        config
    }
}
