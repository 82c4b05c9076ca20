//! `fnbus.toml`, whole: every crate reads its own sections, here they are put together and checked across.

mod change;
mod cross;
mod defaults;
mod keys;
mod lifecycle;
mod pipeline;
mod place;
mod report;
mod routes;
mod schema;
#[cfg(test)]
mod tests;
mod versions;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use api::ApiConfig;
use bus::{
    Name,
    config::{BusConfig, Field, LogConfig, Problem, Problems, Reader, Wrong},
    sender::Webhooks,
};
use miette::Diagnostic;
use runtimes::config::{FunctionConfig, PoolConfig, RuntimesConfig};
use serde_json::json;
use toml::de::DeTable;
use triggers::config::{HttpConfig, TriggerConfig, Zone};

pub(crate) use defaults::defaults;
pub(crate) use pipeline::PipelineConfig;
pub(crate) use report::Report;
pub(crate) use schema::schema;

use crate::args::Global;

/// A config without problems.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The zone that cron expressions are in.
    pub(crate) timezone: Zone,
    pub(crate) bus: BusConfig,
    pub(crate) log: LogConfig,
    pub(crate) http: HttpConfig,
    pub(crate) api: ApiConfig,
    pub(crate) webhooks: Webhooks,
    pub(crate) runtimes: RuntimesConfig,
    pub(crate) pool: PoolConfig,
    /// The folder relative paths begin at.
    pub(crate) base: PathBuf,
    pub(crate) functions: BTreeMap<Name, FunctionConfig>,
    pub(crate) triggers: BTreeMap<Name, TriggerConfig>,
    /// Functions and pipelines share one namespace.
    pub(crate) pipelines: BTreeMap<Name, PipelineConfig>,
}

/// Why there is no config.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(crate) enum ConfigError {
    #[error("there is no {}", path.display())]
    #[diagnostic(help("`fnbus init` makes one; --config names another"))]
    Missing { path: PathBuf },
    #[error("cannot read {}: {source}", path.display())]
    #[diagnostic(help("it must be a UTF-8 text file that you may read; --config names another"))]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Wrong(Report),
}

impl Global {
    /// The config that the arguments name.
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        match self.load_edit()? {
            (config, None) => Ok(config),
            (_, Some(code)) => Err(ConfigError::Wrong(code)),
        }
    }

    /// The same, though the code of functions is missing or cannot be used, which is told apart.
    pub(crate) fn load_edit(&self) -> Result<(Config, Option<Report>), ConfigError> {
        let (mut config, code) = Config::load(&self.config)?;
        if let Some(data) = &self.data {
            config.bus.data = absolute(data);
        }
        Ok((config, code))
    }
}

impl Config {
    /// Reads and checks a file. What is wrong with code alone is told apart.
    fn load(path: &Path) -> Result<(Self, Option<Report>), ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })?;
        let file = absolute(path);
        let base = file.parent().unwrap_or(&file);
        match Self::parse_apart(&text, base) {
            Ok((config, code)) if code.is_empty() => Ok((config, None)),
            Ok((config, code)) => Ok((config, Some(Report::new(path, text, code)))),
            Err(problems) => Err(ConfigError::Wrong(Report::new(path, text, problems))),
        }
    }

    /// Reads and checks a text whose relative paths begin at `base`. Where only code is missing or wrong there is a config,
    /// and what is wrong.
    fn parse_apart(text: &str, base: &Path) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let (problems, code) = (Problems::default(), Problems::default());
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let problem = Problem::new(error.span().unwrap_or(0..0), error.message());
            problems.record(problem.label("not TOML").advice("what the keys say is looked at once the file is TOML"));
        }
        // what a recovering parser leaves out would come back as problems that are none
        if !errors.is_empty() {
            return Err(problems.into_sorted());
        }
        let config = Self::read(Reader::new(table.get_ref(), 0..0, &keys::FILE, "", &problems), base);
        cross::check(&config, table.get_ref(), &problems);
        cross::check_code(&config, table.get_ref(), &code);
        let code = code.into_sorted();
        if problems.is_empty() {
            return Ok((config, code));
        }
        for problem in code {
            problems.record(problem);
        }
        Err(problems.into_sorted())
    }

    fn read(file: Reader<'_>, base: &Path) -> Self {
        let timezone = file.get_or("timezone", Zone::UTC);
        let config = Self {
            timezone,
            bus: BusConfig::read(file.table("bus"), base),
            log: LogConfig::read(file.table("log")),
            http: HttpConfig::read(file.table("http")),
            api: ApiConfig::read(file.table("api")),
            webhooks: Webhooks::read(file.table("webhooks")),
            runtimes: RuntimesConfig::read(file.table("runtimes")),
            pool: PoolConfig::read(file.table("pool")),
            base: base.to_owned(),
            functions: named(&file, "functions", |name, reader| FunctionConfig::read(name, reader, base)),
            triggers: named(&file, "triggers", |_, reader| TriggerConfig::read(reader, base, timezone)),
            pipelines: named(&file, "pipelines", |_, reader| PipelineConfig::read(reader)),
        };
        file.finish();
        config
    }
}

/// Reads a table of named entries.
fn named<T>(file: &Reader<'_>, key: &str, read: impl Fn(&Name, Reader<'_>) -> Option<T>) -> BTreeMap<Name, T> {
    let entry = |field: Field<'_>| {
        let name = Name::from_str(field.name);
        if let Err(invalid) = &name {
            field.wrong_name(&Wrong::sentence(invalid.to_string()).label("not a name"));
        }
        // what is wrong inside an entry with a wrong name is said all the same
        let value = read(name.as_ref().unwrap_or(&Name::fnbus()), field.reader()?);
        Some((name.ok()?, value?))
    };
    file.fields(key).into_iter().filter_map(entry).collect()
}

/// The data folder a config file names, whatever else may be wrong with the file: so that a node that still runs on
/// an older edit of it is found.
pub(crate) fn data_folder(path: &Path) -> Result<PathBuf, ConfigError> {
    match Config::load(path) {
        Ok((config, _)) => Ok(config.bus.data),
        Err(ConfigError::Wrong(_)) => {
            let text = fs::read_to_string(path).unwrap_or_default();
            let (table, _) = DeTable::parse_recoverable(&text);
            let bus = table.get_ref().get("bus").and_then(|bus| bus.get_ref().as_table());
            let data = bus.and_then(|bus| bus.get("data")?.get_ref().as_str());
            // in the middle of an edit there is nothing behind the key
            let data = data.filter(|data| !data.is_empty()).map(PathBuf::from);
            let file = absolute(path);
            Ok(file.parent().unwrap_or(&file).join(data.unwrap_or(BusConfig::default().data)))
        }
        Err(error) => Err(error),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl ConfigError {
    /// One object per problem.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        match self {
            Self::Wrong(report) => report.json(),
            Self::Missing { path } | Self::Unreadable { path, .. } => vec![json!({
                "file": path.display().to_string(),
                "line": null,
                "column": null,
                "message": self.to_string(),
                "advice": self.help().map(|h| h.to_string()),
            })],
        }
    }
}
