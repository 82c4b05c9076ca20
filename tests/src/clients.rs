//! Clients of AWS Lambda, as `make test` fetches them.

use std::{env, path::PathBuf};

/// Their folder: `bin/python` and `node_modules`; none where nobody fetched them.
pub fn clients() -> Option<PathBuf> {
    let clients = env::var_os("FNBUS_CLIENTS").map(PathBuf::from);
    if clients.is_none() {
        assert!(env::var("CI").as_deref() != Ok("true"), "no clients: `make test` fetches them");
        eprintln!("skipped: no clients of AWS Lambda; `make test` fetches them");
    }
    clients
}
