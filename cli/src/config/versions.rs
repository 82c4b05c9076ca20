//! Versions and aliases that targets of a config name. Which there are is known to the log alone, so that one is missing
//! is no problem of the file.

use std::{collections::BTreeMap, fmt};

use bus::{
    Name, Target,
    presence::{MoveError, Which},
    target::Qualifier,
};
use runtimes::Kept;

use super::Config;

/// What sends something to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender<'a> {
    Trigger(&'a Name),
    Function(&'a Name, &'static str),
    Pipeline(&'a Name),
}

impl fmt::Display for Sender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trigger(name) => write!(f, "the trigger `{name}`"),
            Self::Function(name, key) => write!(f, "`{key}` of the function `{name}`"),
            Self::Pipeline(name) => write!(f, "the pipeline `{name}`"),
        }
    }
}

impl Config {
    /// Every target that names a version, and what sends to it.
    fn versions_named(&self) -> Vec<(Sender<'_>, &Name, &Qualifier)> {
        let triggers = self
            .triggers
            .iter()
            .flat_map(|(name, trigger)| trigger.to.iter().map(move |target| (Sender::Trigger(name), target)));
        let functions = self.functions.iter().flat_map(|(name, function)| {
            let chain = &function.chain;
            let keys = [("then", &chain.then), ("on_success", &chain.on_success), ("on_failure", &chain.on_failure)];
            keys.into_iter()
                .flat_map(move |(key, to)| to.iter().map(move |target| (Sender::Function(name, key), target)))
        });
        let pipelines = self.pipelines.iter().flat_map(|(name, pipeline)| {
            pipeline.machine.targets().into_iter().map(move |target| (Sender::Pipeline(name), target))
        });
        let all = triggers.chain(functions).chain(pipelines);
        all.filter_map(|(sender, target)| match target {
            Target::Version(function, version) => Some((sender, function, version)),
            _ => None,
        })
        .collect()
    }

    /// A sentence for each version or alias that is named and not there.
    pub(crate) fn unknown_versions(&self, kept: &BTreeMap<Name, Kept>) -> Vec<String> {
        let nothing = Kept::default();
        let mut sentences = Vec::new();
        for (sender, function, version) in self.versions_named() {
            let (kept, text) = (kept.get(function).unwrap_or(&nothing), version.as_str());
            let goes = format!("{sender} goes to `{function}:{version}`, and `{function}` has no such");
            match text.parse::<u32>() {
                // the first deploy will make it
                Ok(1) if kept.versions.is_empty() => {}
                Ok(number) if kept.versions.contains(&number) => {}
                Ok(_) => sentences.push(format!("{goes} version: `fnbus functions versions {function}` has them")),
                Err(_) if [Qualifier::LATEST, Qualifier::LIVE].contains(&text) || kept.aliases.contains(text) => {}
                Err(_) => sentences.push(format!(
                    "{goes} alias yet: `fnbus functions promote {function} VERSION --alias {version}` makes it"
                )),
            }
        }
        sentences
    }

    /// An error when something goes to an alias.
    pub(crate) fn is_unused(&self, function: &Name, which: &Which) -> Result<(), MoveError> {
        let Some(alias) = &which.alias else { return Ok(()) };
        let named = self.versions_named();
        let used = named.iter().find(|(_, to, version)| *to == function && version.as_str() == alias.as_str());
        used.map_or(Ok(()), |(sender, ..)| {
            let (function, alias, by) = (function.clone(), alias.clone(), sender.to_string());
            Err(MoveError::Used { function, alias, by })
        })
    }
}
