//! SIGINT and SIGTERM: the first drains, the second ends now.

use std::{io, process::exit};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch::Receiver,
};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that a second signal ended.
const ENDED_NOW: i32 = 130;

/// How often we were told to end. A terminal tells the warden and us, `kill` one of both: what came by one way is not
/// counted again when it comes by the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
    directly: u32,
    by_the_warden: u32,
}

impl Told {
    fn times(self) -> u32 {
        self.directly.max(self.by_the_warden)
    }
}

/// Watches for signals from now on, and for those the warden has handed on.
pub(super) fn watch(mut handed_on: Receiver<u32>) -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let drain = token.clone();
    tokio::spawn(async move {
        let mut told = Told::default();
        loop {
            tokio::select! {
                _ = interrupt.recv() => told.directly += 1,
                _ = terminate.recv() => told.directly += 1,
                Ok(more) = handed_on.wait_for(|&times| times > told.by_the_warden) => told.by_the_warden = *more,
            }
            // What children leave behind is the warden's.
            if told.times() > 1 {
                exit(ENDED_NOW);
            }
            if !drain.is_cancelled() {
                tracing::info!("draining; a second signal ends it now");
                drain.cancel();
            }
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_comes_by_both_ways_is_one() {
        let times = |directly, by_the_warden| Told { directly, by_the_warden }.times();
        assert_eq!((times(1, 0), times(0, 1), times(1, 1)), (1, 1, 1));
        assert_eq!((times(2, 1), times(1, 2), times(0, 2), times(2, 2)), (2, 2, 2, 2));
    }
}
