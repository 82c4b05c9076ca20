//! Places at which a debug build can be told to die or to stop, so that the moments a crash must be survived at are met
//! on purpose and not by luck. A release build has none of them.
//!
//! `FNBUS_FAILPOINTS="accept.committed=kill@3,publish.sent=stop"`: the third event that is accepted ends the process with
//! SIGKILL, the first delivery that is published stops it with SIGSTOP until somebody sends SIGCONT.

/// Which place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    AcceptCommitted,
    PublishSent,
    PublishAcked,
    BeginAnswered,
    InvokeEnded,
    EndCommitted,
    FollowCommitted,
    RetryCommitted,
    DueCommitted,
    OutsideSent,
    ReplayCommitted,
    RecoverCommitted,
    SchemaMigrated,
    VersionCopied,
    VersionNamed,
}

/// All of them: the place, its name, and what has just happened there.
pub const ALL: [(Failpoint, &str, &str); 15] = [
    (Failpoint::AcceptCommitted, "accept.committed", "an accepted event is on disk, and nobody was told"),
    (Failpoint::PublishSent, "publish.sent", "a delivery was given to JetStream, which has not acknowledged it"),
    (Failpoint::PublishAcked, "publish.acked", "JetStream has a delivery, and the window does not know"),
    (Failpoint::BeginAnswered, "begin.answered", "a worker may run an attempt, and its beginning is not on disk"),
    (Failpoint::InvokeEnded, "invoke.ended", "a function has run, and its outcome is not on disk"),
    (Failpoint::EndCommitted, "end.committed", "an outcome is on disk, and its message is not acknowledged"),
    (Failpoint::FollowCommitted, "follow.committed", "what follows from an outcome is on disk, and not on its way"),
    (Failpoint::RetryCommitted, "retry.committed", "the time of a retry is on disk, and its message not acknowledged"),
    (Failpoint::DueCommitted, "due.committed", "a retry that is due is pending on disk, and not on its way"),
    (Failpoint::OutsideSent, "outside.sent", "a target outside the bus has a delivery, and that is not on disk"),
    (Failpoint::ReplayCommitted, "replay.committed", "a replay and its deliveries are on disk, and not on their way"),
    (
        Failpoint::RecoverCommitted,
        "recover.committed",
        "what was open at the last end is pending, and nothing else started",
    ),
    (Failpoint::SchemaMigrated, "schema.migrated", "a migration of the log is done, and the next one not begun"),
    (Failpoint::VersionCopied, "version.copied", "a function's code is copied, and has not got its name"),
    (Failpoint::VersionNamed, "version.named", "a version of a function's code is on disk, and serves nobody"),
];

/// Notes that this place was reached.
#[inline]
pub fn reach(point: Failpoint) {
    #[cfg(debug_assertions)]
    armed::reach(point);
    #[cfg(not(debug_assertions))]
    let _ = point;
}

#[cfg(debug_assertions)]
pub use armed::{InvalidFailpoint, arm};

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::{ALL, Failpoint};

    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

    /// What happens at the `nth` time a place is reached.
    #[derive(Debug)]
    struct Armed {
        point: Failpoint,
        signal: Signal,
        nth: u32,
        reached: AtomicU32,
    }

    /// `FNBUS_FAILPOINTS` does not read.
    #[derive(Debug, PartialEq, Eq, thiserror::Error)]
    #[error(
        "FNBUS_FAILPOINTS: `{given}` is no failpoint; write `NAME=kill` or `NAME=stop@3`, with a NAME of {}",
        ALL.map(|(_, name, _)| name).join(", ")
    )]
    pub struct InvalidFailpoint {
        given: String,
    }

    /// Sets what is written in `FNBUS_FAILPOINTS`. Once, before anything is started.
    pub fn arm(text: &str) -> Result<(), InvalidFailpoint> {
        let armed = text.split(',').filter(|part| !part.trim().is_empty()).map(read).collect::<Result<_, _>>()?;
        let _ = ARMED.set(armed);
        Ok(())
    }

    fn read(given: &str) -> Result<Armed, InvalidFailpoint> {
        let read = || {
            let (name, rest) = given.trim().split_once('=')?;
            let (point, ..) = *ALL.iter().find(|(_, known, _)| *known == name)?;
            let (action, nth) = rest.split_once('@').unwrap_or((rest, "1"));
            let signal = match action {
                "kill" => Signal::KILL,
                "stop" => Signal::STOP,
                _ => return None,
            };
            Some(Armed { point, signal, nth: nth.parse().ok().filter(|nth| *nth > 0)?, reached: AtomicU32::new(0) })
        };
        read().ok_or_else(|| InvalidFailpoint { given: given.trim().to_owned() })
    }

    pub(super) fn reach(point: Failpoint) {
        for armed in ARMED.get().into_iter().flatten().filter(|armed| armed.point == point) {
            if armed.reached.fetch_add(1, Ordering::SeqCst) + 1 == armed.nth {
                let _ = kill_process(getpid(), armed.signal);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_failpoint_has_a_name_an_action_and_a_count() {
            let armed = read(" publish.sent=kill@3").unwrap();
            assert_eq!((armed.point, armed.signal, armed.nth), (Failpoint::PublishSent, Signal::KILL, 3));
            assert_eq!(read("end.committed=stop").unwrap().nth, 1);
        }

        #[test]
        fn every_failpoint_is_in_the_docs_with_its_sentence() {
            let docs = include_str!("../../docs/reliability.md");
            for (_, name, sentence) in ALL {
                assert!(docs.contains(&format!("| `{name}` | {sentence} |")), "{name}");
            }
        }

        #[test]
        fn what_is_no_failpoint_is_refused_by_name() {
            for given in ["publish.snt=kill", "publish.sent", "publish.sent=die", "publish.sent=kill@0", "kill"] {
                let error = read(given).unwrap_err().to_string();
                assert!(error.contains(&format!("`{given}`")) && error.contains("accept.committed"), "{error}");
            }
        }
    }
}
