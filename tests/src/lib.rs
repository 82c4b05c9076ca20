//! The harness of the end-to-end tests: a real `fnbus up` with a real nats-server and real Python, in a folder of its
//! own, on ports of its own, gone when the test ends.
//!
//! ```no_run
//! # async fn example() {
//! use fnbus_tests::Project;
//! let node = Project::new()
//!     .function("hello", "def handler(event, context):\n    return 'hi'\n")
//!     .config("[triggers.hello]\nhttp = 'GET /hello'\nto = 'hello'\n")
//!     .start()
//!     .await;
//! assert_eq!(node.get("/hello").await.text(), "hi");
//! # }
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

// Clients of AWS Lambda.
mod clients;
// Functions that leave processes behind.
pub mod crowd;
// A disk, a clock and a memory that can be spoiled.
mod disk;
// Waiting for a condition.
mod eventually;
// A command that goes on and prints lines.
mod following;
// What can go wrong, and whether the promises hold.
pub mod faults;
// HTTP requests of a client.
mod http;
// A nats-server of somebody else.
mod nats;
// A node that runs.
mod node;
// What runs of a project.
mod process;
// A project folder: config and functions.
mod project;
// A bad way to a server.
mod proxy;
// WebAssembly that was built for the tests.
#[cfg(feature = "wasm")]
pub mod wasm;

pub use clients::{call_with, clients};
pub use disk::Disk;
pub use eventually::{PATIENCE, eventually};
pub use following::Following;
pub use http::Answer;
pub use nats::Nats;
pub use node::{Node, Output};
pub use process::{Process, Usage};
pub use project::{NOTES, Project};
pub use proxy::{Proxy, Way};
