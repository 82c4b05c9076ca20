//! Reads `[functions.NAME]`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use bus::{
    Name,
    catalog::Chain,
    config::{Field, FromValue, Problem, Reader, Section, Shape, Value, Wrong},
    retry::RetryPolicy,
};

use super::{EnvValue, Folders, FunctionConfig, Isolation, Runtime, RuntimeKind, keys};
use crate::command;

/// Its addresses have 32 bits. MiB.
const WASM_MEMORY: u32 = 4096;

impl FunctionConfig {
    pub fn section() -> &'static Section {
        &keys::FUNCTION
    }

    /// Reads one function; `base` is the folder relative paths begin at. None when the runtime, on which the rest
    /// depends, is missing or wrong.
    pub fn read(name: &Name, reader: Reader<'_>, base: &Path) -> Option<Self> {
        let runtime = reader.required::<Runtime>("runtime");
        let code = reader.get_or("code", PathBuf::from(name.as_str()));
        let default = Self::new(runtime.map_or(RuntimeKind::Python, |runtime| runtime.kind), base.join(code));
        let config = Self {
            pin: runtime.and_then(|runtime| runtime.pin),
            handler: read_handler(&reader, default.runtime).unwrap_or(default.handler),
            env: read_env(&reader, base),
            timeout: reader.get_or("timeout", default.timeout),
            memory: reader.get_or("memory", default.memory),
            processes: reader.get_or("processes", default.processes),
            cpu: reader.get("cpu").map(|Percent(percent)| percent),
            ephemeral_storage: reader.get_or("ephemeral_storage", default.ephemeral_storage),
            concurrency: reader.get_or("concurrency", default.concurrency),
            slots: reader.get_or("slots", default.slots),
            warm: reader.get_or("warm", default.warm),
            keep_alive: reader.get_or("keep_alive", default.keep_alive),
            retry: RetryPolicy::read(reader.table("retry"), &default.retry),
            chain: Chain {
                then: reader.list("then"),
                each: reader.get_or("each", false),
                on_success: reader.list("on_success"),
                on_failure: reader.list("on_failure"),
            },
            isolation: reader.get_or("isolation", default.isolation),
            network: reader.get_or("network", default.network),
            folders: read_folders(reader.table("folders"), base),
            freeze: reader.get_or("freeze", default.freeze),
            hosts: reader.list("hosts"),
            zygote: reader.get_or("zygote", default.zygote),
            ..default
        };
        // a stopped function may keep its `warm` for when it runs again
        if config.concurrency > 0 && config.warm > config.concurrency {
            let text = format!("is {}, more than `concurrency` allows ({})", config.warm, config.concurrency);
            reader.refuse("warm", &Wrong::of_key(text).advice("lower `warm` or raise `concurrency`").label("too many"));
        }
        if config.runtime == RuntimeKind::Command && config.warm > 0 {
            let wrong = Wrong::of_key("has no effect on a command, which is started for each invocation");
            reader.refuse("warm", &wrong.advice("take it out").label("nothing to keep"));
        }
        if config.slots > 1
            && let Some(each) = runtime.and_then(|runtime| one_at_a_time(runtime.kind))
        {
            let wrong = Wrong::of_key(format!("is {}, and {each}", config.slots)).label("one at a time");
            reader.refuse("slots", &wrong.advice("take it out, and raise `concurrency` for more calls at once"));
        }
        if config.runtime == RuntimeKind::Wasm {
            check_wasm(&reader, &config);
        } else if reader.has("hosts") {
            let wrong = Wrong::of_key("has an effect on wasm functions alone");
            reader.refuse("hosts", &wrong.advice("take it out; other functions have `network`").label("not enforced"));
        }
        for key in ["network", "folders"] {
            if config.isolation == Isolation::Process && reader.has(key) {
                let wrong = Wrong::of_key("has an effect in a sandbox alone, and `isolation` is \"process\"");
                reader.refuse(key, &wrong.advice("take one of the two out").label("not enforced"));
            }
        }
        if config.runtime == RuntimeKind::Provided && !config.network {
            let wrong = Wrong::of_key("must be true for provided: the Runtime API is asked over a connection");
            reader.refuse(
                "network",
                &wrong.advice("take it out, or use another runtime").label("nothing could be asked"),
            );
        }
        if config.runtime != RuntimeKind::Python && reader.has("zygote") {
            let wrong = Wrong::of_key("has an effect on python functions alone");
            reader.refuse("zygote", &wrong.advice("take it out").label("nothing to fork"));
        }
        reader.finish();
        runtime.map(|_| config)
    }
}

/// Why an instance of a runtime runs one invocation at a time, where it does.
fn one_at_a_time(runtime: RuntimeKind) -> Option<&'static str> {
    match runtime {
        RuntimeKind::Python => Some("a python instance runs one call at a time: another one is forked in milliseconds"),
        RuntimeKind::Command => Some("a command is started for each call"),
        RuntimeKind::Wasm => Some("wasm has an instance for each call"),
        RuntimeKind::Node | RuntimeKind::Provided => None,
    }
}

/// Of a core.
struct Percent(u32);

impl FromValue for Percent {
    fn from_value(value: &Value<'_>, shape: &Shape) -> Result<Self, Wrong> {
        let read = u32::from_value(value, shape).map(Self);
        read.map_err(|wrong| wrong.advice("it is percent of one core: write 50 for half of one, 200 for two"))
    }
}

/// WebAssembly is a sandbox of its own.
fn check_wasm(reader: &Reader<'_>, config: &FunctionConfig) {
    if !config.runtime.is_built() {
        let wrong = Wrong::of_key("cannot be `wasm`: this fnbus was built without wasm").label("not in this binary");
        reader.refuse("runtime", &wrong.advice("build it with `--features wasm`, or take one that has it"));
    }
    for key in ["warm", "freeze", "isolation", "network", "processes", "cpu", "ephemeral_storage"] {
        if reader.has(key) {
            let wrong =
                Wrong::of_key("has no effect on wasm, where each invocation has an instance and nothing around it");
            reader.refuse(key, &wrong.advice("take it out").label("nothing to set"));
        }
    }
    if config.memory > WASM_MEMORY {
        let wrong = Wrong::of_key(format!("is {} MiB, more than WebAssembly can address", config.memory));
        reader.refuse("memory", &wrong.advice(format!("lower it to {WASM_MEMORY} at most")).label("too much"));
    }
}

/// None where there is none, and where it is wrong.
fn read_handler(reader: &Reader<'_>, runtime: RuntimeKind) -> Option<String> {
    if runtime == RuntimeKind::Command && !reader.has("handler") {
        let problem = Problem::new(reader.at(), format!("{} has no `handler`", reader.title()));
        reader.problem(problem.label("which program?").advice("name it: handler = \"./report.sh --daily\""));
    }
    let field = reader.field("handler")?;
    let handler: String = field.read()?;
    let parts = |path: &str, between: &[char]| path.split(between).all(|part| !part.is_empty());
    let (good, label, advice) = match runtime {
        RuntimeKind::Python => (
            handler
                .rsplit_once('.')
                .is_some_and(|(module, function)| is_identifier(function) && parts(module, &['.', '/'])),
            "not module.function",
            "write the module and the function in it: \"app.handler\" is `handler` in app.py",
        ),
        RuntimeKind::Node => (
            handler
                .rsplit('/')
                .next()
                .and_then(|last| last.split_once('.'))
                .is_some_and(|(file, export)| !file.is_empty() && parts(export, &['.']))
                && !handler.split('/').any(|part| part == ".."),
            "not file.export",
            "write the file and what it exports: \"index.handler\" is `handler` of index.js, index.mjs or index.cjs",
        ),
        RuntimeKind::Provided => (
            !handler.is_empty() && !handler.starts_with('/') && !handler.split('/').any(|part| part == ".."),
            "not a file in the code folder",
            "name an executable file in the code folder, such as \"bootstrap\"",
        ),
        RuntimeKind::Wasm => (
            command::words(&handler)
                .and_then(|words| words.into_iter().next())
                .is_some_and(|file| !file.starts_with('/') && !file.split('/').any(|part| part == "..")),
            "not a file in the code folder",
            "name a file of WebAssembly in the code folder and its arguments, such as \"price.wasm --daily\"",
        ),
        RuntimeKind::Command => (
            command::words(&handler).is_some(),
            "not a command line",
            "write a program and its arguments, such as \"./report.sh --daily\", and close every quote",
        ),
    };
    let good = good && !handler.contains('\0');
    if !good {
        field.wrong(&Wrong::sentence(format!("`{handler}` is not a handler")).label(label).advice(advice));
    }
    good.then_some(handler)
}

fn read_env(reader: &Reader<'_>, base: &Path) -> BTreeMap<String, EnvValue> {
    let read = |field: Field<'_>| {
        if !is_variable(field.name) {
            let wrong = Wrong::sentence(format!("`{}` is not the name of an environment variable", field.name));
            field.wrong_name(&wrong.label("not a name").advice("use A-Z a-z 0-9 and _, and do not begin with a digit"));
        }
        let value = if field.value().is_table() {
            read_secret(&field, base)
        } else {
            field.read().and_then(|text: String| {
                let nul = text.contains('\0');
                if nul {
                    field.wrong(&Wrong::of_key("must not contain a NUL character").label("cannot be passed on"));
                }
                (!nul).then_some(EnvValue::Plain(text))
            })
        };
        Some((field.name.to_owned(), value?))
    };
    reader.fields("env").into_iter().filter_map(read).collect()
}

fn read_folders(reader: Reader<'_>, base: &Path) -> Folders {
    let paths = |key| reader.list::<PathBuf>(key).into_iter().map(|path| base.join(path)).collect();
    let folders = Folders { read: paths("read"), write: paths("write") };
    reader.finish();
    folders
}

fn read_secret(field: &Field<'_>, base: &Path) -> Option<EnvValue> {
    let reader = field.reader()?;
    let secret = reader.required::<String>("secret").and_then(|text| match text.split_once(':') {
        Some(("env", name)) if is_variable(name) => Some(EnvValue::SecretEnv(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Some(EnvValue::SecretFile(base.join(path))),
        _ => {
            // the text may be the secret itself: it is not repeated
            let wrong = Wrong::of_key("does not say where the secret is").label("neither env: nor file:");
            let wrong = wrong.advice("write secret = \"env:NAME\" or secret = \"file:path\"");
            reader.field("secret")?.wrong(&wrong);
            None
        }
    });
    reader.finish();
    secret
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_') && chars.all(|c| c.is_alphanumeric() || c == '_')
}

fn is_variable(text: &str) -> bool {
    text.is_ascii() && is_identifier(text)
}
