//! Runtimes: functions, and the warm pools of processes that run them.
//!
//! A **function** is configured; its code is copied into an immutable **version**; an **instance** is a process with
//! a version loaded; the **pool** of a function hands instances out as **leases**; a lease runs one **invocation** and
//! gives an [`bus::Outcome`].
//!
//! The modules, in the order a call meets them:

/// `[functions.NAME]` as configured.
pub mod config;
/// From code to a version that serves.
mod deploy;
/// What they are asked and answer, on the wire.
mod frame;
/// The registry: which functions there are, and the way to each.
pub mod functions;
/// What all instances of a node share.
mod ground;
/// A process with code loaded, and one conversation with it.
mod instance;
/// The right to run one invocation.
pub mod lease;
/// What they print.
mod output;
/// The instances of one function.
mod pool;
/// Processes, groups, limits and their ends.
mod process;
/// How Python functions are started.
mod python;
/// When to hand out, start, wait or refuse: pure.
mod slots;
/// Immutable copies of code.
mod version;
/// Edits of code.
mod watch;

pub use config::{EnvValue, FunctionConfig, Isolation, RuntimeKind};
pub use functions::{FunctionStatus, Functions, State};
pub use ground::Settings;
pub use lease::{Invocation, Lease, LeaseError};
pub use output::{LogLine, Stream, TAIL};

/// Locks, whatever happened to others who held it: no state here is left half changed by a panic.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
