//! `fnbus functions`: what can run, and how it does.

use std::process::ExitCode;

use bus::{outcome::Start, presence::FunctionStatus};

use super::versions::Action;
use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Functions {
    #[command(flatten)]
    list: List,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// One JSON object per function
    #[arg(long)]
    json: bool,
}

impl Functions {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        match self.action {
            Some(action) => action.run(global),
            None => self.list.run(global),
        }
    }
}

impl List {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let functions: Vec<FunctionStatus> = client.get("/v1/functions", None::<&()>).await?;
            if self.json {
                functions.iter().try_for_each(show::json)?;
                return Ok(ExitCode::SUCCESS);
            }
            if functions.is_empty() {
                terminal::talk("no function is configured; add [functions.NAME]");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = functions.iter().map(|f| {
                vec![
                    f.name.to_string(),
                    f.runtime.clone(),
                    f.word().to_owned(),
                    version(f),
                    format!("{}/{}", f.busy, u64::from(f.concurrency) * u64::from(f.slots)),
                    f.warm.to_string(),
                    f.invocations.to_string(),
                    f.cold_starts.to_string(),
                    start(f),
                    format!("{} MiB", f.memory.div_ceil(1 << 20)),
                    f.errors.to_string(),
                    show::short(f.trouble().or(f.notice.as_deref()).unwrap_or_default(), 80),
                ]
            });
            let headers = [
                "NAME",
                "RUNTIME",
                "STATE",
                "VERSION",
                "BUSY",
                "WARM",
                "CALLS",
                "COLD",
                "START",
                "MEMORY",
                "ERRORS",
                "LAST TROUBLE",
            ];
            show::table(&headers, rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// How long calls waited that found no instance with the code loaded: half of them, and all but one in a hundred.
fn start(function: &FunctionStatus) -> String {
    let cold = function.starts.iter().filter(|start| start.found != Start::Warm);
    let Some(most) = cold.max_by_key(|start| start.count) else { return "-".to_owned() };
    let ms = |start: u64, init: u64| (start + init) as f64 / 1e3;
    format!("{:.1}/{:.1} ms", ms(most.start_us.p50, most.init_us.p50), ms(most.start_us.p99, most.init_us.p99))
}

/// The number of the version that serves and its id, and whether it stays.
fn version(function: &FunctionStatus) -> String {
    let Some(id) = &function.version else { return "-".to_owned() };
    let number = function.number.map_or_else(String::new, |number| format!("{number} "));
    let newest = function.latest.filter(|latest| function.number != Some(*latest));
    if let Some((other, share)) = function.shares.first_key_value() {
        return format!("{number}{id}; {other} has {:.0} %", share * 100.0);
    }
    match (function.pinned, newest) {
        (false, _) => format!("{number}{id}"),
        (true, None) => format!("{number}{id}, pinned"),
        (true, Some(newest)) => format!("{number}{id}, pinned; newest {newest}"),
    }
}
