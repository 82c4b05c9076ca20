//! Versions of functions, and which of them serves.

use axum::{
    Json,
    extract::{Path, State},
};
use bus::{
    Name,
    presence::{Moved, Promote, Unaliased, VersionStatus, Which},
};

use super::Control;
use crate::problem::Problem;

pub(super) async fn list(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<Vec<VersionStatus>>, Problem> {
    let function = function(&control, &name)?;
    Ok(Json((control.views.versions)(function).await?))
}

pub(super) async fn promote(
    State(control): State<Control>,
    Path(name): Path<String>,
    Json(promote): Json<Promote>,
) -> Result<Json<Moved>, Problem> {
    let function = function(&control, &name)?;
    Ok(Json((control.views.promote)(function, promote).await?))
}

pub(super) async fn rollback(
    State(control): State<Control>,
    Path(name): Path<String>,
    Json(which): Json<Which>,
) -> Result<Json<Moved>, Problem> {
    let function = function(&control, &name)?;
    Ok(Json((control.views.rollback)(function, which).await?))
}

pub(super) async fn unalias(
    State(control): State<Control>,
    Path(name): Path<String>,
    Json(which): Json<Which>,
) -> Result<Json<Unaliased>, Problem> {
    let function = function(&control, &name)?;
    Ok(Json((control.views.unalias)(function, which).await?))
}

fn function(control: &Control, name: &str) -> Result<Name, Problem> {
    let names = || control.bus.owner().catalog().function_names();
    let function = name.parse::<Name>().map_err(|_| Problem::unknown_function(name, &names()))?;
    super::known(control, &function).map(|()| function)
}
