//! Dead letters: what there is, and settling them.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bus::log::{
    dead::{self, Dropped, Edit, Edited},
    query::Selection,
};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use super::{Control, asked, known_target, lines};
use crate::problem::Problem;

/// `fnbus dead list`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadQuery {
    pub selection: Selection,
    pub limit: Option<usize>,
}

/// `fnbus dead edit`.
#[derive(Debug, Serialize, Deserialize)]
pub struct EditRequest {
    /// The letter's event.
    pub id: String,
    #[serde(default)]
    pub target: Option<String>,
    /// The body as it is to be.
    pub data_base64: String,
}

pub(super) async fn list(State(control): State<Control>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let DeadQuery { selection, limit } = asked(query.as_deref())?;
    known_target(&control, &selection).await?;
    let keep = control.bus.keep();
    let read = move |c: &_| dead::letters(c, &selection, limit.unwrap_or(1000), keep);
    Ok(lines(stream::iter(control.bus.log().read(read).await?)))
}

/// How many there are, of which kinds, and what dropping them would lead to.
pub(super) async fn totals(
    State(control): State<Control>,
    RawQuery(query): RawQuery,
) -> Result<Json<Dropped>, Problem> {
    let DeadQuery { selection, .. } = asked(query.as_deref())?;
    known_target(&control, &selection).await?;
    Ok(Json(control.bus.log().read(move |c| dead::plan_drop(c, &selection)).await?))
}

pub(super) async fn drop(
    State(control): State<Control>,
    Json(selection): Json<Selection>,
) -> Result<Json<Dropped>, Problem> {
    Ok(Json(control.bus.owner().drop_letters(selection).await?))
}

pub(super) async fn edit(
    State(control): State<Control>,
    Json(request): Json<EditRequest>,
) -> Result<Json<Edited>, Problem> {
    let EditRequest { id, target, data_base64 } = request;
    let data = BASE64_STANDARD.decode(data_base64).map_err(Problem::bad_request)?.into();
    Ok(Json(control.bus.owner().edit_letter(Edit { id, target, data }).await?))
}
