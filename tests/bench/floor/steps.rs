//! Runs of steps, one run at a time: of each step a row that is synced and a message that comes out of JetStream.

use std::{io::BufRead, path::Path, time::Instant};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    stream::{Config, RetentionPolicy},
};
use bytes::Bytes;
use futures_util::StreamExt;
use rusqlite::Connection;

use super::{connect, say};
use crate::{Result, histogram::Histogram};

const SUBJECT: &str = "floor.step";

/// Makes so many runs whenever it is told to, and says the median of what one takes, in milliseconds.
pub(super) async fn steps(nats: &str, folder: &Path, runs: usize, steps: usize) -> Result<()> {
    let log = Connection::open(folder.join("steps.db"))?;
    log.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE step (seq INTEGER PRIMARY KEY, status INTEGER NOT NULL, output BLOB);",
    )?;
    let jetstream = jetstream::new(connect(nats).await?);
    let stream = Config {
        name: "STEPS".to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let stream = jetstream.create_stream(stream).await?;
    let consumer =
        pull::Config { durable_name: Some("worker".to_owned()), ack_policy: AckPolicy::Explicit, ..Default::default() };
    let mut messages = stream.create_consumer(consumer).await?.messages().await?;
    say("ready")?;
    let body = Bytes::from_static(&[b'x'; 256]);
    let mut told = std::io::stdin().lock();
    while told.read_line(&mut String::new())? > 0 {
        let mut latencies = Histogram::default();
        for _ in 0..runs {
            let begun = Instant::now();
            for _ in 0..steps {
                log.prepare_cached("INSERT INTO step (status, output) VALUES (10, ?1)")?.execute([&body[..]])?;
                let published = jetstream.publish(SUBJECT, body.clone()).await?;
                messages.next().await.ok_or("the pull ended")??.ack().await?;
                published.await?;
            }
            latencies.record(begun.elapsed());
        }
        say(&latencies.quantile(0.5).to_string())?;
    }
    Ok(())
}
