//! The world -> [`Event`](bus::Event): adapters that config binds to targets.
//!
//! A trigger makes an event of what happened, and gives it to a [`Sink`](bus::Sink): `accept` for what is delivered
//! later, `call` for what is answered now. It knows nothing of functions, logs or brokers.

// `[http]` and `[triggers.NAME]`.
pub mod config;
// HTTP requests, answered by functions or taken as events.
pub mod http;
// Times of a schedule.
pub mod cron;
// Files that come, change and go.
pub mod file;
// Messages of queues.
pub mod queue;
// The triggers that run by themselves.
mod running;
// What a running trigger tells of itself.
mod status;
// What a function gets of a trigger's event.
pub mod payload;

pub use running::Running;
pub use status::Status;
