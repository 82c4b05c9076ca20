//! The keys of `[http]` and `[triggers.NAME]`.

use std::sync::LazyLock;

use bus::{
    batch::MAX_SIZE,
    config::{Key, Section, Shape, Word, duration_text, size_text},
    event::FileChange,
    order::OnDead,
    sink::LogMode,
};

use super::{
    Dedup, HttpConfig, Missed, Mode, Overlap, PayloadKey, cron::MISSED_WITHIN, file::SETTLE, queue::BATCH_SIZE,
};

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

static BATCH: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "queue: functions get so many messages in one invocation; else one by one.",
    keys: vec![
        Key::new("size", Shape::Integer(1..=MAX_SIZE), "queue: the most messages in one.").default(BATCH_SIZE),
        Key::new("window", Shape::Duration, "queue: how long the first waits for others; else what is there goes."),
    ],
    later: &[],
});

static ORDER: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "Events that have the same there, such as `data.customer`, are delivered one at a time, in their order.",
    keys: vec![
        Key::new("key", Shape::Text("a place in the event"), "The place.").required(),
        Key::new(
            "on_dead",
            Shape::word::<OnDead>(),
            "Whether those behind a dead letter go on (park) or wait (block).",
        )
        .default(OnDead::default().word()),
    ],
    later: &[],
});

pub(super) static TRIGGER: LazyLock<Section> = LazyLock::new(|| {
    let text = || Shape::one_or_many(Shape::Text("a value"));
    Section {
        doc: "What turns the world into events. The key `http`, `cron`, `file`, `queue` or `event` names the kind.",
        keys: vec![
            Key::new("http", Shape::one_or_many(Shape::Text("a route")), "Routes, such as `POST /orders/{region}`."),
            Key::new(
                "cron",
                Shape::one_or_many(Shape::Text("a schedule")),
                "Times: `0 2 * * *`, `cron(…)`, `rate(…)` or `at(…)`.",
            ),
            Key::new("file", Shape::one_or_many(Shape::Text("a pattern")), "Files, such as `inbox/*.csv`."),
            Key::new("queue", Shape::Text("a queue"), "What others publish to a subject, such as `nats:payments.>`."),
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
            Key::new("timezone", Shape::Text("a zone"), "cron: the zone of the times; else that of the file."),
            Key::new(
                "overlap",
                Shape::word::<Overlap>(),
                "cron: whether a time is left out while the last is not done.",
            )
            .default(Overlap::default().word()),
            Key::new("missed", Shape::word::<Missed>(), "cron: which times are made up for after fnbus did not run.")
                .default(Missed::default().word()),
            Key::new("missed_within", Shape::Duration, "cron: how long a missed time is made up for.")
                .default(duration_text(MISSED_WITHIN)),
            Key::new("on", Shape::one_or_many(Shape::word::<FileChange>()), "file: what is told of the files.")
                .default(FileChange::Created.word()),
            Key::new("settle", Shape::Duration, "file: how long a file rests before it is taken for finished.")
                .default(duration_text(SETTLE)),
            Key::new("dedup", Shape::word::<Dedup>(), "queue: what tells that two messages are the same.")
                .default(Dedup::default().word()),
            Key::new("batch", Shape::Table(&BATCH), BATCH.doc),
            Key::new(
                "order_by",
                Shape::Either(vec![Shape::Text("a place in the event"), Shape::Table(&ORDER)]),
                ORDER.doc,
            ),
            Key::new(
                "example",
                Shape::Text("a body, or a path"),
                "http, event: what `fnbus up` prints to try it: a body or, of a route with variables, its path.",
            ),
        ],
        later: &["auth", "filter"],
    }
});
