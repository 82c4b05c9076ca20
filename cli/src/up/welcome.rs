//! What is printed when a node is ready: where everything is, and the calls to try.

use std::{fmt::Write, net::SocketAddr};

use chrono::Utc;
use runtimes::Enforcement;
use triggers::config::{Mode, TriggerKind};

use crate::{config::Config, show::local as shown};

/// Lines of one kind; more would push the addresses off the screen.
const MOST: usize = 12;

/// What is sent to see it come out again somewhere.
const BODY: &str = r#"{"hello":"world"}"#;

/// Facts that are only known once it runs.
pub(super) struct Facts<'a> {
    pub(super) http: SocketAddr,
    /// None: another program has the address.
    pub(super) api: Option<SocketAddr>,
    pub(super) nats: &'a str,
    pub(super) own_nats: bool,
    pub(super) config_file: &'a std::path::Path,
    pub(super) isolation: &'a Enforcement,
}

/// The text, for stderr.
pub(super) fn text(config: &Config, facts: &Facts<'_>) -> String {
    let mut text = String::new();
    let mut line = |args: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{args}");
    };
    line(format_args!("fnbus {} serves {}", env!("CARGO_PKG_VERSION"), facts.config_file.display()));
    line(format_args!("  http   http://{}", facts.http));
    if let Some(api) = facts.api {
        line(format_args!("  lambda http://{api}  (aws --endpoint-url, boto3 endpoint_url)"));
    }
    let whose = if facts.own_nats { "started for this bus" } else { "joined" };
    line(format_args!("  nats   {} ({whose})", facts.nats));
    line(format_args!("  data   {}", config.bus.data.display()));
    for sentence in isolation(config, facts.isolation).into_iter().chain(config.endings(Utc::now())) {
        line(format_args!("  {sentence}"));
    }
    if config.functions.is_empty() {
        line(format_args!("  no function is configured yet: add [functions.NAME]"));
    }
    let mut tries = Vec::new();
    let mut later = Vec::new();
    for (name, trigger) in &config.triggers {
        let example = trigger.example.as_deref();
        let to: Vec<String> = trigger.to.iter().map(ToString::to_string).collect();
        match &trigger.kind {
            TriggerKind::Http(http) => {
                for route in &http.routes {
                    let mode = if http.mode == Mode::Async { " (202, runs behind)" } else { "" };
                    tries.push(format!("{}   # {name} -> {}{mode}", curl(facts.http, route, example), to.join(", ")));
                }
            }
            TriggerKind::Cron(cron) => {
                let now = Utc::now();
                let next = cron.expressions.iter().filter_map(|e| e.next(now, cron.zone.0, now)).min();
                let next =
                    next.map_or("never".to_owned(), |next| shown(next.with_timezone(&cron.zone.0).fixed_offset()));
                later.push(format!("cron: {name} -> {}, next {next}", to.join(", ")));
            }
            TriggerKind::File(file) => {
                let patterns: Vec<&str> = file.patterns.iter().map(triggers::file::Pattern::as_str).collect();
                later.push(format!("file: {name} -> {}, watches {}", to.join(", "), patterns.join(", ")));
            }
            TriggerKind::Queue(queue) => {
                later.push(format!("queue: {name} -> {}, reads {}", to.join(", "), queue.queue));
            }
            TriggerKind::Event(event) => {
                if let Some(kind) = event.attributes.get("type").and_then(|kinds| kinds.first()) {
                    let body = example.unwrap_or(BODY);
                    tries.push(format!("fnbus emit {kind} -d '{body}'   # {name} -> {}", to.join(", ")));
                }
            }
        }
    }
    for (title, entries) in [("try", tries), ("by itself", later)] {
        if entries.is_empty() {
            continue;
        }
        line(format_args!("\n{title}:"));
        for entry in entries.iter().take(MOST) {
            line(format_args!("  {entry}"));
        }
        if entries.len() > MOST {
            line(format_args!("  … and {} more: fnbus triggers", entries.len() - MOST));
        }
    }
    line(format_args!("\nthen: fnbus events   fnbus show ID   fnbus logs -f   (Ctrl-C drains and ends)"));
    text
}

/// Which functions are in no sandbox, and what the kernel does not enforce for the others.
fn isolation(config: &Config, isolation: &Enforcement) -> Vec<String> {
    let open = config.functions.iter().filter(|(_, function)| !function.is_sandboxed());
    let open: Vec<_> = open.map(|(name, _)| format!("`{name}`")).collect();
    let mut sentences = Vec::new();
    if !open.is_empty() {
        let names = open.join(", ");
        sentences.push(format!("{names} with `isolation = \"process\"`: against accidents, not against hostile code"));
    }
    let missing = isolation.missing(config.functions.values());
    if !missing.is_empty() {
        let what = missing.iter().map(|part| part.what).collect::<Vec<_>>().join("; ");
        sentences.push(format!("this kernel does not hold functions back from: {what} (fnbus doctor)"));
    }
    sentences
}

/// A call to try: with the example, else with variables filled in and a body where the method has one.
fn curl(http: SocketAddr, route: &triggers::http::route::RoutePath, example: Option<&str>) -> String {
    let method = if route.method == "ANY" { "GET" } else { &route.method };
    let path: String =
        route.path.split('/').map(|segment| segment.trim_matches(['{', '}', '+'])).collect::<Vec<_>>().join("/");
    let path = if route.path.starts_with('/') { path } else { "/".to_owned() };
    let (place, body) = match example {
        Some(place) if place.starts_with('/') => (Some(place), BODY),
        Some(body) => (None, body),
        None => (None, BODY),
    };
    let path = place.map_or(path, str::to_owned);
    let json = || format!(" -d '{body}' -H 'content-type: application/json'");
    let (verb, body) = match method {
        "GET" => (String::new(), String::new()),
        "POST" => (String::new(), json()),
        "PUT" | "PATCH" => (format!("-X {method} "), json()),
        other => (format!("-X {other} "), String::new()),
    };
    format!("curl {verb}http://{http}{path}{body}")
}
