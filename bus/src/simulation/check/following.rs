//! What follows from an end follows once, and a run takes its steps: I3.

use std::collections::{BTreeMap, BTreeSet};

use super::{Delivery, Executed, Said, holds};
use crate::{
    EventId, Target, chain,
    log::Status,
    pipeline::{Machine, State, as_json},
};

impl Said<'_> {
    /// Every end led to what the config says, once; and nothing is there that followed from nothing.
    pub(super) fn what_follows_is_there_once(&self, executed: &Executed) -> Result<(), String> {
        let mut expected: BTreeMap<EventId, Vec<Target>> = BTreeMap::new();
        for delivery in &self.deliveries {
            let Some(parent) = self.events.get(&delivery.event) else { continue };
            let (done, following) =
                (delivery.status == Status::Done, |position| EventId::following(parent.time, delivery.id, position));
            if delivery.hold {
                continue;
            }
            if matches!(delivery.target, Target::Event(_)) && done {
                expected.insert(following(chain::PUT), Vec::new());
            }
            let Some((_, chain)) = self.catalog.chain(&delivery.target).filter(|_| delivery.run.is_none()) else {
                continue;
            };
            // of a batch the first has what follows
            let shared = self.attempts(delivery).last().and_then(|last| executed.get(&last.id)?.outcome.as_ref());
            if done && !chain.then.is_empty() && !shared.is_some_and(|outcome| outcome.shared) {
                expected.insert(following(0), chain.then.clone());
            }
            let records = if done { &chain.on_success } else { &chain.on_failure };
            if !records.is_empty() {
                expected.insert(following(chain::RECORD), records.clone());
            }
        }
        for (row, event) in &self.events {
            if event.hop == 0 || &*event.kind == chain::STEP || self.corrects(*row).is_some() {
                continue;
            }
            let to = expected.remove(&event.id);
            let Some(to) = to else { return Err(format!("{} ({}) follows from nothing", event.id, event.kind)) };
            self.goes_to(*row, event, to)?;
        }
        holds!(expected.is_empty(), "these did not follow: {expected:?}");
        Ok(())
    }

    /// A run took each of its steps once, and gives what they gave.
    pub(super) fn runs_are_whole(&self) -> Result<(), String> {
        let started: BTreeSet<i64> = self.runs.iter().map(|(_, delivery, ..)| *delivery).collect();
        holds!(started.len() == self.runs.len(), "a delivery was made into two runs");
        for delivery in self.deliveries.iter().filter(|delivery| Self::is_pipeline(delivery)) {
            let row = delivery.id.row();
            let Some((run, _, status, _)) = self.runs.iter().find(|(_, of, ..)| *of == row) else {
                holds!(delivery.status == Status::Expired, "delivery {row} ended without a run");
                continue;
            };
            holds!(*status == delivery.status, "run {run} is {status:?}, its delivery {:?}", delivery.status);
            let mut steps: BTreeMap<&str, &Delivery> = BTreeMap::new();
            for step in self.deliveries.iter().filter(|step| step.run == Some(*run)) {
                let path = step.step.as_deref().unwrap_or_default();
                holds!(steps.insert(path, step).is_none(), "step {path} of run {run} was taken twice");
            }
            if *status == Status::Done {
                let output = self.output("", self.machine(), &steps)?;
                let given = self.attempts(delivery).last().map(|attempt| &attempt.output[..]);
                holds!(given == Some(&output[..]), "run {run} gave {given:?}, its steps {output:?}");
            } else {
                let given_up = steps.values().any(|step| step.status != Status::Done);
                holds!(given_up, "run {run} is {status:?} and all its steps are done");
            }
        }
        Ok(())
    }

    /// What a machine gives when its steps gave what they did.
    fn output(&self, prefix: &str, machine: &Machine, steps: &BTreeMap<&str, &Delivery>) -> Result<Vec<u8>, String> {
        let mut at = &machine.start;
        loop {
            let path = if prefix.is_empty() { at.clone() } else { format!("{prefix}/{at}") };
            let (output, next) = match machine.states.get(at) {
                Some(State::Task { next, .. }) => {
                    let step = steps.get(path.as_str()).filter(|step| step.status == Status::Done);
                    let Some(step) = step else { return Err(format!("step {path} of a run that is done is not")) };
                    (self.attempts(step).last().map(|last| last.output.clone()).unwrap_or_default(), next)
                }
                Some(State::Parallel { branches, next }) => {
                    let outputs = (0..branches.len()).map(|branch| {
                        let output = self.output(&format!("{path}/{branch}"), &branches[branch], steps)?;
                        Ok(as_json(&output))
                    });
                    let outputs: Vec<_> = outputs.collect::<Result<_, String>>()?;
                    (serde_json::to_vec(&outputs).unwrap_or_default(), next)
                }
                None => return Err(format!("there is no state {path}")),
            };
            match next {
                Some(next) => at = next,
                None => return Ok(output),
            }
        }
    }
}
