//! What went wrong, in the words of Lambda.

use std::{error::Error, io, iter, time::Duration};

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
    let message = format!(
        "Response payload size ({size} bytes) exceeded maximum allowed payload size ({limit} bytes); store it elsewhere and \
         return where"
    );
    fault("Function.ResponseSizeTooLarge", message)
}

/// It was stopped after so long.
pub(crate) fn timed_out(limit: Duration) -> Fault {
    let seconds = limit.as_secs_f64();
    fault(
        "Sandbox.Timedout",
        format!("Task timed out after {seconds:.2} seconds; raise its `timeout`, or make it faster"),
    )
}

/// The machine has not enough of something to start a process now: descriptors, processes or memory. That says nothing about
/// the function.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Lack {
    pub(crate) reason: String,
    /// What the functions may have was set, and they have it.
    pub(crate) is_limit: bool,
}

impl Lack {
    /// Whether this is why something failed: the kernel's word is looked for, however deep it lies.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let lacks = |code: i32| [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM].contains(&code);
        let mut causes = iter::successors(Some(error), |error| (*error).source());
        let code = causes.find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
        code.is_some_and(lacks).then(|| Self { reason: error.to_string(), is_limit: false })
    }
}

const STORAGE: &str = "the function had more files in its private folder than it may have; remove what is not needed, or raise \
                       its `ephemeral_storage`";

/// A process that ended in the middle. Killed by a signal near its memory limit, or with what it started beyond it, it ran
/// out of memory.
pub(crate) fn crash(exit: Option<Exit>, memory: u64) -> (Ending, Fault) {
    use std::os::unix::process::ExitStatusExt;
    let Some(exit) = exit else {
        return (Ending::Crash, fault("Runtime.ExitError", "the function closed its connection to fnbus"));
    };
    match (exit.status.signal(), exit.status.code()) {
        (Some(_), _) if exit.overfull => (Ending::Crash, fault("Runtime.OutOfStorage", STORAGE)),
        (Some(_), _) if exit.starved || exit.peak >= memory / 10 * 9 => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::NoStart, ground::NoLaunch, python::NoPython};

    #[test]
    fn what_the_machine_lacks_is_told_from_what_is_missing_however_deep_it_lies() {
        let deep = |code| {
            let (asked, source) = ("python3".to_owned(), io::Error::from_raw_os_error(code));
            NoStart::Launch(NoLaunch::Python(NoPython::Missing { asked, source }))
        };
        assert!(Lack::of(&deep(libc::EMFILE)).is_some_and(|lack| lack.to_string().contains("Too many open files")));
        assert!(Lack::of(&deep(libc::ENOENT)).is_none());
        let source = io::Error::from_raw_os_error(libc::EAGAIN);
        assert!(Lack::of(&NoStart::Process { program: "f".into(), source }).is_some());
    }
}
