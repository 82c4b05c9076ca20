//! Cron: `cron = "0 2 * * *"`, `cron(…)`, `rate(…)`, `at(…)`.
//!
//! A time of the schedule is a **slot**. Slots are computed from the wall clock of a zone and are instants, so no
//! change of the clock makes two of one; a slot's event has the slot as its id, so it is accepted once whatever
//! happens. What was last done is remembered in the commit of the event.
//!
//! The modules, from the text to the event:

// An expression as written in the config.
pub mod expression;
// One field of it.
mod field;
// Days that are named by their place in the month.
mod day;
// Minutes, hours and days of a calendar, and when they come next.
mod calendar;
// Which slots are due, which were missed.
mod due;
// Waits for the slots and accepts their events.
mod run;
#[cfg(test)]
mod conformance;

pub use expression::Expression;
pub(crate) use run::{Cron, fired};
