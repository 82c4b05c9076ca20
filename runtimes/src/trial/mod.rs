//! Keep-alive policies put to the test: a **trace** of calls is replayed through each, and what it would have cost is
//! counted. The trace is made from a seed ([`synthetic`]) or comes from a log.

mod dice;
mod replay;
pub mod synthetic;

pub use replay::{Contender, Tally, replay};

/// What an app holds where nothing is known of it, in MB.
pub const MEMORY: f64 = 140.0;

/// One invocation. Seconds from the begin of the trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    pub at: f64,
    pub took: f64,
}

/// What is kept or ended as one: an app, or a function.
#[derive(Debug, Clone, PartialEq)]
pub struct App {
    /// Seconds that a cold start takes.
    pub start: f64,
    /// MB of an instance.
    pub memory: f64,
    /// In the order of time.
    pub calls: Vec<Call>,
}

/// Who was called when, and for how long all of it was watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Each has been called.
    pub apps: Vec<App>,
    pub seconds: f64,
}

impl Trace {
    pub fn calls(&self) -> usize {
        self.apps.iter().map(|app| app.calls.len()).sum()
    }
}
