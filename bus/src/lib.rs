//! The bus: what an event is; how it is matched, logged, carried, rendered and replayed. The only crate that speaks
//! NATS and SQLite.
//!
//! An **event** is accepted: it is matched against the **catalog**, and the event and its **deliveries** are written
//! to the **log** in one synced commit. The **relay** keeps a **window** of deliveries in JetStream; a worker pulls
//! one, asks the **owner** to `begin` it, runs the function and reports the **outcome** with `end`. A synchronous
//! **call** takes core NATS there and back.
//!
//! The modules, in the order an event meets them:

// How `fnbus.toml` is read, and the keys of the bus itself.
pub mod config;
// Names that cannot be wrong.
pub mod name;
// The time, new ids, tasks: what is around.
mod ambient;
// Ids, all of them time-ordered UUIDs.
pub mod id;
// What happened: the event and its trigger's facts.
pub mod event;
// Events as others write and read them: CloudEvents.
pub mod cloudevent;

// What triggers publish to, and what they are answered.
pub mod sink;
// Where an event can go.
pub mod target;
// A place in an event, such as the key of an order.
pub mod path;
// Which events must not overtake each other.
pub mod order;
// What is bound right now: functions, triggers, rules.
pub mod catalog;
// The SQLite event log: the truth.
pub mod log;
// What follows from an outcome, as pure decisions.
pub mod chain;
// Pipelines, as a pure machine.
pub mod pipeline;
// Accept, begin, end: every decision about a delivery.
pub mod owner;
// Calls that are known to come.
pub mod foresight;
// What is on its way to workers, as a pure state machine.
pub mod window;

// Every subject of fnbus.
pub mod subject;
// Our own header names.
pub mod headers;
// An event as a NATS message.
pub mod wire;
// The NATS server, connection and stream.
pub mod nats;
// From the log on its way.
pub mod relay;
// What is to go to JetStream.
mod outbox;
// What takes deliveries from there.
pub mod carrier;
// From the log to what is outside the bus.
pub mod sender;
// From JetStream to a worker.
pub mod deliver;
// Synchronous calls, both ends.
pub mod call;
// Their answers, as they come.
pub mod streamed;

// What a function gets.
pub mod payload;
// How an attempt ended.
pub mod outcome;
// Many deliveries in one invocation: which of them ended how.
pub mod batch;
// Whether and when to try again.
pub mod retry;
// When somebody sets the clock.
mod jump;

// What a node tells people of itself.
pub mod presence;
// All of it, started and stopped as one.
pub mod node;
// How many files may be open.
pub mod descriptors;
// Child processes that do not outlive us.
pub mod child;
// Where a debug build can be told to die.
pub mod failpoint;
#[cfg(test)]
mod simulation;

pub use event::Event;
pub use id::{EventId, RowId};
pub use name::Name;
pub use node::Bus;
pub use outcome::Outcome;
pub use sink::Sink;
pub use target::Target;
