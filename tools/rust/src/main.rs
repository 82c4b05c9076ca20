//! Does what the event names.

use std::path::Path;

use lambda_runtime::{
    Error, FunctionResponse, LambdaEvent, run, run_concurrent, service_fn,
    streaming::{Body, Response, channel},
};
use serde_json::{Value, json};

async fn handle(event: LambdaEvent<Value>) -> Result<FunctionResponse<Value, Body>, Error> {
    let LambdaEvent { payload, context } = event;
    Ok(FunctionResponse::BufferedResponse(match payload["what"].as_str() {
        Some("fail") => return Err("no such thing".into()),
        Some("panic") => panic!("out of order"),
        Some("exit") => std::process::exit(3),
        Some("pid") => std::process::id().into(),
        Some("context") => json!([
            context.request_id.len(),
            context.invoked_function_arn,
            context.env_config.memory,
            context.client_context.map(|told| told.custom),
        ]),
        Some("meet") => {
            let notes = Path::new(&std::env::var("FNBUS_PROJECT")?).join("notes");
            std::fs::write(notes.join(payload["word"].as_str().unwrap_or_default()), "")?;
            while !["a", "b"].iter().all(|word| notes.join(word).exists()) {
                tokio::task::yield_now().await;
            }
            std::process::id().into()
        }
        Some("stream") => {
            let (mut sender, body) = channel();
            tokio::spawn(async move {
                for piece in ["one ", "two"] {
                    let _ = sender.send_data(piece.into()).await;
                }
            });
            return Ok(FunctionResponse::StreamingResponse(Response::from(body)));
        }
        _ => payload,
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    match std::env::var_os("AWS_LAMBDA_MAX_CONCURRENCY") {
        Some(_) => run_concurrent(service_fn(handle)).await,
        None => run(service_fn(handle)).await,
    }
}
