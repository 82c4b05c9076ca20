//! Whether the connection carries anything, there and back. The client's own pings do not tell: it sends none as long as
//! something comes in, such as the heartbeats of our pulls, though nothing may get out.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Nats;

/// Between two looks while all is well.
const EVERY: Duration = Duration::from_millis(2500);
/// How long a message may take to the server and back, and how often it may take longer. A slow line that is full of
/// bodies takes its time.
const ANSWER: Duration = Duration::from_secs(5);
const MISSES: u32 = 3;

/// Makes a new connection in place of one that has stopped to carry, until it is told to end.
pub(crate) async fn watch(nats: Nats, shutdown: CancellationToken) {
    tokio::select! {
        () = listen(&nats) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn listen(nats: &Nats) {
    let inbox = nats.client.new_inbox();
    let Ok(mut echoes) = nats.client.subscribe(inbox.clone()).await else { return };
    let mut missed = 0;
    loop {
        nats.connected().await;
        if missed == 0 {
            sleep(EVERY).await;
        }
        let echo = async {
            nats.client.publish(inbox.clone(), Bytes::new()).await.ok()?;
            echoes.next().await
        };
        missed = match timeout(ANSWER, echo).await {
            Ok(Some(_)) => 0,
            // the client has ended
            Ok(None) => return,
            Err(_) => missed + 1,
        };
        if missed == MISSES {
            missed = 0;
            // an error means that it is being restored already
            let _ = nats.client.force_reconnect().await;
        }
    }
}
