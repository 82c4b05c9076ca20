//! How many files and connections this process may have open.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static FOUND: OnceLock<Rlimit> = OnceLock::new();

/// Raises the limit to what is allowed at most, as servers do. Call it once, before anything is started.
pub fn raise() {
    let found = getrlimit(Resource::Nofile);
    let _ = FOUND.set(found);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: found.maximum, ..found }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// The limit as it was found: programs that are started get this one, as some cannot live with more.
pub fn found() -> Option<Rlimit> {
    FOUND.get().copied()
}
