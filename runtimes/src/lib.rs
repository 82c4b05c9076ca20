//! runtimes

/// `[functions.NAME]`: code, runtime, handler and limits.
pub mod config;
