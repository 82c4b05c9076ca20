//! `[bus]`: the bus itself.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use super::{Key, NatsUrl, Reader, Section, Shape, Wrong};
use crate::name::Name;

/// `[bus]` as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusConfig {
    /// The first token of every subject; buses of different namespaces share a NATS server without meeting.
    pub namespace: Name,
    /// The folder of the log, the NATS store and the versions. Absolute once it was read.
    pub data: PathBuf,
    /// The NATS server or cluster to join; none: a server of our own.
    pub nats: Option<NatsUrl>,
    /// The port of our own NATS server; none: one that is free.
    pub nats_port: Option<u16>,
    /// Publish a copy of every accepted event to `<namespace>.event.<trigger>`.
    pub tap: bool,
    /// Refuse to start where the kernel cannot enforce what `isolation` asks for.
    pub require_isolation: bool,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            namespace: Name::fnbus(),
            data: ".fnbus".into(),
            nats: None,
            nats_port: None,
            tap: false,
            require_isolation: false,
        }
    }
}

static SECTION: LazyLock<Section> = LazyLock::new(|| {
    let default = BusConfig::default();
    Section {
        doc: "The bus itself.",
        keys: vec![
            Key::new("namespace", Shape::Name, "The first token of every NATS subject of this bus.")
                .default(default.namespace.as_str()),
            Key::new("data", Shape::Path, "The folder of the event log, the NATS store and the versions; or --data.")
                .default(default.data.display().to_string()),
            Key::new("nats", Shape::NatsUrl, "The NATS server to join, or --nats; without it fnbus starts its own."),
            Key::new("nats_port", Shape::Integer(1..=65535), "The port of fnbus' own NATS server; else a free one."),
            Key::new("tap", Shape::Bool, "Publish a copy of each accepted event to <namespace>.event.<trigger>.")
                .default(default.tap),
            Key::new("require_isolation", Shape::Bool, "Refuse to start where the kernel cannot enforce `isolation`.")
                .default(default.require_isolation),
        ],
        later: &["replicas", "accept"],
    }
});

impl BusConfig {
    pub fn section() -> &'static Section {
        &SECTION
    }

    /// Reads `[bus]`; `base` is the folder relative paths begin at.
    pub fn read(reader: Reader<'_>, base: &Path) -> Self {
        let default = Self::default();
        let config = Self {
            namespace: reader.get_or("namespace", default.namespace),
            data: base.join(reader.get_or("data", default.data)),
            nats: reader.get("nats"),
            nats_port: reader.get("nats_port"),
            tap: reader.get_or("tap", default.tap),
            require_isolation: reader.get_or("require_isolation", default.require_isolation),
        };
        if config.nats.is_some() {
            let wrong = Wrong::of_key("is the port of fnbus' own server, and `nats` names another server");
            reader.refuse("nats_port", &wrong.advice("keep one of the two").label("not used"));
        }
        reader.finish();
        config
    }
}
