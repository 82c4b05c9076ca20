//! Attempts and retries are counted, and made when they are due: I3.

use super::{Delivery, Executed, Said, holds};
use crate::{
    log::{Status, attempt::delivery_of, delivery::Ended},
    outcome::Ending,
    pipeline::State,
};

impl Said<'_> {
    /// Every attempt that was recorded was made, and ended as its worker said; none is missing or counted twice.
    pub(super) fn attempts_are_counted(&self, executed: &Executed) -> Result<(), String> {
        for delivery in &self.deliveries {
            let (row, attempts) = (delivery.id.row(), self.attempts(delivery));
            let numbers: Vec<u32> = attempts.iter().map(|attempt| delivery_of(attempt.id.row()).1).collect();
            let expected: Vec<u32> = (1..=delivery.attempts).collect();
            holds!(numbers == expected, "delivery {row} has attempts {numbers:?} of {}", delivery.attempts);
            let ok = attempts.iter().filter(|attempt| attempt.outcome == "ok").count();
            let done = delivery.status == Status::Done;
            holds!(
                ok == usize::from(done),
                "delivery {row} is {:?} with {ok} attempts that went well",
                delivery.status
            );
            holds!(
                !done || attempts.last().is_some_and(|last| last.outcome == "ok"),
                "{row} went on after it was done"
            );
            holds!(
                done == delivery.reason.is_none(),
                "delivery {row} is {:?} because {:?}",
                delivery.status,
                delivery.reason
            );
            for attempt in attempts {
                holds!(attempt.outcome != "open", "attempt {} of {row} is still open", attempt.id);
            }
            let by_worker = delivery.target.name().is_some() && !Self::is_pipeline(delivery);
            for attempt in attempts.iter().filter(|attempt| by_worker && attempt.outcome != "lost") {
                let made = executed.get(&attempt.id);
                let reported = made.and_then(|made| made.outcome.as_ref());
                let same = reported.is_some_and(|outcome| {
                    outcome.output == attempt.output && outcome.ending.as_str() == attempt.outcome
                });
                holds!(same, "attempt {} of {row} is recorded as {}: {made:?}", attempt.id, attempt.outcome);
            }
        }
        for (id, made) in executed {
            let told: Vec<&Ended> = made.answers.iter().filter(|answer| **answer != Ended::Stale).collect();
            // an outcome that is reported again is answered as before
            let same = |pair: &[&Ended]| pair[0] == pair[1] || pair.iter().all(|e| matches!(e, Ended::RetryAt(_)));
            holds!(told.windows(2).all(same), "attempt {id} was answered differently: {told:?}");
            let counted = told.len();
            let recorded = self.attempts.get(&delivery_of(id.row()).0).into_iter().flatten().find(|a| a.id == *id);
            let reported = made.outcome.as_ref().map(|outcome| &outcome.output[..]);
            let its_own = recorded.is_some_and(|recorded| Some(&recorded.output[..]) == reported);
            holds!(counted == 0 || its_own, "attempt {id} was counted and is not recorded");
            let refused = counted == 0 && !made.answers.is_empty();
            holds!(!refused || !its_own, "attempt {id} was stale and is recorded");
        }
        Ok(())
    }

    /// No more failures than allowed, none repeated too early, and the reason fits.
    pub(super) fn retries_are_due(&self, executed: &Executed, edited: bool) -> Result<(), String> {
        for delivery in self.deliveries.iter().filter(|delivery| !Self::is_pipeline(delivery)) {
            let row = delivery.id.row();
            let (policy, over) = (self.policy(delivery), self.is_over(delivery));
            let mut failures = 0;
            let mut earliest = 0;
            for attempt in self.attempts(delivery) {
                let began = executed.get(&attempt.id).map(|made| made.began.timestamp_micros());
                holds!(began.is_none_or(|began| began >= earliest), "attempt {} of {row} came too early", attempt.id);
                earliest = attempt.ended;
                if attempt.outcome == Ending::Lost.as_str() || attempt.outcome == "ok" {
                    continue;
                }
                failures += 1;
                let doubled = policy.wait.saturating_mul(1 << (failures - 1).min(16)).min(policy.max_wait);
                earliest += (doubled / 2).as_micros() as i64;
            }
            holds!(
                failures <= policy.attempts || over,
                "delivery {row} failed {failures} times of {}",
                policy.attempts
            );
            match delivery.reason.as_deref() {
                Some("attempts_exhausted") => {
                    let all = failures == policy.attempts || (edited || over) && failures > 0;
                    holds!(all, "delivery {row} was given up after {failures} failures of {}", policy.attempts);
                }
                Some("rejected") => {
                    let last = self.attempts(delivery).last().and_then(|last| executed.get(&last.id));
                    let fault = last.and_then(|last| last.outcome.as_ref()?.fault.as_ref());
                    holds!(fault.is_some_and(|fault| !fault.retry), "delivery {row} was rejected by nobody");
                }
                Some("too_old" | "expired" | "quarantined") | None => {}
                Some(other) => return Err(format!("delivery {row} is dead because of {other}")),
            }
        }
        Ok(())
    }

    /// Whether it is a step of a run that ended without it: nobody asks how it ended, and its function's own policy holds.
    fn is_over(&self, delivery: &Delivery) -> bool {
        self.runs.iter().any(|(run, _, status, _)| Some(*run) == delivery.run && *status == Status::Dead)
    }

    fn policy(&self, delivery: &Delivery) -> crate::retry::RetryPolicy {
        let step = delivery.step.as_deref().and_then(|step| match self.machine().task(step) {
            Some(State::Task { retry, .. }) => *retry,
            _ => None,
        });
        step.unwrap_or_else(|| self.catalog.retry(&delivery.target))
    }
}
