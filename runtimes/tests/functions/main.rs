//! Functions as a worker uses them: real processes, real interpreters, temporary folders.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of tests fails as a test does")]

mod client;
mod command;
mod compiled;
mod conformance;
mod edits;
mod harness;
mod node;
mod outcomes;
mod pool;
mod provided;
mod rate;
mod slots;
mod zygote;
