//! Instances for calls that are known to come: the next time of a schedule, the next steps of a run, what follows from a
//! function that is being called.
//!
//! As late as is still early enough, so that little waits: a step is expected when half the time has passed that those before
//! it take. A run that goes another way leaves an idle instance, which its pool keeps or ends like any other.

use std::time::{Duration, Instant};

use bus::{Name, foresight::Ahead};
use chrono::Utc;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::Functions;

/// Runs as long as anybody says anything.
pub(crate) async fn listen(mut foresight: Receiver<Ahead>, functions: Functions) {
    loop {
        match foresight.recv().await {
            Ok(Ahead::At(time, names)) => {
                let at = Instant::now() + (time - Utc::now()).to_std().unwrap_or_default();
                for name in &names {
                    functions.expect(name, at);
                }
            }
            Ok(Ahead::Path(path)) => follow(&functions, &path),
            // what was not heard is started when it is called
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// The functions of the first list are being called, and those of the others when the ones before them are done.
pub(crate) fn follow(functions: &Functions, path: &[Vec<Name>]) {
    let mut at = Instant::now();
    for pair in path.windows(2) {
        let [before, next] = pair else { return };
        let slowest = before.iter().map(|name| functions.run(name)).max();
        at += slowest.unwrap_or(Duration::ZERO) / 2;
        for name in next {
            functions.expect(name, at);
        }
    }
}
