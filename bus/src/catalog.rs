//! What is bound right now: which functions exist and how they are retried, which trigger feeds what, which rules
//! match events. One immutable value per config, swapped as a whole, so that every decision sees one config.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{
    batch::Batching,
    event::Event,
    name::Name,
    order::{OnDead, Order},
    payload::Format,
    pipeline::Machine,
    retry::RetryPolicy,
    target::Target,
};

/// One config, as far as the bus needs it.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub functions: HashMap<Name, Function>,
    pub pipelines: HashMap<Name, Arc<Machine>>,
    /// Trigger -> what its events are delivered to.
    pub triggers: HashMap<Name, Binding>,
    /// Rules over events already on the bus, in the order of their triggers' names.
    pub rules: Vec<Rule>,
}

/// What the owner needs to know of a function.
#[derive(Debug, Clone)]
pub struct Function {
    /// The class of workers that can run it: its runtime.
    pub class: &'static str,
    pub retry: RetryPolicy,
    pub timeout: Duration,
    /// Most invocations at once on this node, over all instances; 0 holds its deliveries back.
    pub concurrency: u32,
    pub chain: Chain,
}

/// What follows from a function's outcomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Gets the output of every success.
    pub then: Vec<Target>,
    /// One event for every element of an array in place of one for the whole output.
    pub each: bool,
    /// Gets the invocation record when an asynchronous delivery ended well.
    pub on_success: Vec<Target>,
    /// Gets the invocation record when an asynchronous delivery was given up.
    pub on_failure: Vec<Target>,
}

/// Where a trigger's events go, in which shape and order.
#[derive(Debug, Clone)]
pub struct Binding {
    pub to: Arc<[Target]>,
    pub format: Format,
    /// Of the events with one key, one at a time is delivered to each target, in their order.
    pub order_by: Option<Order>,
    /// Functions get so many at once.
    pub batch: Option<Batching>,
}

/// An `event` trigger: an event matches when every named attribute has one of the values.
#[derive(Debug, Clone)]
pub struct Rule {
    pub trigger: Name,
    pub attributes: BTreeMap<String, Vec<String>>,
    pub binding: Binding,
}

/// One delivery that follows from an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    pub target: Target,
    pub trigger: Option<Name>,
    pub format: Format,
    /// No delivery to the same target with the same key may be overtaken.
    pub key: Option<String>,
    /// Given up, it holds up those behind it until somebody settles it.
    pub block: bool,
}

impl Match {
    /// What is delivered by no trigger, and in no order.
    pub fn own(target: Target, format: Format) -> Self {
        Self { target, trigger: None, format, key: None, block: false }
    }
}

impl Catalog {
    /// The functions there are, sorted.
    pub fn function_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.functions.keys().map(Name::to_string).collect();
        names.sort();
        names
    }

    /// The deliveries of an event: its own trigger's targets, then those of each rule it matches. A target bound
    /// twice by one trigger gets it once.
    pub fn matches(&self, event: &Event) -> Vec<Match> {
        let own = event.trigger.as_ref().and_then(|name| Some((name, self.triggers.get(name)?)));
        let rules = self.rules.iter().filter(|rule| rule.matches(event)).map(|rule| (&rule.trigger, &rule.binding));
        let mut matches: Vec<Match> = Vec::new();
        for (trigger, binding) in own.into_iter().chain(rules) {
            let key = binding.order_by.as_ref().and_then(|order| Some((order.key.key(event)?, order.on_dead)));
            let block = matches!(key, Some((_, OnDead::Block)));
            for target in binding.to.iter() {
                let (target, trigger) = (target.clone(), Some(trigger.clone()));
                let key = key.as_ref().map(|(key, _)| key.clone());
                let next = Match { target, trigger, format: binding.format, key, block };
                if !matches.contains(&next) {
                    matches.push(next);
                }
            }
        }
        matches
    }

    /// How deliveries of a trigger's events to a function are gathered; none: one by one.
    pub fn batching(&self, trigger: &Name, function: &Name) -> Option<Batching> {
        let binding = self.triggers.get(trigger)?;
        let bound = binding.to.iter().any(|target| target.name() == Some(function));
        binding.batch.filter(|_| bound)
    }

    /// How a target's failed deliveries are repeated.
    pub fn retry(&self, target: &Target) -> RetryPolicy {
        target.name().and_then(|name| self.functions.get(name)).map(|function| function.retry).unwrap_or_default()
    }

    /// Why deliveries to a target wait, when this config is the reason.
    pub fn holds_back(&self, target: &Target) -> Option<String> {
        let name = target.name()?;
        match self.functions.get(name) {
            Some(function) if function.concurrency == 0 => {
                Some(format!("`{name}` is stopped: its `concurrency` is 0; it goes on when that is more"))
            }
            None if !self.pipelines.contains_key(name) => {
                Some(format!("there is no function `{name}` in the config; it goes on when there is one again"))
            }
            _ => None,
        }
    }

    /// What follows from a target's outcomes; none for what is no function.
    pub fn chain(&self, target: &Target) -> Option<(&Name, &Chain)> {
        let (name, function) = self.functions.get_key_value(target.name()?)?;
        Some((name, &function.chain))
    }
}

impl Rule {
    fn matches(&self, event: &Event) -> bool {
        self.attributes.iter().all(|(attribute, values)| {
            event.attribute(attribute).is_some_and(|actual| values.iter().any(|value| value == actual))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(to: &[&str], format: Format) -> Binding {
        let to = to.iter().map(|target| target.parse().unwrap()).collect();
        Binding { to, format, order_by: None, batch: None }
    }

    fn rule(trigger: &str, attributes: &[(&str, &[&str])], to: &str) -> Rule {
        Rule {
            trigger: trigger.parse().unwrap(),
            attributes: attributes
                .iter()
                .map(|(k, v)| ((*k).to_owned(), v.iter().map(|v| (*v).to_owned()).collect()))
                .collect(),
            binding: binding(&[to], Format::Body),
        }
    }

    fn targets(catalog: &Catalog, event: &Event) -> Vec<String> {
        catalog.matches(event).into_iter().map(|m| m.target.to_string()).collect()
    }

    #[test]
    fn an_event_goes_to_its_triggers_targets_and_to_every_rule_it_matches() {
        let mut catalog = Catalog::default();
        catalog.triggers.insert("orders".parse().unwrap(), binding(&["a", "a"], Format::HttpV2));
        catalog.rules = vec![
            rule("r1", &[("type", &["order.priced", "order.paid"])], "b"),
            rule("r2", &[("type", &["order.priced"]), ("subject", &["x"])], "c"),
            rule("r3", &[("tenant", &["t1"])], "d"),
        ];
        let mut event = Event::new("/s", "order.priced", "{}");
        assert_eq!(targets(&catalog, &event), ["b"]);
        event.subject = Some("x".into());
        event.extensions.insert("tenant".to_owned(), "t1".to_owned());
        event.trigger = Some("orders".parse().unwrap());
        assert_eq!(targets(&catalog, &event), ["a", "b", "c", "d"]);
    }

    #[test]
    fn only_what_a_trigger_is_bound_to_gets_its_batches() {
        let mut catalog = Catalog::default();
        let batch = Some(Batching { size: 10, window: Duration::ZERO });
        let orders: Name = "orders".parse().unwrap();
        catalog.triggers.insert(orders.clone(), Binding { batch, ..binding(&["a"], Format::Sqs) });
        assert_eq!(catalog.batching(&orders, &"a".parse().unwrap()), batch);
        assert_eq!(catalog.batching(&orders, &"b".parse().unwrap()), None);
    }

    #[test]
    fn an_event_that_nothing_is_bound_to_has_no_deliveries() {
        assert!(Catalog::default().matches(&Event::new("/s", "t", "")).is_empty());
    }
}
