//! The bus: what an event is; how it is matched, logged, carried, rendered and replayed. The only crate that speaks
//! NATS and SQLite.
//!
//! The modules, in the order an event meets them:

/// How `fnbus.toml` is read, and the keys of the bus itself.
pub mod config;
/// What happened: the event and its trigger's facts.
pub mod event;
/// Ids, all of them time-ordered UUIDs.
pub mod id;
/// Names that cannot be wrong.
pub mod name;
/// How an attempt ended.
pub mod outcome;
/// What a function gets.
pub mod payload;
/// Whether and when to try again.
pub mod retry;
/// What triggers publish to, and what they are answered.
pub mod sink;
/// Where an event can go.
pub mod target;

pub use event::Event;
pub use id::{EventId, RowId};
pub use name::Name;
pub use outcome::Outcome;
pub use sink::Sink;
pub use target::Target;
