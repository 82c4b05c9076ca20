//! Reads what belongs to `queue`.

use bus::config::{FromValue, Reader, Shape, Value, Wrong, parsed};

use super::{Dedup, QueueTrigger};
use crate::queue::QueueSource;

pub(super) fn read_queue(reader: &Reader<'_>) -> Option<QueueTrigger> {
    let queue = reader.get("queue");
    let dedup = reader.get_or("dedup", Dedup::default());
    Some(QueueTrigger { queue: queue?, dedup })
}

impl FromValue for QueueSource {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        const ADVICE: &str = "name a subject of the NATS that fnbus uses, such as \"nats:payments.>\"";
        let named =
            |wrong: Wrong| if value.as_str().is_some() { wrong.label("not a queue").advice(ADVICE) } else { wrong };
        parsed(value).map_err(named)
    }
}
