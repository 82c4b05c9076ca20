//! Reads what belongs to `queue`.

use std::time::Duration;

use bus::{
    batch::Batching,
    config::{FromValue, Reader, Shape, Value, Wrong, parsed},
};

use super::{Dedup, QueueTrigger};
use crate::queue::QueueSource;

/// Messages in an invocation, where a batch does not say.
pub(super) const BATCH_SIZE: u32 = 10;

pub(super) fn read_queue(reader: &Reader<'_>) -> Option<QueueTrigger> {
    let queue = reader.get("queue");
    let dedup = reader.get_or("dedup", Dedup::default());
    let batch = reader.field("batch").and_then(|field| field.reader()).map(read_batch);
    Some(QueueTrigger { queue: queue?, dedup, batch })
}

fn read_batch(reader: Reader<'_>) -> Batching {
    let batching =
        Batching { size: reader.get_or("size", BATCH_SIZE), window: reader.get_or("window", Duration::ZERO) };
    reader.finish();
    batching
}

impl FromValue for QueueSource {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        const ADVICE: &str = "name a subject of the NATS that fnbus uses, such as \"nats:payments.>\"";
        let named =
            |wrong: Wrong| if value.as_str().is_some() { wrong.label("not a queue").advice(ADVICE) } else { wrong };
        parsed(value).map_err(named)
    }
}
