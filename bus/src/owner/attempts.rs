//! What may run, as which attempt, and what becomes of it: the fence. The window says it from memory, the log has the last
//! word.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Owner, lock};
use crate::{
    ambient,
    failpoint::{self, Failpoint},
    id::{Born, RowId},
    log::{
        LogError, Tx, attempt,
        backlog::{self, Due},
        delivery::{self, End, Ended},
    },
    outcome::{Ending, Outcome},
    target::Target,
    window::Begin,
};

/// How long a begun attempt may go unwritten: for a crash in this time it has not begun, and is made again.
const LINGER: Duration = Duration::from_millis(5);

/// A worker's wish to run a delivery it holds a message for.
#[derive(Debug, Clone)]
pub struct Claim {
    pub target: Target,
    pub delivery: RowId,
    pub publication: u32,
}

impl Owner {
    /// Answers whether each delivery may run now, and as which attempt. The attempt is recorded behind the caller's
    /// back: a crash before it is on disk repeats the delivery, which it may. Only where an earlier attempt may have ended
    /// a node is it on disk before it runs, so that the next death counts.
    ///
    /// All of them or none: where one could not begin, those that did are as they were.
    pub async fn begin(&self, claims: &[Claim]) -> Result<Vec<Begin>, LogError> {
        // what could not be recorded would run a second time
        self.log().ready().await?;
        let mut answers = Vec::with_capacity(claims.len());
        let begun = self.begin_each(claims, &mut answers).await;
        let runs = |(claim, answer): (_, &Begin)| match *answer {
            Begin::Run { attempt, .. } => Some((claim, attempt)),
            _ => None,
        };
        let runs: Vec<(&Claim, RowId)> = claims.iter().zip(&answers).filter_map(runs).collect();
        match begun {
            Ok(suspects) => {
                for (_, attempt) in runs.into_iter().filter(|(_, attempt)| !suspects.contains(attempt)) {
                    failpoint::reach(Failpoint::BeginAnswered);
                    self.note_begun(attempt);
                }
                Ok(answers)
            }
            Err(error) => {
                let mut window = self.window();
                for (claim, attempt) in runs {
                    window.not_begun(&claim.target, claim.delivery.row(), attempt, ambient::instant());
                }
                Err(error)
            }
        }
    }

    /// Adds the answer to each, and gives the attempts whose beginning is on disk.
    async fn begin_each(&self, claims: &[Claim], answers: &mut Vec<Begin>) -> Result<Vec<RowId>, LogError> {
        let mut suspects = Vec::new();
        for claim in claims {
            let mut answer = self.begin_known(claim);
            if answer == Begin::Unknown {
                answer = self.begin_unknown(claim).await?;
            }
            if let Begin::Run { attempt, n } = answer
                && (n > 1 || self.is_suspect(claim))
            {
                suspects.push(attempt);
            }
            answers.push(answer);
        }
        if !suspects.is_empty() {
            let (node, begun) = (self.inner.node.clone(), suspects.clone());
            let begin =
                move |tx: &Tx<'_>| Ok::<_, LogError>(begun.iter().try_for_each(|a| delivery::begin(tx, *a, &node))?);
            self.log().write(begin).await?;
        }
        Ok(suspects)
    }

    /// Notes that an attempt began. Most end within a moment, and are then written once, with their outcome; the
    /// others are written after [`LINGER`].
    fn note_begun(&self, attempt: RowId) {
        let first = {
            let mut begun = lock(&self.inner.begun);
            begun.insert(attempt);
            begun.len() == 1
        };
        if first {
            let inner = self.inner.clone();
            ambient::spawn(async move {
                ambient::sleep(LINGER).await;
                let begun = std::mem::take(&mut *lock(&inner.begun));
                if !begun.is_empty() {
                    let node = inner.node.clone();
                    inner.log.post(move |tx| Ok(begun.iter().try_for_each(|a| delivery::begin(tx, *a, &node))?));
                }
            });
        }
    }

    /// Whether the delivery may have been running when the last node ended, without a word of it in the log.
    fn is_suspect(&self, claim: &Claim) -> bool {
        let suspects = self.inner.suspects.get();
        suspects.and_then(|rows| rows.get(&claim.target)).is_some_and(|last| claim.delivery.row() <= *last)
    }

    fn begin_known(&self, claim: &Claim) -> Begin {
        let mut window = self.window();
        let answer = window.begin(&claim.target, claim.delivery, claim.publication, Born::now(), ambient::instant());
        let more = window.is_lighter(&claim.target);
        drop(window);
        if more {
            self.wake();
        }
        answer
    }

    /// A message from before a restart, or from outside the window: the log says whether it is still wanted.
    async fn begin_unknown(&self, claim: &Claim) -> Result<Begin, LogError> {
        let row = claim.delivery.row();
        let due: Option<Due> = self.log().write(move |tx| Ok::<_, LogError>(backlog::pending_row(tx, row)?)).await?;
        let Some(due) =
            due.filter(|due| due.id == claim.delivery && due.publication == claim.publication && due.intact)
        else {
            return Ok(Begin::Stale);
        };
        self.window().adopt(&claim.target, &due, ambient::instant());
        Ok(self.begin_known(claim))
    }

    /// Records an outcome and everything that follows from it. Returns when it is on disk.
    pub async fn end(&self, target: &Target, attempt: RowId, outcome: Outcome) -> Result<Ended, LogError> {
        let (row, _) = attempt::delivery_of(attempt.row());
        let ending = outcome.ending;
        let current = self.window().is_current(target, row, attempt, ambient::instant());
        let ended = if current {
            let inner = self.inner.clone();
            let write = move |tx: &Tx<'_>| {
                let catalog = inner.catalog.load();
                delivery::end(tx, attempt, &outcome, &inner.rules(&catalog))
            };
            self.conclude(target, attempt, write).await?
        } else {
            // Of one that was recorded only the answer was lost.
            let before = self.log().read(move |c| Ok::<_, LogError>(delivery::answered(c, attempt)?)).await?;
            before.unwrap_or(Ended::Stale)
        };
        if ended == Ended::Stale {
            self.note_late(attempt, ending);
        }
        Ok(ended)
    }

    /// An attempt that began could not be run after all, as no instance was there: it is as if it had never begun, and the
    /// delivery is tried again a moment later.
    pub async fn take_back(&self, target: &Target, attempt: RowId) -> Result<Ended, LogError> {
        let (row, _) = attempt::delivery_of(attempt.row());
        if !self.window().is_current(target, row, attempt, ambient::instant()) {
            return Ok(Ended::Stale);
        }
        self.conclude(target, attempt, move |tx| delivery::take_back(tx, attempt).map(End::from)).await
    }

    /// Writes what becomes of the current attempt of a delivery.
    async fn conclude(
        &self,
        target: &Target,
        attempt: RowId,
        write: impl Fn(&Tx<'_>) -> rusqlite::Result<End> + Send + 'static,
    ) -> Result<Ended, LogError> {
        let (row, _) = attempt::delivery_of(attempt.row());
        lock(&self.inner.begun).remove(&attempt);
        let (owner, target) = (self.clone(), target.clone());
        // In the order of the commits: whatever makes it pending again later has to find its place free.
        let settle = move |end: End| {
            failpoint::reach(match (&end.ended, end.placed.is_empty()) {
                (Ended::RetryAt(_), _) => Failpoint::RetryCommitted,
                (_, true) => Failpoint::EndCommitted,
                (_, false) => Failpoint::FollowCommitted,
            });
            match end.ended {
                Ended::Stale => owner.window().refused(&target, row, attempt),
                _ => owner.window().ended(&target, row, attempt),
            }
            owner.settle(end)
        };
        self.log().write_and(move |tx| Ok::<_, LogError>(write(tx)?), settle).await
    }

    /// The worker still runs these attempts.
    pub fn renew(&self, target: &Target, attempt: RowId) {
        let (row, _) = attempt::delivery_of(attempt.row());
        self.window().is_current(target, row, attempt, ambient::instant());
    }

    /// A worker cannot run this delivery now (its function was stopped or removed): it goes back to the log and is
    /// published anew when it may run.
    pub async fn give_back(&self, claim: &Claim) -> Result<(), LogError> {
        let row = claim.delivery.row();
        if !self.window().is_published(&claim.target, claim.delivery, claim.publication) {
            // a message of another publication: whoever holds the current one decides
            return Ok(());
        }
        self.publish_anew(&[(claim.target.clone(), row)]).await
    }

    pub(super) fn note_late(&self, attempt: RowId, outcome: Ending) {
        self.inner.late.fetch_add(1, Ordering::Relaxed);
        tracing::info!(
            %attempt, outcome = outcome.as_str(),
            "an outcome came too late: its attempt is not the current one, so it changes nothing"
        );
    }
}
