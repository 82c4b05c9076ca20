//! Pipelines and their runs.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    response::Response,
};
use bus::{
    Name,
    log::runs::{self, RunCounts, RunDetail, RunSelection},
    pipeline::Machine,
};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::{Control, asked, lines};
use crate::problem::Problem;

/// `fnbus runs list`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunsQuery {
    pub selection: RunSelection,
    pub limit: Option<usize>,
}

/// One pipeline, as `fnbus pipelines` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineStatus {
    pub name: Name,
    /// On one line, such as `validate -> (reserve | charge) -> confirm`.
    pub steps: String,
    pub machine: Machine,
    /// Its runs in the log.
    pub runs: RunCounts,
}

pub(super) async fn list(State(control): State<Control>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let RunsQuery { selection, limit } = asked(query.as_deref())?;
    if let Some(pipeline) = &selection.pipeline {
        known(&control, pipeline)?;
    }
    let rows = control.bus.log().read(move |c| runs::runs(c, &selection, limit.unwrap_or(50))).await?;
    Ok(lines(stream::iter(rows)))
}

pub(super) async fn show(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<RunDetail>, Problem> {
    let mut run = control.bus.log().read(move |c| runs::run(c, &id)).await?;
    let catalog = control.bus.owner().catalog();
    run.steps.iter_mut().for_each(|step| step.explain(&catalog));
    Ok(Json(run))
}

pub(super) async fn pipelines(State(control): State<Control>) -> Result<Json<Vec<PipelineStatus>>, Problem> {
    let counts: HashMap<String, RunCounts> = control.bus.log().read(runs::counts).await?.into_iter().collect();
    let catalog = control.bus.owner().catalog().clone();
    let status = |(name, machine): (&Name, &std::sync::Arc<Machine>)| PipelineStatus {
        name: name.clone(),
        steps: machine.to_string(),
        machine: (**machine).clone(),
        runs: counts.get(name.as_str()).copied().unwrap_or_default(),
    };
    let mut all: Vec<PipelineStatus> = catalog.pipelines.iter().map(status).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(all))
}

/// A name that is neither configured nor has runs is a mistake; one that was configured once is not.
fn known(control: &Control, pipeline: &str) -> Result<(), Problem> {
    let catalog = control.bus.owner().catalog();
    if catalog.functions.keys().any(|name| name.as_str() == pipeline) {
        return Err(Problem::bad_request(format!("`{pipeline}` is a function; `fnbus events --function {pipeline}`")));
    }
    Ok(())
}
