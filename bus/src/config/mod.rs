//! How `fnbus.toml` is read, and the keys of the bus itself.
//!
//! The file is parsed once into a table that knows the place of everything. A [`Section`] describes the keys a table
//! may have; a [`Reader`] takes one table apart along its section, key by key. What is wrong becomes a [`Problem`] and
//! reading goes on, so that all problems come out at once. The JSON Schema and the printed defaults are made of the
//! same sections: what is documented is what is read.
//!
//! Each crate describes and reads its own sections; the `cli` crate puts them together and checks across them.

mod bus;
mod field;
mod log;
mod problem;
mod reader;
mod retry;
mod schema;
mod section;
mod values;
mod webhooks;

pub use bus::BusConfig;
pub use field::Field;
pub use log::LogConfig;
pub use problem::{Problem, Problems, Span, closest, one_of};
pub use reader::Reader;
pub use section::{Key, Section, Shape};
pub use values::{FromValue, NatsUrl, Size, Value, Word, Wrong, duration_text, parsed, size_text, words};
