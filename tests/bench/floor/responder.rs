//! Answers what comes with what came.

use futures_util::StreamExt;

use super::{connect, say};
use crate::Result;

pub(super) const SUBJECT: &str = "floor.call";

pub(super) async fn answer(nats: &str) -> Result<()> {
    let client = connect(nats).await?;
    let mut requests = client.subscribe(SUBJECT).await?;
    client.flush().await?;
    say("ready")?;
    while let Some(request) = requests.next().await {
        if let Some(reply) = request.reply {
            client.publish(reply, request.payload).await?;
        }
    }
    Ok(())
}
