//! What was accepted is in the log, and nothing else is: I1, I4, I10.

use std::collections::BTreeMap;

use super::{Delivery, Journal, Said, Submitted, holds};
use crate::{Event, EventId, Target, sink::AcceptError};

impl Said<'_> {
    /// What was accepted is there once, to the letter, with what it is to be delivered to; the same id never meant
    /// two bodies.
    pub(super) fn accepted(&self, journal: &Journal) -> Result<(), String> {
        let mut new: BTreeMap<&EventId, usize> = BTreeMap::new();
        for Submitted { event, answer } in &journal.submitted {
            let found: Vec<(&i64, &Event)> = self.events.iter().filter(|(_, e)| e.id == event.id).collect();
            holds!(found.len() <= 1, "{} is there {} times", event.id, found.len());
            let same = found.first().is_some_and(|(_, found)| *found == event);
            match answer {
                Some(Ok(accepted)) => {
                    holds!(same, "{} was accepted and is not there as it was", event.id);
                    *new.entry(&event.id).or_default() += usize::from(!accepted.duplicate);
                }
                Some(Err(AcceptError::Conflict { .. })) => {
                    holds!(found.len() == 1 && !same, "{} was called a conflict and is none", event.id);
                }
                // nobody knows what of it is on disk
                Some(Err(AcceptError::Unavailable { .. })) | None => {}
                Some(Err(AcceptError::Full | AcceptError::Backlog { .. })) => {
                    let otherwise = |other: &Submitted| {
                        let perhaps = matches!(other.answer, Some(Ok(_) | Err(AcceptError::Unavailable { .. })) | None);
                        other.event == *event && perhaps
                    };
                    let told = !same || journal.submitted.iter().any(otherwise);
                    holds!(told, "{} was refused and is there", event.id);
                }
                Some(Err(error)) => return Err(format!("{} was not accepted: {error}", event.id)),
            }
        }
        for (id, times) in new {
            holds!(times <= 1, "{id} was new {times} times");
        }
        for (row, event) in &self.events {
            if let Some(letter) = self.corrects(*row) {
                self.is_corrected(*row, event, letter, journal)?;
            } else if event.hop == 0 {
                let sent = journal.submitted.iter().any(|submitted| submitted.event == *event);
                holds!(sent, "{} was never sent", event.id);
                self.goes_to(*row, event, Vec::new())?;
            }
        }
        Ok(())
    }

    /// The dead letter that an event stands in for.
    pub(super) fn corrects(&self, row: i64) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.corrected == Some(row))
    }

    /// An edited letter is the event it was, but for a body that somebody gave it, and goes where the letter went.
    fn is_corrected(&self, row: i64, event: &Event, letter: &Delivery, journal: &Journal) -> Result<(), String> {
        let given = journal.edits.iter().filter(|edit| edit.as_bytes() == event.data).count();
        holds!(given == 1, "the body of {} was given {given} times", event.id);
        let was = &self.events[&letter.event];
        let as_it_was =
            (&was.source, &was.kind, was.time, was.hop) == (&event.source, &event.kind, event.time, event.hop);
        holds!(as_it_was && event.causation.as_ref() == Some(&was.id), "{} is no {}", event.id, was.id);
        self.goes(row, event, std::slice::from_ref(&letter.target))
    }

    /// An event has the deliveries that its trigger, the rules and `to` ask for, once each.
    pub(super) fn goes_to(&self, row: i64, event: &Event, mut to: Vec<Target>) -> Result<(), String> {
        to.extend(self.catalog.matches(event).into_iter().map(|matched| matched.target));
        to.sort();
        self.goes(row, event, &to)
    }

    fn goes(&self, row: i64, event: &Event, to: &[Target]) -> Result<(), String> {
        let first = self.deliveries.iter().filter(|d| d.event == row && d.generation == 0 && d.run.is_none());
        let mut found: Vec<Target> = first.map(|delivery| delivery.target.clone()).collect();
        found.sort();
        holds!(found == to, "{} goes to {found:?}, not to {to:?}", event.id);
        Ok(())
    }
}
