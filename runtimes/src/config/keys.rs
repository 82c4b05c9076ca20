//! The keys of `[functions.NAME]`.

use std::{path::PathBuf, sync::LazyLock};

use bus::{
    config::{Key, Section, Shape, Word, duration_text},
    retry::RetryPolicy,
};

use super::{FunctionConfig, Isolation, KeepAlive, Runtime, RuntimeKind};

pub(super) static SECRET: LazyLock<Section> = LazyLock::new(|| Section {
    doc: "A value that is not written in this file.",
    keys: vec![
        Key::new("secret", Shape::Text("env:NAME or file:path"), "`env:NAME` or `file:path`; read as instances start.")
            .required(),
    ],
    later: &[],
});

pub(super) static FOLDERS: LazyLock<Section> = LazyLock::new(|| {
    let paths = || Shape::one_or_many(Shape::Path);
    Section {
        doc: "What a function in a sandbox may reach beside its own files; made when it is not there.",
        keys: vec![
            Key::new("read", paths(), "Folders or files to read."),
            Key::new("write", paths(), "Folders or files to read and to write."),
        ],
        later: &[],
    }
});

pub(super) static FUNCTION: LazyLock<Section> = LazyLock::new(|| {
    let default = FunctionConfig::new(RuntimeKind::Python, PathBuf::new());
    let targets = || Shape::one_or_many(Shape::Text("a target"));
    let env = Shape::Either(vec![Shape::Text("a value"), Shape::Table(&SECRET)]);
    Section {
        doc: "A function: code, runtime, handler and limits.",
        keys: vec![
            Key::new(
                "runtime",
                Runtime::shape(),
                "What the code is written for; `python3.13` or `nodejs22.x`: for that one and no other.",
            )
            .required(),
            Key::new("code", Shape::Path, "The folder with the code, or a zip file; else the folder of the function's name."),
            Key::new(
                "handler",
                Shape::Text("where a call begins"),
                "Where a call begins: `module.function` in python (app.handler unless set), `file.export` in node \
                 (index.handler), a program in the code folder for provided (bootstrap), a program and its arguments for \
                 command, and the same of a file in the code folder for wasm (main.wasm).",
            ),
            Key::new("env", Shape::map("VARIABLE", env), "Environment variables of the function."),
            Key::new("timeout", Shape::Duration, "An invocation that takes longer is stopped.")
                .default(duration_text(default.timeout)),
            Key::new("memory", Shape::Integer(16..=1_048_576), "The most an instance may use, in MiB.")
                .default(i64::from(default.memory)),
            Key::new(
                "processes",
                Shape::Integer(8..=1_048_576),
                "The most processes and threads an instance may have, with all that it starts.",
            )
            .default(i64::from(default.processes)),
            Key::new(
                "cpu",
                Shape::Integer(1..=100_000),
                "The most CPU time an instance may use, in percent of one core; as much as there is unless set.",
            ),
            Key::new(
                "ephemeral_storage",
                Shape::Integer(1..=10_240),
                "The most an instance may have in files of its own (TMPDIR, and /tmp in namespaces), in MiB.",
            )
            .default(i64::from(default.ephemeral_storage)),
            Key::new(
                "concurrency",
                Shape::Integer(0..=10_000),
                "The most instances at once, 0 stops the function; twice the number of cores unless set.",
            )
            .machine_default(i64::from(default.concurrency)),
            Key::new(
                "slots",
                Shape::Integer(1..=64),
                "The most invocations an instance of a provided or node function runs at once.",
            )
            .default(i64::from(default.slots)),
            Key::new("warm", Shape::Integer(0..=10_000), "Instances that are kept ready at all times.")
                .default(i64::from(default.warm)),
            Key::new(
                "keep_alive",
                Shape::Either(vec![Shape::Word(vec![KeepAlive::AUTO]), Shape::Duration]),
                "How long an idle instance beyond `warm` stays; `auto`: as long as it pays, by how the function is called.",
            )
            .default(default.keep_alive.text()),
            Key::new("retry", Shape::Table(RetryPolicy::section()), RetryPolicy::section().doc),
            Key::new("then", targets(), "Targets that get the output of every success, synchronous or not."),
            Key::new("each", Shape::Bool, "`then` gets one event for each element of an array, not one for all.")
                .default(false),
            Key::new("on_success", targets(), "Targets that get the invocation record of asynchronous successes."),
            Key::new("on_failure", targets(), "Targets that get the invocation record of what was given up."),
            Key::new("isolation", Shape::word::<Isolation>(), "What keeps the function away from the machine.")
                .default(default.isolation.word()),
            Key::new("network", Shape::Bool, "Whether a function in a sandbox may open connections.")
                .default(default.network),
            Key::new("folders", Shape::Table(&FOLDERS), FOLDERS.doc),
            Key::new(
                "freeze",
                Shape::Bool,
                "Idle instances are stopped until the next call, so that what goes on in them takes no CPU.",
            )
            .default(default.freeze),
            Key::new(
                "hosts",
                Shape::one_or_many(Shape::Text("a host, or host:port")),
                "Hosts a wasm function may send requests to over HTTP, such as api.example.com or 127.0.0.1:8080.",
            ),
            Key::new(
                "zygote",
                Shape::Bool,
                "Instances of a python function are forked from a process that has loaded its code; false: each loads it.",
            )
            .default(default.zygote),
        ],
        later: &[],
    }
});
