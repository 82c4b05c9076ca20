//! Queues: `queue = "nats:payments.>"`, a JetStream subject that others publish to.
//!
//! The modules, from the config to the event:

/// Which queue is meant.
pub mod source;
/// A message as an event.
mod event;
/// Takes messages and accepts them.
mod run;

pub(crate) use run::Queue;
pub use source::QueueSource;
