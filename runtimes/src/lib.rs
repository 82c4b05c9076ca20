//! Runtimes: functions, and the warm pools of processes that run them.
//!
//! A **function** is configured; its code is copied into an immutable **version**; an **instance** is a process with
//! a version loaded; the **pool** of a function hands instances out as **leases**; a lease runs one **invocation** and
//! gives an [`bus::Outcome`].
//!
//! The modules, in the order a call meets them:

// `[functions.NAME]` as configured.
pub mod config;
// Pull, lease, begin, render, invoke, end, ack.
pub mod worker;
// Instances for calls that are known to come.
mod ahead;
// Places for synchronous calls, so that each function has some.
mod places;
// Deliveries that wait to share an invocation.
mod gather;
// The registry: which functions there are, and the way to each.
pub mod functions;
// The right to run one invocation.
pub mod lease;
// How many invocations of one function there are, over all its versions.
mod gate;
// The instances of one version.
mod pool;
// When to hand out, start, wait or refuse: pure.
mod slots;
// How long idle instances are kept: pure.
pub mod policy;
// Policies put to the test.
pub mod trial;

// What all instances of a node share.
mod ground;
// Interpreters of this machine.
mod interpreter;
// The memory they may hold together.
mod budget;
// A version that is ready to run invocations.
mod instance;
// From a version to a process that can be spoken to.
mod engine;
// Whether a file can be executed.
mod entry;
// A process, what is said with it and printed by it.
mod conversation;
// One that several invocations share.
mod shared;
// Processes, groups, limits and their ends.
mod process;
// What they may reach.
mod sandbox;
// What they keep in files.
mod storage;
// What functions leave running.
mod cgroups;
mod orphans;
// What they print.
mod output;
// How they are spoken to.
mod dialogue;
// Answers that come in pieces, put together.
mod streamed;
// In frames on two pipes.
mod frame;
// What went wrong, in Lambda's words.
mod fault;

// How long runtimes are kept up by those who make them: pure.
pub mod lifecycle;
// How Python functions are started.
mod python;
// How Node.js functions are started.
mod node;
// Programs that speak the Lambda Runtime API.
mod provided;
// Programs that are started for each invocation.
mod command;
// WebAssembly.
#[cfg(feature = "wasm")]
mod wasm;
#[cfg(not(feature = "wasm"))]
#[path = "wasm/absent.rs"]
mod wasm;

// Immutable copies of code.
mod version;
// Code in a zip file.
mod archive;
// The versions of a function that are kept.
mod book;
// Which of them calls go to: pure.
mod route;
// Another one, by hand.
mod promote;
// One on trial.
mod canary;
// From code to a version that serves.
mod deploy;
// Edits of code.
mod watch;

pub use archive::BadArchive;
pub use book::{Kept, kept};
pub use config::{EnvValue, Folders, FunctionConfig, Isolation, KeepAlive, RuntimeKind, RuntimesConfig};
pub use functions::{Functions, Wanted};
pub use ground::Settings;
pub use interpreter::{Interpreter, Interpreters};
pub use lease::{Invocation, Lease, LeaseError};
pub use lifecycle::Lifecycle;
pub use output::TAIL;
pub use sandbox::{Enforcement, Part, entered};
pub use worker::Worker;

/// Locks, whatever happened to others who held it: no state here is left half changed by a panic.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
