//! `fnbus runtimes`: what functions can be written for, until when, and what of it this machine has.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, thread};

use bus::Name;
use chrono::{NaiveDate, Utc};
use runtimes::{
    Interpreters, Lifecycle, RuntimeKind,
    lifecycle::{LIFECYCLES, Stage},
};
use serde::Serialize;

use crate::{args::Global, config::ConfigError, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Runtimes {
    /// One JSON object per runtime
    #[arg(long)]
    json: bool,
}

/// One word that `runtime` can have.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    kind: &'static str,
    /// What AWS calls the interpreter that was found, or what is asked for.
    identifier: Option<String>,
    /// Where the interpreter is; none where functions bring their own, and where there is none.
    path: Option<PathBuf>,
    version: Option<String>,
    /// Why it cannot be used on this machine.
    missing: Option<String>,
    /// None: no dates are known.
    state: Option<Stage>,
    deprecation_date: Option<NaiveDate>,
    function_create_block_date: Option<NaiveDate>,
    function_update_block_date: Option<NaiveDate>,
    function_invoke_block_date: Option<NaiveDate>,
    /// Functions of the config that ask for it.
    functions: Vec<Name>,
}

impl Runtimes {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        let (mut used, mut enforced) = (BTreeMap::<&'static str, Vec<Name>>::new(), false);
        match global.load() {
            Ok(config) => {
                enforced = config.runtimes.enforce;
                for (name, function) in config.functions {
                    used.entry(function.runtime_name()).or_default().push(name);
                }
            }
            // the machine can be looked at without a project
            Err(ConfigError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let rows = rows(&used);
        if self.json {
            rows.iter().try_for_each(show::json)?;
            return Ok(ExitCode::SUCCESS);
        }
        let headers = ["RUNTIME", "STATE", "DEPRECATED", "NOT MADE", "NOT CHANGED", "NOT RUN", "HERE", "FUNCTIONS"];
        show::table(&headers, rows.iter().map(Row::cells))?;
        for row in rows.iter().filter(|row| !row.functions.is_empty()) {
            if let Some(missing) = &row.missing {
                terminal::talk(missing);
            }
        }
        if !enforced {
            terminal::talk("NOT MADE, NOT CHANGED and NOT RUN hold with [runtimes] enforce = true alone");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Every runtime; each is looked for at the same time, and each interpreter asked once.
fn rows(used: &BTreeMap<&'static str, Vec<Name>>) -> Vec<Row> {
    let kinds = RuntimeKind::ALL.into_iter().filter(|kind| kind.is_built()).map(|kind| (kind, None));
    let all = kinds.chain(LIFECYCLES.iter().map(|pin| (pin.kind, Some(*pin))));
    let interpreters = &Interpreters::default();
    thread::scope(|scope| {
        let looking: Vec<_> = all.map(|(kind, pin)| scope.spawn(move || row(interpreters, kind, pin, used))).collect();
        looking.into_iter().filter_map(|looked| looked.join().ok()).collect()
    })
}

fn row(
    interpreters: &Interpreters,
    kind: RuntimeKind,
    pin: Option<Lifecycle>,
    used: &BTreeMap<&'static str, Vec<Name>>,
) -> Row {
    let name = pin.map_or(kind.as_str(), |pin| pin.name);
    let (found, missing) = match interpreters.find(kind, pin) {
        Some(Ok(found)) => (Some(found), None),
        Some(Err(missing)) => (None, Some(missing)),
        None => (None, None),
    };
    let identifier = pin.map(|pin| pin.name.to_owned()).or_else(|| Some(found.as_ref()?.identifier.clone()));
    let lifecycle = identifier.as_deref().and_then(Lifecycle::of);
    let (path, version) = found.map(|found| (found.path, found.version)).unzip();
    Row {
        name,
        kind: kind.as_str(),
        identifier,
        path,
        version,
        missing,
        state: lifecycle.map(|lifecycle| lifecycle.stage(Utc::now())),
        deprecation_date: lifecycle.map(|lifecycle| lifecycle.deprecation_date),
        function_create_block_date: lifecycle.map(|lifecycle| lifecycle.function_create_block_date),
        function_update_block_date: lifecycle.map(|lifecycle| lifecycle.function_update_block_date),
        function_invoke_block_date: lifecycle.map(|lifecycle| lifecycle.function_invoke_block_date()),
        functions: used.get(name).cloned().unwrap_or_default(),
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let day = |day: Option<NaiveDate>| day.map_or_else(|| "-".to_owned(), |day| day.to_string());
        let here = match (&self.identifier, &self.path, &self.missing) {
            (_, _, Some(_)) => "missing".to_owned(),
            (Some(identifier), Some(path), None) if *identifier == self.name => path.display().to_string(),
            (Some(identifier), Some(path), None) => format!("{identifier}, {}", path.display()),
            _ => "-".to_owned(),
        };
        let functions: Vec<&str> = self.functions.iter().map(Name::as_str).collect();
        vec![
            self.name.to_owned(),
            self.state.map_or("-", Stage::as_str).to_owned(),
            day(self.deprecation_date),
            day(self.function_create_block_date),
            day(self.function_update_block_date),
            day(self.function_invoke_block_date),
            here,
            functions.join(", "),
        ]
    }
}
