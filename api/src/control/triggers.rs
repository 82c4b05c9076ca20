//! Triggers: what they do now, and steering them.

use axum::{
    Json,
    extract::{Path, State},
};
use bus::{
    Name,
    presence::{Steer, Steered, TriggerStatus},
};

use super::Control;
use crate::problem::Problem;

pub(super) async fn list(State(control): State<Control>) -> Json<Vec<TriggerStatus>> {
    Json((control.views.triggers)())
}

pub(super) async fn steer(
    State(control): State<Control>,
    Path((name, steer)): Path<(String, String)>,
) -> Result<Json<Steered>, Problem> {
    let mut known: Vec<String> = (control.views.triggers)().into_iter().map(|trigger| trigger.name.into()).collect();
    known.sort();
    let trigger = name.parse::<Name>().ok().filter(|name| known.iter().any(|known| known == name.as_str()));
    let trigger = trigger.ok_or_else(|| Problem::unknown_trigger(&name, &known))?;
    let steer = match steer.as_str() {
        "fire" => Steer::Fire,
        "pause" => Steer::Pause,
        "resume" => Steer::Resume,
        other => return Err(Problem::bad_request(format!("a trigger cannot be told to `{other}`"))),
    };
    (control.views.steer)(trigger, steer).await.map(Json).map_err(Problem::from)
}
