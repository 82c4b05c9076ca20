//! `retry = { attempts = 5 }`: of a function, or of a pipeline's step.

use std::sync::LazyLock;

use super::{Key, Problem, Reader, Section, Shape, duration_text};
use crate::retry::RetryPolicy;

static SECTION: LazyLock<Section> = LazyLock::new(|| {
    let default = RetryPolicy::default();
    Section {
        doc: "How failed asynchronous deliveries are repeated.",
        keys: vec![
            Key::new("attempts", Shape::Integer(1..=1000), "Attempts in all, the first included.")
                .default(i64::from(default.attempts)),
            Key::new("wait", Shape::Duration, "The wait before the second attempt; it doubles from there.")
                .default(duration_text(default.wait)),
            Key::new("max_wait", Shape::Duration, "The longest wait.").default(duration_text(default.max_wait)),
            Key::new("max_age", Shape::Duration, "No attempt begins later than this after the event was accepted.")
                .default(duration_text(default.max_age)),
        ],
        later: &[],
    }
});

impl RetryPolicy {
    pub fn section() -> &'static Section {
        &SECTION
    }

    /// Reads the table; what it does not say is as in `default`.
    pub fn read(reader: Reader<'_>, default: &Self) -> Self {
        let retry = Self {
            attempts: reader.get_or("attempts", default.attempts),
            wait: reader.get_or("wait", default.wait),
            max_wait: reader.get_or("max_wait", default.max_wait),
            max_age: reader.get_or("max_age", default.max_age),
        };
        if retry.wait > retry.max_wait {
            let problem = Problem::new(
                reader.field("wait").map_or(reader.at(), |f| f.span()),
                format!("the first wait in {} is longer than its `max_wait`", reader.title()),
            );
            reader.problem(problem.advice("lower `wait` or raise `max_wait`").label("too long"));
        }
        reader.finish();
        retry
    }
}
