//! `[pipelines.NAME]`: recognised, not yet run.

use std::sync::LazyLock;

use bus::config::{Key, Reader, Section, Shape, Value, Wrong};

/// `[pipelines.NAME]` as far as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PipelineConfig {
    /// How many steps there are.
    pub(crate) steps: usize,
}

static SECTION: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "Steps over functions. Read, and not yet run by this version.",
    keys: vec![Key::new("steps", Shape::List, "The steps, in order.")],
    later: &["definition"],
});

impl PipelineConfig {
    pub(crate) fn section() -> &'static Section {
        &SECTION
    }

    pub(crate) fn read(reader: Reader<'_>) -> Option<Self> {
        let steps = reader.field("steps").and_then(|field| match field.value() {
            Value::Array(steps) => Some(steps.len()),
            other => {
                field.wrong(&Wrong::not_a("a list", other));
                None
            }
        });
        reader.finish();
        Some(Self { steps: steps? })
    }
}
