//! What is taken in: events, calls, and what people want delivered again. Each is one commit, and what it leads to is
//! carried in the order of the commits.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{Owner, lock};
use crate::{
    catalog::Match,
    event::Event,
    failpoint::{self, Failpoint},
    id::RowId,
    log::{
        LogError, Tx,
        calls::{self, CallRecord},
        dead::{self, Dropped, Edited},
        delivery::{self, End, Origin, Placed},
        event::{self as rows, Inserted, Prepared},
        mark,
        query::{QueryError, Selection},
        repeat::{self, Admission},
        replay, run, unrun,
    },
    name::Name,
    outcome::Outcome,
    payload::Format,
    sink::{AcceptError, Accepted, Mark},
    target::Target,
};

impl Owner {
    /// Writes the event and its deliveries, and what its trigger remembers. When this returns they are on disk.
    pub async fn accept(&self, event: Event, marks: Vec<Mark>) -> Result<Accepted, AcceptError> {
        let matches = self.catalog().matches(&event);
        self.take(event, marks, matches).await
    }

    /// The same for an event that is meant for one target, besides whatever its rules match.
    pub async fn accept_for(&self, target: Target, format: Format, event: Event) -> Result<Accepted, AcceptError> {
        let mut matches = vec![Match::own(target, format)];
        matches.extend(self.catalog().matches(&event));
        self.take(event, Vec::new(), matches).await
    }

    async fn take(&self, event: Event, marks: Vec<Mark>, matches: Vec<Match>) -> Result<Accepted, AcceptError> {
        self.has_room()?;
        let (id, trigger) = (event.id.clone(), event.trigger.clone());
        let count = matches.len();
        let event = Prepared::new(event);
        let (inner, owner) = (self.inner.clone(), self.clone());
        let write = move |tx: &Tx<'_>| -> Result<Option<Vec<Placed>>, AcceptError> {
            mark::write(tx, &marks)?;
            let Inserted::New(row) = rows::insert(tx, &event)? else { return Ok(None) };
            let catalog = inner.catalog.load();
            let placed = delivery::place(tx, row, event.event(), &matches)?;
            Ok(Some(run::begin(tx, placed, &inner.rules(&catalog))?))
        };
        // carried even when whoever sent it does not wait for the answer
        let carry = move |placed: Option<Vec<Placed>>| {
            failpoint::reach(Failpoint::AcceptCommitted);
            placed.map(|placed| owner.placed(placed)).is_some()
        };
        let new = self.log().write_and(write, carry);
        let duplicate = !new.await.inspect_err(|error| self.note_conflict(error, trigger.as_ref()))?;
        Ok(Accepted { id, deliveries: if duplicate { 0 } else { count }, duplicate })
    }

    /// Keeps an event whose id, `id`, another one has, of a sender that cannot be told: as a dead letter of each target.
    pub async fn keep_conflict(&self, event: Event, id: String) -> Result<(), AcceptError> {
        self.has_room()?;
        // it stands in no line: what comes after it does not wait for somebody to settle it
        let matches = self.catalog().matches(&event).into_iter().map(|matched| Match { key: None, ..matched });
        let matches: Vec<Match> = matches.collect();
        let event = Prepared::new(event);
        let (inner, owner) = (self.inner.clone(), self.clone());
        let write = move |tx: &Tx<'_>| -> Result<Vec<End>, AcceptError> {
            // one that is there was kept before
            let Inserted::New(row) = rows::insert(tx, &event)? else { return Ok(Vec::new()) };
            let catalog = inner.catalog.load();
            let by = inner.rules(&catalog);
            let mut ends = Vec::new();
            for placed in delivery::place(tx, row, event.event(), &matches)? {
                ends.extend(unrun::conflict(tx, placed.row, &by, &id)?);
            }
            Ok(ends)
        };
        let settle = move |ends: Vec<End>| {
            for end in ends {
                owner.settle(end);
            }
        };
        self.log().write_and(write, settle).await
    }

    /// Accepts a synchronous call with an id of its own. When this returns it is on disk.
    pub async fn admit(&self, event: Event, target: Target, format: Format) -> Result<Admission<RowId>, AcceptError> {
        self.has_room()?;
        let trigger = event.trigger.clone();
        let (event, node) = (Prepared::new(event), self.node().clone());
        let admitted = self.log().write(move |tx| repeat::begin(tx, &event, &target, format, &node)).await;
        admitted.inspect_err(|error| self.note_conflict(error, trigger.as_ref()))
    }

    /// Records how such a call ended, and what follows from it. Returns when it is on disk.
    pub async fn answered(&self, attempt: RowId, outcome: Outcome) -> Result<(), LogError> {
        let (inner, owner, ending) = (self.inner.clone(), self.clone(), outcome.ending);
        let write = move |tx: &Tx<'_>| {
            let catalog = inner.catalog.load();
            Ok::<_, LogError>(repeat::end(tx, attempt, &outcome, &inner.rules(&catalog))?)
        };
        let carry = move |placed: Option<Vec<Placed>>| match placed {
            Some(placed) => owner.placed(placed),
            None => owner.note_late(attempt, ending),
        };
        self.log().write_and(write, carry).await
    }

    /// Such a call was refused before it ran: a repeat is a new one.
    pub async fn withdraw(&self, attempt: RowId) -> Result<(), LogError> {
        self.log().write(move |tx| Ok::<_, LogError>(repeat::withdraw(tx, attempt)?)).await
    }

    /// Accepts an event for a pipeline and gives the outcome of its run when it is there. When this returns the run
    /// is on disk and goes on, whether anybody waits or not.
    pub async fn run(
        &self,
        event: Event,
        pipeline: &Name,
        format: Format,
    ) -> Result<Admission<oneshot::Receiver<Outcome>>, AcceptError> {
        self.has_room()?;
        let (target, trigger) = (pipeline.clone().into(), event.trigger.clone());
        let matched = Match { trigger: trigger.clone(), ..Match::own(target, format) };
        let event = Prepared::new(event);
        let (inner, owner) = (self.inner.clone(), self.clone());
        let write = move |tx: &Tx<'_>| -> Result<Admission<(i64, Vec<Placed>)>, AcceptError> {
            let Inserted::New(row) = rows::insert(tx, &event)? else {
                return Ok(repeat::known(tx, &event, &matched.target)?);
            };
            let catalog = inner.catalog.load();
            let placed = delivery::place_one(tx, row, event.event(), &matched, Origin::default())?;
            Ok(Admission::New((placed.row, run::begin(tx, vec![placed], &inner.rules(&catalog))?)))
        };
        let (answer, answered) = oneshot::channel();
        let carry = move |written: Admission<(i64, Vec<Placed>)>| {
            written.map(|(delivery, placed)| {
                lock(&owner.inner.waiting).insert(delivery, answer);
                owner.placed(placed);
                answered
            })
        };
        let admitted = self.log().write_and(write, carry).await;
        admitted.inspect_err(|error| self.note_conflict(error, trigger.as_ref()))
    }

    /// Writes a synchronous call that ended well together with what follows from its output.
    pub async fn follow_call(&self, call: CallRecord) -> Result<(), LogError> {
        let (inner, owner) = (self.inner.clone(), self.clone());
        let write = move |tx: &Tx<'_>| {
            let catalog = inner.catalog.load();
            Ok::<_, LogError>(calls::insert_chained(tx, &call, &inner.rules(&catalog))?)
        };
        self.log().write_and(write, move |placed| owner.placed(placed)).await
    }

    /// Delivers logged events again.
    pub async fn replay(&self, request: replay::Request) -> Result<replay::Created, QueryError> {
        self.log().calls().flush().await;
        let owner = self.clone();
        let create = move |tx: &Tx<'_>| replay::create(tx, &request);
        let carry = move |(created, placed)| {
            failpoint::reach(Failpoint::ReplayCommitted);
            owner.placed(placed);
            created
        };
        self.log().write_and(create, carry).await
    }

    /// Drops dead letters.
    pub async fn drop_letters(&self, selection: Selection) -> Result<Dropped, QueryError> {
        let owner = self.clone();
        let carry = move |(dropped, placed)| {
            owner.placed(placed);
            dropped
        };
        self.log().write_and(move |tx| dead::drop(tx, &selection), carry).await
    }

    /// Delivers a dead letter again with another body.
    pub async fn edit_letter(&self, edit: dead::Edit) -> Result<Edited, QueryError> {
        let (inner, owner) = (self.inner.clone(), self.clone());
        let write = move |tx: &Tx<'_>| {
            let catalog = inner.catalog.load();
            dead::edit(tx, &edit, &inner.rules(&catalog))
        };
        let carry = move |(edited, placed)| {
            owner.placed(placed);
            edited
        };
        self.log().write_and(write, carry).await
    }

    /// Whatever was accepted goes on in a log that is full of it, and nothing new begins.
    fn has_room(&self) -> Result<(), AcceptError> {
        match self.log().reached() {
            Some((bytes, most)) => Err(AcceptError::Backlog { bytes, most }),
            None => Ok(()),
        }
    }

    /// Says that two events have one id, whether or not whoever sent the second can be told.
    fn note_conflict(&self, error: &AcceptError, trigger: Option<&Name>) {
        if let AcceptError::Conflict { id, source_uri } = error {
            self.inner.conflicts.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                event.id = %id, event.source = %source_uri, trigger = trigger.map(Name::as_str),
                "an event was refused: another one has its id and another body"
            );
        }
    }
}
