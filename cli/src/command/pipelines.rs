//! `fnbus pipelines`: which there are, and how their runs stand.

use std::process::ExitCode;

use api::control::PipelineStatus;

use crate::{args::Global, failure::Failure, show, terminal};

#[derive(Debug, clap::Args)]
pub(crate) struct Pipelines {
    /// One JSON object per pipeline
    #[arg(long)]
    json: bool,
}

impl Pipelines {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode, Failure> {
        global.ask(async |client| {
            let pipelines: Vec<PipelineStatus> = client.get("/v1/pipelines", None::<&()>).await?;
            if self.json {
                pipelines.iter().try_for_each(show::json)?;
                return Ok(ExitCode::SUCCESS);
            }
            if pipelines.is_empty() {
                terminal::talk("no pipeline is configured; add [pipelines.NAME]");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = pipelines.iter().map(|p| {
                let runs = [p.runs.running, p.runs.done, p.runs.dead].map(|n| n.to_string());
                [vec![p.name.to_string()], runs.to_vec(), vec![p.steps.clone()]].concat()
            });
            show::table(&["NAME", "RUNNING", "DONE", "DEAD", "STEPS"], rows)?;
            Ok(ExitCode::SUCCESS)
        })
    }
}
