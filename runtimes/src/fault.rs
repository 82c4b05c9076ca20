//! What went wrong, in the words of Lambda.

use bus::outcome::{Ending, Fault};
use serde::Deserialize;

use crate::process::Exit;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorObject {
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    error_type: String,
    retry: Option<bool>,
}

pub(crate) fn fault(kind: &str, message: impl Into<String>) -> Fault {
    Fault::new(kind, message)
}

/// What an error object of the function says. With `"retry": false` it says that another attempt would end the same.
pub(crate) fn fault_of(body: &[u8]) -> Fault {
    match serde_json::from_slice::<ErrorObject>(body) {
        Ok(error) => Fault { retry: error.retry != Some(false), ..Fault::new(error.error_type, error.error_message) },
        Err(_) => fault("Runtime.Unknown", String::from_utf8_lossy(&body[..body.len().min(1000)])),
    }
}

pub(crate) fn too_large(size: usize, limit: usize) -> Fault {
    let message = format!("Response payload size ({size} bytes) exceeded maximum allowed payload size ({limit} bytes)");
    fault("Function.ResponseSizeTooLarge", message)
}

/// A process that ended in the middle. Killed by a signal near its memory limit, it ran out of memory.
pub(crate) fn crash(exit: Option<Exit>, memory: u64) -> (Ending, Fault) {
    use std::os::unix::process::ExitStatusExt;
    let Some(exit) = exit else {
        return (Ending::Crash, fault("Runtime.ExitError", "the function closed its connection to fnbus"));
    };
    match (exit.status.signal(), exit.status.code()) {
        (Some(_), _) if exit.peak >= memory / 10 * 9 => {
            (Ending::Oom, fault("Runtime.OutOfMemory", "the function ran out of memory; raise its `memory`"))
        }
        (Some(signal), _) => {
            (Ending::Crash, fault("Runtime.ExitError", format!("Runtime exited with error: signal {signal}")))
        }
        (None, code) => {
            let message = format!("Runtime exited with error: exit status {}", code.unwrap_or_default());
            (Ending::Crash, fault("Runtime.ExitError", message))
        }
    }
}
