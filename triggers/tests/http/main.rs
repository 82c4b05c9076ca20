//! The HTTP trigger as clients meet it: a real server on a port of its own, bytes on a socket, a bus in memory.

mod bad_input;
mod events;
mod lifetime;
mod response;
mod routes;
mod support;
