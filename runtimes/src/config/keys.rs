//! The keys of `[functions.NAME]`.

use std::{path::PathBuf, sync::LazyLock};

use bus::config::{Key, Section, Shape, Word, duration_text};

use super::{FunctionConfig, Isolation, RuntimeKind};

pub(super) static RETRY: LazyLock<Section> = LazyLock::new(|| {
    let default = FunctionConfig::new(RuntimeKind::Python, PathBuf::new()).retry;
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

pub(super) static SECRET: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "A value that is not written in this file.",
    keys: vec![
        Key::new("secret", Shape::Text("env:NAME or file:path"), "`env:NAME` or `file:path`; read as instances start.")
            .required(),
    ],
    later: &[],
});

pub(super) static FUNCTION: LazyLock<Section> = LazyLock::new(|| {
    let default = FunctionConfig::new(RuntimeKind::Python, PathBuf::new());
    let env = Shape::Either(vec![Shape::Text("a value"), Shape::Table(&SECRET)]);
    Section {
        doc: "A function: code, runtime, handler and limits.",
        keys: vec![
            Key::new("runtime", Shape::word::<RuntimeKind>(), "What the code is written for.").required(),
            Key::new("code", Shape::Path, "The folder with the code; else the one of the function's name."),
            Key::new(
                "handler",
                Shape::Text("where a call begins"),
                "Where a call begins: `module.function` in python (app.handler unless set), `file.export` in node \
                 (index.handler), a program in the code folder for provided (bootstrap), a program and its arguments for \
                 command.",
            ),
            Key::new("env", Shape::map("VARIABLE", env), "Environment variables of the function."),
            Key::new("timeout", Shape::Duration, "An invocation that takes longer is stopped.")
                .default(duration_text(default.timeout)),
            Key::new("memory", Shape::Integer(16..=1_048_576), "The most an instance may use, in MiB.")
                .default(i64::from(default.memory)),
            Key::new(
                "concurrency",
                Shape::Integer(0..=10_000),
                "The most instances at once, 0 stops the function; twice the number of cores unless set.",
            )
            .machine_default(i64::from(default.concurrency)),
            Key::new("warm", Shape::Integer(0..=10_000), "Instances that are kept ready at all times.")
                .default(i64::from(default.warm)),
            Key::new("keep_alive", Shape::Duration, "How long an idle instance beyond `warm` stays.")
                .default(duration_text(default.keep_alive)),
            Key::new("retry", Shape::Table(&RETRY), RETRY.doc),
            Key::new("isolation", Shape::word::<Isolation>(), "What keeps the function away from the machine.")
                .default(default.isolation.word()),
        ],
        later: &["then", "on_success", "on_failure", "each"],
    }
});
