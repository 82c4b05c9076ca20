//! A version on trial: it gets a part of the calls for a while, is watched, and then serves or goes.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bus::log::{LogError, Tx, version};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::{
    book::{self, LIVE},
    functions::{Function, Map},
    ground::Ground,
    lock, promote,
};

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// As it is kept in the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Canary {
    pub(crate) version: u32,
    /// Its part of the calls, from 0 to 1.
    pub(crate) share: f64,
    /// It serves from then.
    pub(crate) ends: DateTime<Utc>,
    /// Most of its calls that may fail, from 0 to 1.
    pub(crate) max_errors: f64,
    /// Before so many calls nothing is made of it.
    pub(crate) min_calls: u64,
    /// Once it serves, newer ones do not follow by themselves.
    pub(crate) pin: bool,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
}

impl std::fmt::Display for Canary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "canary until {}: {}", stamp(self.ends), self.tally())
    }
}

/// What is to become of it.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    GoesOn,
    Serves,
    Goes,
}

impl Canary {
    /// Pure. When its time is over it is judged by what there is.
    fn verdict(&self, now: DateTime<Utc>) -> Verdict {
        let over = now >= self.ends;
        let enough = self.all() >= self.min_calls || over;
        if enough && self.errors as f64 > self.max_errors * self.all() as f64 {
            Verdict::Goes
        } else if over {
            Verdict::Serves
        } else {
            Verdict::GoesOn
        }
    }

    /// With calls and errors that were counted since.
    pub(crate) fn with(&self, (calls, errors): (u64, u64)) -> Self {
        Self { calls: self.calls + calls, errors: self.errors + errors, ..self.clone() }
    }

    /// Starts that failed are calls that nobody made.
    fn all(&self) -> u64 {
        self.calls.max(self.errors)
    }

    /// Such as `3 of 40 calls failed`.
    pub(crate) fn tally(&self) -> String {
        format!("{} of {} calls failed", self.errors, self.all())
    }
}

/// Looks after all that are on trial, for ever.
pub(crate) async fn watch(functions: Arc<ArcSwap<Map>>, ground: Arc<Ground>) {
    loop {
        let all: Vec<Arc<Function>> = functions.load().values().cloned().collect();
        let mut any = false;
        for function in all {
            match look(&function, &ground).await {
                Ok(runs) => any |= runs,
                Err(error) => {
                    any = true;
                    warn!(function.name = %function.name, %error, "what became of a canary could not be recorded; trying again");
                }
            }
        }
        if any {
            sleep(EVERY).await;
        } else {
            ground.canaries.notified().await;
        }
    }
}

/// Whether there is one that goes on.
async fn look(function: &Arc<Function>, ground: &Arc<Ground>) -> Result<bool, LogError> {
    let Some(book) = function.opened() else { return Ok(false) };
    if lock(book).live.canary.is_none() {
        return Ok(false);
    }
    let _moving = function.moving.lock().await;
    let (live, canary, counted) = {
        // in memory at once: what was taken from the counters is not counted again, and is seen by who looks
        let mut book = lock(book);
        let Some(canary) = &book.live.canary else { return Ok(false) };
        let fresh = function.fresh(canary.version);
        let canary = canary.with(fresh);
        book.live = book.live.tried(canary.clone());
        (book.live.clone(), canary, fresh != (0, 0))
    };
    let (name, number) = (&function.name, canary.version);
    let verdict = canary.verdict(Utc::now());
    if verdict == Verdict::GoesOn {
        if counted {
            book::remember(&ground.log, name, LIVE, live).await?;
        }
        return Ok(true);
    }
    let mut reason = canary.tally();
    if verdict == Verdict::Serves {
        let is_latest = lock(book).latest == Some(number);
        let served =
            promote::serve(ground, function, book, number, live.promoted(number, canary.pin || !is_latest)).await;
        match served {
            Ok(_) => {
                let note = format!("promoted {}: {reason}", stamp(Utc::now()));
                info!(function.name = %name, "version {number} of `{name}` was a canary and now serves: {reason}");
                return say(ground, function, number, Some(note)).await.map(|()| false);
            }
            Err(error) => reason = error.to_string(),
        }
    } else {
        reason = format!("{reason}, and at most {:.1} % may", canary.max_errors * 100.0);
    }
    let whole = live.whole();
    book::remember(&ground.log, name, LIVE, whole.clone()).await?;
    lock(book).live = whole;
    function.close_unused();
    let main = live.version.map_or_else(String::new, |main| format!("; version {main} has all calls again"));
    warn!(function.name = %name, "version {number} of `{name}` was a canary and was rolled back: {reason}{main}");
    let note = format!("rolled back {}: {reason}", stamp(Utc::now()));
    say(ground, function, number, Some(note)).await.map(|()| false)
}

/// Writes down what became of a version.
pub(crate) async fn say(
    ground: &Ground,
    function: &Function,
    number: u32,
    note: Option<String>,
) -> Result<(), LogError> {
    if let Some(book) = function.opened() {
        lock(book).note(number, note.clone());
    }
    let name = function.name.clone();
    let write = move |tx: &Tx<'_>| Ok::<_, LogError>(version::note(tx, name.as_str(), number, note.as_deref())?);
    ground.log.write(write).await
}

pub(crate) fn stamp(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d %H:%M:%S UTC")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::too_few_to_say((19, 19), 0, Verdict::GoesOn)]
    #[case::well((100, 5), 0, Verdict::GoesOn)]
    #[case::badly((100, 6), 0, Verdict::Goes)]
    #[case::never_starts((0, 20), 0, Verdict::Goes)]
    #[case::its_time_is_over((100, 5), 600, Verdict::Serves)]
    #[case::nobody_called((0, 0), 600, Verdict::Serves)]
    #[case::few_calls_and_its_time_is_over((4, 1), 600, Verdict::Goes)]
    fn a_canary_is_judged_by_its_calls_and_its_time(
        #[case] (calls, errors): (u64, u64),
        #[case] seconds: i64,
        #[case] expect: Verdict,
    ) {
        let start = DateTime::<Utc>::UNIX_EPOCH;
        let ends = start + Duration::from_mins(10);
        let canary =
            Canary { version: 2, share: 0.1, ends, max_errors: 0.05, min_calls: 20, pin: false, calls, errors };
        assert_eq!(canary.verdict(start + chrono::TimeDelta::seconds(seconds)), expect);
    }
}
