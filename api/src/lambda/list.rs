//! What there is to be called, as `ListFunctions`, `GetFunction` and `GetFunctionConfiguration` say it.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use bus::presence::{FunctionState, FunctionStatus, VersionStatus};
use serde_json::{Value, json};

use super::{
    LambdaApi,
    error::LambdaError,
    invoke::Asking,
    name::{Named, arn},
};

const LATEST: &str = bus::target::Qualifier::LATEST;

pub(super) async fn functions(State(api): State<LambdaApi>) -> Json<Value> {
    let functions: Vec<Value> = (api.views.functions)().iter().map(described).collect();
    Json(json!({ "Functions": functions }))
}

pub(super) async fn function(
    State(api): State<LambdaApi>,
    Path(name): Path<String>,
    Query(query): Query<Asking>,
) -> Result<Json<Value>, LambdaError> {
    let configuration = api.find(&name, &query).await?;
    Ok(Json(json!({ "Configuration": configuration, "Code": { "RepositoryType": "fnbus" }, "Tags": {} })))
}

pub(super) async fn configuration(
    State(api): State<LambdaApi>,
    Path(name): Path<String>,
    Query(query): Query<Asking>,
) -> Result<Json<Value>, LambdaError> {
    api.find(&name, &query).await.map(Json)
}

impl LambdaApi {
    async fn find(&self, name: &str, query: &Asking) -> Result<Value, LambdaError> {
        let (function, version) = self.named(&Named::read(name, query.qualifier.as_deref())?).await?;
        let functions = (self.views.functions)();
        let status = functions.iter().find(|status| status.name == function);
        // it may have gone in between
        let mut described = status.map(described).ok_or_else(|| self.unknown(function.as_str()))?;
        if let Some(version) = version.filter(|version| version.as_str() != LATEST) {
            let kept = (self.views.versions)(function.clone()).await.unwrap_or_default();
            let leads = |v: &VersionStatus| {
                v.version.to_string() == version.as_str() || v.aliases.contains(&version.to_string())
            };
            described["FunctionArn"] = format!("{}:{version}", arn(function.as_str())).into();
            if let Some(kept) = kept.iter().find(|kept| leads(kept)) {
                described["Version"] = kept.version.to_string().into();
                described["RevisionId"] = kept.id.as_str().into();
                described["Runtime"] = kept.runtime.as_str().into();
            }
        }
        Ok(described)
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
