//! A running node: config, bus, functions, triggers and control plane, wired, reloaded and drained.
//!
//! * [`warden`]: the process above the node, which ends what the node leaves behind;
//! * [`mod@serve`]: the plan, from the bound port to the last signal;
//! * [`catalog`]: the config as the bus, the gateway and the control plane see it;
//! * [`force`]: the config in force, and everything it reaches;
//! * [`reload`]: edits of the config file;
//! * [`welcome`]: what is printed when it is ready.

mod catalog;
mod force;
mod reload;
mod serve;
mod signals;
pub(crate) mod warden;
mod welcome;

pub(crate) use serve::{Options, ServeError, serve};
