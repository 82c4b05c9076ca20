//! The key that names a trigger's kind: exactly one of them.

use bus::config::{Problem, Reader, Wrong};

/// The kinds of this version, and the keys that belong to that kind alone.
const KINDS: [(Kind, &str, &[&str]); 5] = [
    (Kind::Http, "http", &["mode", "timeout", "max_body", "log"]),
    (Kind::Cron, "cron", &["timezone", "overlap", "missed", "missed_within"]),
    (Kind::File, "file", &["on", "settle"]),
    (Kind::Queue, "queue", &["dedup", "batch"]),
    (Kind::Event, "event", &[]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Http,
    Cron,
    File,
    Queue,
    Event,
}

impl Kind {
    /// The kind of a trigger; none after its problem was recorded.
    pub(super) fn of(reader: &Reader<'_>) -> Option<Self> {
        let mut named = KINDS.iter().filter(|(_, name, _)| reader.has(name));
        let Some((kind, name, _)) = named.next() else {
            let text = format!("{} does not say what it listens to", reader.title());
            let advice = "add http = \"GET /path\", cron = \"0 2 * * *\", file = \"inbox/*.csv\", queue = \"nats:subject\" or event = { type = [\"…\"] }";
            reader.problem(Problem::new(reader.at(), text).advice(advice).label("no kind"));
            return None;
        };
        if let Some((_, other, _)) = named.next() {
            let text = format!("{} has two kinds, `{name}` and `{other}`", reader.title());
            let advice = "make two triggers of it, with the same `to`";
            reader.problem(Problem::new(reader.key_span(other), text).advice(advice).label("a second kind"));
            return None;
        }
        Some(*kind)
    }

    /// Leaves the keys of all kinds unread: it is not known which belong here.
    pub(super) fn skip_all(reader: &Reader<'_>) {
        for (_, name, keys) in KINDS {
            for key in keys.iter().chain([&name]) {
                reader.field(key);
            }
        }
    }

    /// Refuses what belongs to the other kinds.
    pub(super) fn refuse_others(self, reader: &Reader<'_>) {
        let own = KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name);
        let a = if own.starts_with(['e', 'h']) { "an" } else { "a" };
        for (_, name, keys) in KINDS.iter().filter(|(kind, ..)| *kind != self) {
            reader.refuse(name, &Wrong::of_key("names another kind"));
            for key in *keys {
                let wrong = Wrong::of_key(format!("belongs to `{name}` triggers, and this is {a} `{own}` trigger"));
                reader.refuse(key, &wrong.advice(format!("take `{key}` out")).label("of another kind"));
            }
        }
    }
}
