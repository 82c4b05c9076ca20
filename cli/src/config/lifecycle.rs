//! What the dates of runtimes say of a config's functions.

use std::{collections::BTreeMap, fs, path::Path};

use bus::{Name, config::Problem};
use chrono::{DateTime, Utc};
use runtimes::{FunctionConfig, Kept, lifecycle::Act};
use toml::de::DeTable;

use super::{Config, ConfigError, Report, place::Places};

impl Config {
    /// A sentence for each function whose runtime has ended, or ends within half a year.
    pub(crate) fn endings(&self, now: DateTime<Utc>) -> Vec<String> {
        let ending = |(name, function): (&Name, &FunctionConfig)| {
            let pin = function.pin?;
            Some(format!("`{name}` runs on {}, which {}", pin.name, pin.warning(now)?))
        };
        self.functions.iter().filter_map(ending).collect()
    }

    /// The functions that are refused as their runtime has ended, where that is enforced. What was deployed before may
    /// still serve: of such only the date from which none is run is a problem of the file.
    pub(crate) fn check_runtimes(
        &self,
        path: &Path,
        kept: &BTreeMap<Name, Kept>,
        now: DateTime<Utc>,
    ) -> Result<(), ConfigError> {
        if !self.runtimes.enforce {
            return Ok(());
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        let (table, _) = DeTable::parse_recoverable(&text);
        let mut problems = Vec::new();
        for (name, function) in &self.functions {
            let is_new = kept.get(name).is_none_or(|kept| kept.versions.is_empty());
            let act = if is_new { Act::Create } else { Act::Invoke };
            if let Some(reason) = function.pin.and_then(|pin| pin.refuses(act, now)) {
                let span = Places(table.get_ref()).value(&["functions", name.as_str(), "runtime"]).unwrap_or(0..0);
                let (message, advice) = reason.split_once(": ").unwrap_or((&reason, ""));
                problems.push(Problem::new(span, message).label("refused").advice(advice));
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|problem| problem.span.start);
        drop(table);
        Err(ConfigError::Wrong(Report::new(path, text, problems)))
    }
}
