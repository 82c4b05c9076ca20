//! The control plane: how people and the command line see and steer a running node.
//!
//! A node listens on a Unix socket in its data folder that only its user can open, and answers who has the key beside it; [`socket`] says where it is,
//! [`control`] what it answers, [`client`] how it is asked. The answers are JSON, streams are one object per line.

// Where a node's socket is.
pub mod socket;
// The key for it.
mod key;
// What it answers.
pub mod control;
// The one table from errors to statuses.
mod problem;
// How it is asked.
pub mod client;

// `[api]`.
pub mod config;
// Lambda's API over TCP, for its clients.
pub mod lambda;

pub use client::{Client, ClientError};
pub use config::ApiConfig;
pub use control::{Control, Views};
pub use lambda::LambdaApi;
