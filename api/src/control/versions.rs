//! Versions of functions, and which of them serves.

use axum::{
    Json,
    extract::{Path, State},
};
use bus::{
    Name,
    presence::{MoveError, Moved, Promote, VersionStatus},
    target::Qualifier,
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

pub(super) async fn rollback(State(control): State<Control>, Path(name): Path<String>) -> Result<Json<Moved>, Problem> {
    let function = function(&control, &name)?;
    Ok(Json((control.views.rollback)(function).await?))
}

/// Whether there is such a version or alias.
pub(super) async fn known(control: &Control, function: &Name, version: &Qualifier) -> Result<(), Problem> {
    if (control.views.has_version)(function.clone(), version.clone()).await? {
        return Ok(());
    }
    let all = (control.views.versions)(function.clone()).await?;
    let known = all.iter().map(|kept| kept.version.to_string()).collect::<Vec<_>>().join(", ");
    Err(MoveError::NoVersion { function: function.clone(), version: version.to_string(), known }.into())
}

fn function(control: &Control, name: &str) -> Result<Name, Problem> {
    let names = || control.bus.owner().catalog().function_names();
    let function = name.parse::<Name>().map_err(|_| Problem::unknown_function(name, &names()))?;
    super::known(control, &function).map(|()| function)
}
