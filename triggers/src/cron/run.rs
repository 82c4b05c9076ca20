//! Waits for the slots and accepts their events.

use std::{sync::Arc, time::Duration};

use bus::{
    Event, EventId, Name,
    event::{CronMeta, Meta},
    sink::{AcceptError, Ledger, Mark, RESUMED},
};
use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::due::{Slot, due, nap, next};
use crate::{
    config::{CronTrigger, Overlap},
    status::Live,
};

/// The key of what is remembered.
const MARK: &str = "cron";
/// Before trying again what the log did not take.
const AGAIN: Duration = Duration::from_secs(1);

/// A cron trigger that runs.
pub(crate) struct Cron<S> {
    pub(crate) sink: S,
    pub(crate) trigger: Name,
    /// `/<namespace>/<trigger>`.
    pub(crate) source: Arc<str>,
    pub(crate) config: CronTrigger,
    pub(crate) live: Live,
}

/// What is remembered across restarts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Memory {
    /// The schedule it is about: another one begins anew, with no slot missed.
    schedule: String,
    /// When the schedule was first seen; rates count from here.
    began: DateTime<Utc>,
    /// The last slot that was decided.
    done: DateTime<Utc>,
}

impl<S: Ledger> Cron<S> {
    /// Runs until shut down.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut memory = None;
        loop {
            let nap = match self.turn(&mut memory).await {
                Ok(nap) => {
                    self.live.goes_on(&self.trigger);
                    nap
                }
                Err(error) => {
                    self.live.waits(&self.trigger, &error);
                    AGAIN
                }
            };
            tokio::select! {
                () = sleep(nap) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Takes every slot that is due, and says how long to sleep.
    async fn turn(&self, memory: &mut Option<Memory>) -> Result<Duration, AcceptError> {
        let now = Utc::now();
        let memory = match memory {
            Some(memory) => memory,
            None => memory.insert(self.remember(now).await?),
        };
        // A clock that was set back: slots that were taken are known by their ids.
        memory.done = memory.done.min(now);
        let due = due(&self.config, memory.began, memory.done, now);
        if due.dropped > 0 {
            tracing::info!(trigger = %self.trigger, slots = due.dropped, "cron slots were missed and are not made up for");
        }
        for slot in due.fire {
            let done = Memory { done: slot.time, ..memory.clone() };
            self.take(&slot, &done).await?;
            *memory = done;
        }
        let next = next(&self.config, memory.began, memory.done.max(now)).map(|slot| slot.time);
        if let Some(next) = next {
            self.sink.foresee(&self.trigger, next);
        }
        self.live.next(next.map(|next| next.with_timezone(&self.config.zone.0).fixed_offset()));
        Ok(nap(next, Utc::now()))
    }

    /// Accepts the event of a slot, unless the one before is still at work and may not be overtaken.
    async fn take(&self, slot: &Slot, memory: &Memory) -> Result<(), AcceptError> {
        let busy = self.config.overlap == Overlap::Skip && self.sink.has_open(&self.trigger).await?;
        if busy {
            tracing::info!(trigger = %self.trigger, slot = %id_of(slot), "a cron slot was skipped: the last one is not done");
        }
        let event = (!busy).then(|| self.event(slot));
        match self.sink.accept_marked(event, vec![self.mark(memory)]).await {
            Err(error @ AcceptError::Conflict { .. }) => {
                tracing::error!(trigger = %self.trigger, %error, "a cron slot was taken by an event of somebody else");
                self.sink.accept_marked(None, vec![self.mark(memory)]).await?;
            }
            other => _ = other?,
        }
        Ok(())
    }

    fn event(&self, slot: &Slot) -> Event {
        let event = tick(&self.config, &self.trigger, self.source.clone(), slot);
        Event { id: EventId::foreign(&id_of(slot)), ..event }
    }

    /// What was done before; a new beginning when there is nothing or it is about another schedule.
    async fn remember(&self, now: DateTime<Utc>) -> Result<Memory, AcceptError> {
        let schedule = self.schedule();
        let mut marks = self.sink.marks(&self.trigger).await?;
        let resumed: Option<DateTime<Utc>> = marks.remove(RESUMED).and_then(|time| time.parse().ok());
        let known: Option<Memory> = marks.remove(MARK).and_then(|text| serde_json::from_str(&text).ok());
        if let Some(mut known) = known.filter(|known| known.schedule == schedule) {
            // what passed while it was paused on purpose was not missed
            known.done = known.done.max(resumed.unwrap_or(known.done));
            return Ok(known);
        }
        let memory = Memory { schedule, began: now.trunc_subsecs(0), done: now };
        self.sink.accept_marked(None, vec![self.mark(&memory)]).await?;
        Ok(memory)
    }

    fn schedule(&self) -> String {
        let expressions: Vec<&str> = self.config.expressions.iter().map(super::Expression::as_str).collect();
        format!("{} {}", expressions.join(", "), self.config.zone)
    }

    fn mark(&self, memory: &Memory) -> Mark {
        Mark { trigger: self.trigger.clone(), key: MARK.to_owned(), value: serde_json::to_string(memory).ok() }
    }
}

/// The event of a time that is taken now because somebody says so.
pub(crate) fn fired(config: &CronTrigger, trigger: &Name, source: Arc<str>, now: DateTime<Utc>) -> Event {
    tick(config, trigger, source, &Slot { time: now.trunc_subsecs(6), expression: 0 })
}

/// The event of a time, under an id of its own.
fn tick(config: &CronTrigger, trigger: &Name, source: Arc<str>, slot: &Slot) -> Event {
    let mut event = Event::new(source, "cron.tick", "");
    event.time = slot.time;
    event.subject = Some(config.expressions[slot.expression].as_str().into());
    event.trigger = Some(trigger.clone());
    let zone = config.zone;
    event.meta = Meta::Cron(Box::new(CronMeta {
        slot: slot.time,
        local: slot.time.with_timezone(&zone.0).to_rfc3339_opts(SecondsFormat::Secs, false),
        zone: zone.to_string(),
    }));
    event
}

/// The id of a slot's event: the instant it was planned for.
fn id_of(slot: &Slot) -> String {
    slot.time.to_rfc3339_opts(SecondsFormat::Secs, true)
}
