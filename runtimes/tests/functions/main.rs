//! Functions as a worker uses them: real processes, real Python, temporary folders.

mod edits;
mod harness;
mod outcomes;
mod pool;
mod rate;
