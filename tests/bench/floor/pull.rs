//! A work queue that holds a backlog, pulled continuously and acknowledged: what JetStream itself can deliver.

use std::{io::BufRead, time::Instant};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    message::PublishMessage,
    stream::{Config, RetentionPolicy},
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{connect, say};
use crate::Result;

const SUBJECT: &str = "floor.work";
const BODY: usize = 1024;
const IN_FLIGHT: usize = 256;

pub(super) async fn pull(nats: &str, messages: usize) -> Result<()> {
    let jetstream = jetstream::new(connect(nats).await?);
    let stream = Config {
        name: "WORK".to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        retention: RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let stream = jetstream.create_stream(stream).await?;
    preload(&jetstream, messages).await?;
    let consumer = pull::Config {
        durable_name: Some("worker".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 4096,
        ..Default::default()
    };
    let consumer = stream.create_consumer(consumer).await?;
    say("ready")?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    let begun = Instant::now();
    let mut pulled = consumer.messages().await?;
    for _ in 0..messages {
        let message = pulled.next().await.ok_or("the pull ended")??;
        message.ack().await?;
    }
    say(&begun.elapsed().as_secs_f64().to_string())
}

async fn preload(jetstream: &jetstream::Context, messages: usize) -> Result<()> {
    let publish = |n: usize| async move {
        let message = PublishMessage::build().payload(vec![b'x'; BODY].into()).message_id(format!("{n:032}.1"));
        let ack = jetstream.send_publish(SUBJECT, message).await?;
        ack.await.map(drop)
    };
    Ok(stream::iter(0..messages).map(publish).buffer_unordered(IN_FLIGHT).try_collect().await?)
}
