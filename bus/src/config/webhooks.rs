//! `[webhooks]`: how `https:` targets are posted to.

use std::sync::LazyLock;

use super::{Key, Reader, Section, Shape, duration_text};
use crate::sender::Webhooks;

static SECTION: LazyLock<Section> = LazyLock::new(|| {
    let default = Webhooks::default();
    Section {
        doc: "How https targets are posted to.",
        keys: vec![
            Key::new("timeout", Shape::Duration, "How long one attempt may take.")
                .default(duration_text(default.timeout)),
            Key::new("allow_private", Shape::Bool, "Post to loopback and private addresses too, and over plain http.")
                .default(default.allow_private),
        ],
        later: &["secret", "allow"],
    }
});

impl Webhooks {
    pub fn section() -> &'static Section {
        &SECTION
    }

    pub fn read(reader: Reader<'_>) -> Self {
        let default = Self::default();
        let webhooks = Self {
            timeout: reader.get_or("timeout", default.timeout),
            allow_private: reader.get_or("allow_private", default.allow_private),
        };
        reader.finish();
        webhooks
    }
}
