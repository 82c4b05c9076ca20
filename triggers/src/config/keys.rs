//! The keys of `[http]` and `[triggers.NAME]`.

use std::sync::LazyLock;

use bus::{
    config::{Key, Section, Shape, Word, size_text},
    sink::LogMode,
};

use super::{HttpConfig, Mode, PayloadKey};

pub(super) static HTTP: LazyLock<Section> = LazyLock::new(|| {
    let default = HttpConfig::default();
    Section {
        doc: "The HTTP gateway.",
        keys: vec![
            Key::new("listen", Shape::Address, "Where HTTP requests are taken.").default(default.listen.to_string()),
            Key::new("max_body", Shape::Size, "The largest request body.").default(size_text(default.max_body)),
        ],
        later: &["cors", "tls"],
    }
});

pub(super) static TRIGGER: LazyLock<Section> = LazyLock::new(|| {
    let text = || Shape::one_or_many(Shape::Text("a value"));
    Section {
        doc: "What turns the world into events. The key `http` or `event` names the kind.",
        keys: vec![
            Key::new("http", Shape::one_or_many(Shape::Text("a route")), "Routes, such as `POST /orders/{region}`."),
            Key::new(
                "event",
                Shape::map("ATTRIBUTE", text()),
                "Events already on the bus whose attributes have any of these values.",
            ),
            Key::new("to", Shape::one_or_many(Shape::Text("a target")), "The function that gets the events.")
                .required(),
            Key::new("payload", Shape::word::<PayloadKey>(), "What the function gets.")
                .default(PayloadKey::default().word()),
            Key::new("mode", Shape::word::<Mode>(), "http: the function's response (sync), or 202 at once (async).")
                .default(Mode::default().word()),
            Key::new("timeout", Shape::Duration, "http: how long the caller waits; else the function's timeout."),
            Key::new("max_body", Shape::Size, "http: the largest request body; else that of [http]."),
            Key::new("log", Shape::word::<LogMode>(), "http: how much of the synchronous calls is logged.")
                .default(LogMode::default().word()),
        ],
        later: &["auth", "overlap", "missed", "on", "batch", "filter", "order_by", "dedup", "cron", "file", "queue"],
    }
});
