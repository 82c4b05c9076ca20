//! `nats:subject`: published as a CloudEvent in binary mode, under the delivery's id.

use async_nats::HeaderMap;
use bytes::Bytes;

use super::{Refused, Sent};
use crate::{
    cloudevent,
    log::backlog::Due,
    nats::{Nats, publish::NotPublished},
};

pub(super) async fn publish(nats: &Nats, subject: &str, due: &Due) -> Sent {
    nats.connected().await;
    let mut headers = HeaderMap::new();
    cloudevent::nats::each_header(&due.event, |name, value| headers.insert(name, value));
    let id = due.id.to_string();
    match nats.publish(subject, headers, due.event.data.clone(), Some(&id)).await {
        Ok(Some(stored)) => Ok(serde_json::to_vec(&stored).unwrap_or_default().into()),
        Ok(None) => Ok(Bytes::new()),
        Err(error @ NotPublished::Unconfirmed) => Err(Refused::new("Nats.Timeout", error.to_string())),
        Err(error) => Err(Refused::new("Nats.Publish", error.to_string())),
    }
}
