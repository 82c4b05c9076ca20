//! Somebody deletes or edits the stream of deliveries and its consumers while they are used.

use std::time::Duration;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::Nats;

pub(super) const FAULT: Fault = Fault {
    number: 42,
    sentence: "stream or consumer deleted, purged or edited while connected",
    short: 1,
    full: 15,
    seconds: 40,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let nats = Nats::start(&["-js"]).await;
    let jetstream = nats.jetstream().await;
    let mut arena = Arena::of(&trial, Arena::project().argument("--nats").argument(&nats.url)).await;
    arena.produce(&Traffic { rate: Some(40), slow: 100, ..Traffic::default() });
    for cycle in 0..trial.cycles {
        arena.accepted(20).await;
        let stream =
            crate::eventually("the stream is there", || async { jetstream.get_stream("FNBUS_DELIVER").await.ok() })
                .await;
        match cycle % 5 {
            0 => _ = jetstream.delete_stream("FNBUS_DELIVER").await,
            1 => _ = stream.delete_consumer("worker_python").await,
            2 => _ = stream.purge().await,
            3 => {
                let mut config = stream.cached_info().config.clone();
                (config.max_age, config.max_messages) = (Duration::from_secs(100), 5);
                _ = jetstream.update_stream(&config).await;
            }
            _ => {
                _ = stream.delete_consumer("worker_python").await;
                _ = jetstream.delete_stream("FNBUS_DELIVER").await;
            }
        }
        trial.passed();
    }
    arena.check().await
}
