//! What there is to be called, as `ListFunctions`, `GetFunction` and `GetFunctionConfiguration` say it.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use bus::presence::{FunctionState, FunctionStatus};
use serde_json::{Value, json};

use super::{
    LambdaApi,
    error::LambdaError,
    invoke::Qualifier,
    name::{LATEST, Named, arn},
};

pub(super) async fn functions(State(api): State<LambdaApi>) -> Json<Value> {
    let functions: Vec<Value> = (api.views.functions)().iter().map(described).collect();
    Json(json!({ "Functions": functions }))
}

pub(super) async fn function(
    State(api): State<LambdaApi>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
) -> Result<Json<Value>, LambdaError> {
    let configuration = api.find(&name, &query)?;
    Ok(Json(json!({ "Configuration": configuration, "Code": { "RepositoryType": "fnbus" }, "Tags": {} })))
}

pub(super) async fn configuration(
    State(api): State<LambdaApi>,
    Path(name): Path<String>,
    Query(query): Query<Qualifier>,
) -> Result<Json<Value>, LambdaError> {
    api.find(&name, &query).map(Json)
}

impl LambdaApi {
    fn find(&self, name: &str, query: &Qualifier) -> Result<Value, LambdaError> {
        let (function, _) = self.named(&Named::read(name, query.qualifier.as_deref())?)?;
        let functions = (self.views.functions)();
        let status = functions.iter().find(|status| status.name == function);
        // it may have gone in between
        status.map(described).ok_or_else(|| self.unknown(function.as_str()))
    }
}

fn described(status: &FunctionStatus) -> Value {
    let (state, reason) = match &status.state {
        FunctionState::Starting => ("Pending", None),
        FunctionState::Ready => ("Active", None),
        FunctionState::Failed { message } => ("Failed", Some(message.as_str())),
    };
    let mut described = json!({
        "FunctionName": status.name.as_str(),
        "FunctionArn": arn(status.name.as_str()),
        "Runtime": status.runtime,
        "Version": LATEST,
        "RevisionId": status.version,
        "State": state,
        "LastUpdateStatus": if status.refused.is_some() { "Failed" } else { "Successful" },
        "PackageType": "Zip",
    });
    for (key, value) in [("StateReason", reason), ("LastUpdateStatusReason", status.refused.as_deref())] {
        if let Some(value) = value {
            described[key] = value.into();
        }
    }
    described
}
