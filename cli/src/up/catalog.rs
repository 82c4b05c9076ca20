//! The config as others see it.

use std::sync::Arc;

use bus::{
    catalog::{Binding, Catalog, Function, Rule},
    presence::TriggerStatus,
};
use triggers::{
    Running,
    config::{EventTrigger, Mode, TriggerConfig, TriggerKind},
};

use crate::config::Config;

/// What the bus matches and retries by.
pub(super) fn catalog(config: &Config) -> Catalog {
    let functions = config.functions.iter().map(|(name, function)| {
        let function = Function {
            class: function.runtime.as_str(),
            retry: function.retry,
            timeout: function.timeout,
            concurrency: function.concurrency,
            chain: function.chain.clone(),
        };
        (name.clone(), function)
    });
    let pipelines = config.pipelines.iter().map(|(name, pipeline)| (name.clone(), Arc::new(pipeline.machine.clone())));
    let mut catalog = Catalog { functions: functions.collect(), pipelines: pipelines.collect(), ..Catalog::default() };
    for (name, trigger) in &config.triggers {
        let binding = binding(trigger);
        match &trigger.kind {
            TriggerKind::Http(_) | TriggerKind::Cron(_) | TriggerKind::File(_) | TriggerKind::Queue(_) => {
                catalog.triggers.insert(name.clone(), binding);
            }
            TriggerKind::Event(EventTrigger { attributes }) => {
                catalog.rules.push(Rule { trigger: name.clone(), attributes: attributes.clone(), binding });
            }
        }
    }
    catalog
}

fn binding(trigger: &TriggerConfig) -> Binding {
    Binding { to: Arc::from(trigger.to.as_slice()), format: trigger.payload.format(&trigger.kind) }
}

/// What `fnbus triggers` shows.
pub(super) fn triggers(config: &Config, running: &Running) -> Vec<TriggerStatus> {
    let status = |(name, trigger): (&bus::Name, &TriggerConfig)| {
        let (kind, on, mode) = match &trigger.kind {
            TriggerKind::Http(http) => {
                let mode = match http.mode {
                    Mode::Sync => "sync",
                    Mode::Async => "async",
                };
                ("http", http.routes.iter().map(ToString::to_string).collect(), mode)
            }
            TriggerKind::Cron(cron) => {
                let zone = format!("{}", cron.zone);
                ("cron", cron.expressions.iter().map(|e| format!("{e} {zone}")).collect(), "async")
            }
            TriggerKind::File(file) => ("file", file.patterns.iter().map(ToString::to_string).collect(), "async"),
            TriggerKind::Queue(queue) => ("queue", vec![queue.queue.to_string()], "async"),
            TriggerKind::Event(event) => {
                let on = event.attributes.iter().map(|(key, values)| format!("{key} = {}", values.join(" | ")));
                ("event", on.collect(), "async")
            }
        };
        let live = running.status(name);
        TriggerStatus {
            name: name.clone(),
            kind: kind.to_owned(),
            on,
            to: trigger.to.iter().map(ToString::to_string).collect(),
            mode: mode.to_owned(),
            state: live.state,
            lag: live.lag,
            next: live.next,
        }
    };
    config.triggers.iter().map(status).collect()
}
