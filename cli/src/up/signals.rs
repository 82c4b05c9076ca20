//! SIGINT and SIGTERM: the first drains, the second ends now.

use std::{io, process::exit};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that a second signal ended.
const ENDED_NOW: i32 = 130;

/// Watches for signals from now on.
pub(super) fn watch() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let drain = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                tracing::info!("draining; a second signal ends it now");
                drain.cancel();
            }
        }
        // Children die with us: the kernel sees to it.
        exit(ENDED_NOW);
    });
    Ok(token)
}
