//! HTTP: `[http]` and `http = "POST /orders/{region}"`.
//!
//! The modules, in the order a request meets them:

// Reads bodies, up to a size and a time.
mod body;
// `POST /events`: events of others.
mod events;
// One request to one response.
mod exchange;
// Where requests begin and end in the bytes of a connection: the guard's knowledge.
mod framing;
// Between socket and parser: refuses what parsers disagree about, before a parser sees it.
mod guard;
// How many bytes of requests and answers are here at once.
mod memory;
// Everything that is refused, and its status.
mod problem;
// A request as an event.
mod request;
// A function's outcome as a response.
mod response;
// A response that is written while the function runs.
mod stream;
// A route as written in the config.
pub mod route;
// Listens, limits connections, drains.
pub mod server;
// Which trigger a request is for.
pub mod table;

pub use server::{HttpServer, Limits};
pub use table::Table;
