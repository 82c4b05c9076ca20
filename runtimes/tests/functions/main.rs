//! Functions as a worker uses them: real processes, real Python, temporary folders.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod edits;
mod harness;
mod outcomes;
mod pool;
mod rate;
