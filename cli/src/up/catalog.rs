//! The config as others see it.

use std::{collections::BTreeSet, sync::Arc};

use bus::{
    Name,
    catalog::{Binding, Catalog, Function, Rule},
    presence::TriggerStatus,
};
use triggers::{
    Running,
    config::{EventTrigger, Mode, TriggerConfig, TriggerKind},
};

use crate::config::Config;

/// What the bus matches and retries by. A rule that is paused matches nothing; what another paused trigger accepted is
/// bound as ever.
pub(super) fn catalog(config: &Config, paused: &BTreeSet<Name>) -> Catalog {
    let functions = config.functions.iter().map(|(name, function)| {
        let function = Function {
            class: function.runtime.as_str(),
            retry: function.retry,
            timeout: function.timeout,
            concurrency: function.calls(),
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
            TriggerKind::Event(_) if paused.contains(name) => {}
            TriggerKind::Event(EventTrigger { attributes }) => {
                catalog.rules.push(Rule { trigger: name.clone(), attributes: attributes.clone(), binding });
            }
        }
    }
    catalog
}

fn binding(trigger: &TriggerConfig) -> Binding {
    let batch = match &trigger.kind {
        TriggerKind::Queue(queue) => queue.batch,
        _ => None,
    };
    Binding {
        to: Arc::from(trigger.to.as_slice()),
        format: trigger.payload.format(&trigger.kind),
        order_by: trigger.order_by.clone(),
        batch,
    }
}

/// What `fnbus triggers` shows.
pub(super) fn triggers(config: &Config, running: &Running, paused: &BTreeSet<Name>) -> Vec<TriggerStatus> {
    let status = |(name, trigger): (&Name, &TriggerConfig)| {
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
            paused: paused.contains(name),
            state: live.state,
            lag: live.lag,
            next: live.next,
        }
    };
    config.triggers.iter().map(status).collect()
}
