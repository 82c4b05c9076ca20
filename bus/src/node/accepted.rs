//! Synchronous calls that are accepted before they run: those of pipelines, and those with an id of their own.

use std::{sync::Arc, time::Duration};

use super::Bus;
use crate::{
    Event, EventId, Outcome, RowId,
    catalog::Chain,
    chain,
    log::repeat::Admission,
    outcome::Ending,
    sink::{Call, CallError, Reply},
};

/// How long a synchronous call waits for a pipeline when its route does not say.
const RUN_WAIT: Duration = Duration::from_secs(30);

/// Before the log is asked again to record the outcome of a call.
const AGAIN: Duration = Duration::from_millis(500);

impl Bus {
    /// A synchronous call of a pipeline: accepted like any event, then waited for.
    pub(super) async fn run(&self, event: Event, call: Call) -> Result<Reply, CallError> {
        let id = event.id.clone();
        let ended = match self.owner().run(event, &call.function, call.format).await? {
            Admission::New(ended) => ended,
            known => return known_reply(id, known),
        };
        match tokio::time::timeout(call.timeout.unwrap_or(RUN_WAIT), ended).await {
            Ok(Ok(outcome)) => Ok(Reply { event: id, outcome }),
            Ok(Err(_)) | Err(_) => Err(CallError::TimedOut { function: call.function }),
        }
    }

    /// A synchronous call of a function with an id of its own: accepted first, so that it runs once.
    pub(super) async fn once(
        &self,
        event: Event,
        call: Call,
        wait: Duration,
        chain: Chain,
    ) -> Result<Reply, CallError> {
        let id = event.id.clone();
        let attempt = match self.owner().admit(event.clone(), call.target(), call.format).await? {
            Admission::New(attempt) => attempt,
            known => return known_reply(id, known),
        };
        let (patience, function) = (call.timeout.unwrap_or(wait), call.function.clone());
        // It is recorded when it ends, however long its caller waits.
        let running = tokio::spawn(self.clone().run_once(attempt, Arc::new(event), call, wait, chain));
        match tokio::time::timeout(patience, running).await {
            Ok(Ok(outcome)) => Ok(Reply { event: id, outcome: outcome? }),
            Ok(Err(_)) => Err(CallError::Vanished { function }),
            Err(_) => Err(CallError::TimedOut { function }),
        }
    }

    async fn run_once(
        self,
        attempt: RowId,
        event: Arc<Event>,
        call: Call,
        wait: Duration,
        chain: Chain,
    ) -> Result<Outcome, CallError> {
        let owner = self.owner();
        let called = self.inner.caller.call(&event, &call, wait).await;
        let called = called.map(|outcome| chain::too_many(&event, &chain, &outcome).unwrap_or(outcome));
        loop {
            let recorded = match &called {
                Ok(outcome) => owner.answered(attempt, outcome.clone()).await,
                Err(CallError::Busy { .. } | CallError::Stopped { .. } | CallError::NoNode { .. }) => {
                    owner.withdraw(attempt).await
                }
                // nobody knows whether it ran
                Err(why) => {
                    let lost = Outcome::failure(Ending::Lost, "Runtime.Lost", why.to_string());
                    owner.answered(attempt, lost).await
                }
            };
            match recorded {
                Ok(()) => return called,
                Err(error) if error.is_final() => return Err(CallError::Log { reason: error.to_string() }),
                Err(error) => {
                    tracing::error!(%error, %attempt, "the outcome of a call could not be recorded; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// The answer to a call that is not the first of its id.
fn known_reply<T>(id: EventId, known: Admission<T>) -> Result<Reply, CallError> {
    match known {
        Admission::Answered(outcome) => Ok(Reply { event: id, outcome: *outcome }),
        Admission::Runs => Err(CallError::Running { id }),
        Admission::New(_) | Admission::Forgotten => Err(CallError::Forgotten { id }),
    }
}
