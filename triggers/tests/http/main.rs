//! The HTTP trigger as clients meet it: a real server on a port of its own, bytes on a socket, a bus in memory.

// helpers of tests are tests too: the lint knows only functions marked so
#![allow(clippy::unwrap_used)]

mod bad_input;
mod events;
mod lifetime;
mod response;
mod routes;
mod support;
