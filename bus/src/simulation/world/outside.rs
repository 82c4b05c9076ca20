//! What comes from outside: events, what goes wrong, and people who do something about it.

use std::{sync::Arc, time::Duration};

use super::{super::check::Submitted, Check, World, project};
use crate::{
    Event, EventId, ambient,
    catalog::Catalog,
    log::{LogError, dead::Edit, query::Selection, replay::Request},
};

impl World {
    /// Somebody sends an event: a new one, or one that was sent before, or another under the same id.
    pub(super) fn submit(&mut self) {
        let Some(owner) = self.owner() else { return };
        let mut journal = self.journal.lock().unwrap();
        let known = journal.submitted.len();
        let again = known > 0 && self.chance.u8(..4) == 0;
        let event = if again {
            let mut event = journal.submitted[self.chance.usize(..known)].event.clone();
            if self.chance.bool() && matches!(event.id, EventId::Foreign(_)) {
                event.data = format!("{{\"key\":\"a\",\"n\":{known}}}").into();
            }
            // an id of ours is made for each event anew
            matches!(event.id, EventId::Foreign(_)).then_some(event)
        } else {
            None
        };
        let event = event.unwrap_or_else(|| {
            self.events -= 1;
            let key = ["a", "b"][self.chance.usize(..2)];
            let mut event = Event::new("/sim", "sent", format!("{{\"key\":\"{key}\",\"n\":{known}}}"));
            if self.chance.bool() {
                event.id = EventId::foreign(&format!("id-{known}"));
            }
            event.trigger = Some(project::name(project::TRIGGERS[self.chance.usize(..2)]));
            event
        });
        self.trace.note("an event is sent:", known as u64);
        if self.trace.aloud {
            println!("      {} by {:?}", event.id, event.trigger);
        }
        journal.submitted.push(Submitted { event: event.clone(), answer: None });
        let journal = self.journal.clone();
        ambient::spawn(async move {
            let answer = owner.accept(event, Vec::new()).await;
            journal.lock().unwrap().submitted[known].answer = Some(answer);
        });
    }

    pub(super) fn fault(&mut self) {
        let kind = self.chance.u8(..17);
        self.trace.note("fault", kind.into());
        match kind {
            0 | 1 => {
                self.kill();
                if self.chance.bool() {
                    self.wind(Duration::from_secs(30));
                }
                self.start();
            }
            2 => self.broker.wipe(),
            3 => self.broker.cut(&mut self.chance),
            4 => self.broker.lose(&mut self.chance),
            5 => self.broker.connect(false),
            6 => self.broker.connect(true),
            7 => {
                let full = self.chance.bool();
                self.broker.fill_up(full);
            }
            8 => {
                let edited = if self.chance.bool() {
                    self.check.edited = true;
                    project::edited(&self.catalog, &mut self.chance)
                } else {
                    self.catalog.clone()
                };
                self.configure(edited);
            }
            9 => {
                let dead = self.chance.bool() && self.has_letters();
                self.replay(dead);
            }
            10 if self.has_letters() => self.drop_letters(),
            11 => self.edit_letter(),
            12 => self.disk_full = self.chance.bool(),
            13 => {
                let kept = self.chance.bool();
                if let Some(node) = &mut self.node {
                    node.turns.spoil(LogError::Unsynced { reason: "it forgets".into() }, kept);
                }
            }
            14 => {
                self.log_full = self.chance.bool();
                if let Some(node) = &self.node {
                    node.owner.log().fill_up(self.log_full);
                }
            }
            _ => self.hand(true, false),
        }
    }

    pub(super) fn configure(&mut self, catalog: Catalog) {
        self.in_force.store(Arc::new(catalog));
        if let Some(node) = &self.node {
            node.owner.reconfigured();
        }
    }

    fn has_letters(&self) -> bool {
        Check::letter(&self.connection.lock().unwrap()).is_some()
    }

    /// Dead letters are delivered again, or an event is.
    pub(super) fn replay(&mut self, dead: bool) {
        let Some(owner) = self.owner() else { return };
        let request = Request { dead, hold: self.chance.bool(), ..Request::default() };
        let mut selection = Selection::default();
        if !dead {
            if self.events == 0 {
                return;
            }
            self.events -= 1;
            let journal = self.journal.lock().unwrap();
            let Some(submitted) = journal.submitted.first() else { return };
            selection.ids.push(submitted.event.id.to_string());
        }
        self.trace.note("it is delivered again; dead letters:", dead.into());
        ambient::spawn(async move {
            let _ = owner.replay(Request { selection, ..request }).await;
        });
    }

    /// Somebody drops all dead letters.
    pub(super) fn drop_letters(&mut self) {
        let Some(owner) = self.owner() else { return };
        self.trace.note("dead letters are dropped", 0);
        ambient::spawn(async move {
            let _ = owner.drop_letters(Selection::default()).await;
        });
    }

    /// Somebody corrects the body of a dead letter.
    fn edit_letter(&mut self) {
        let Some(owner) = self.owner() else { return };
        let Some((event, target)) = Check::letter(&self.connection.lock().unwrap()) else { return };
        let mut journal = self.journal.lock().unwrap();
        let data = format!("{{\"key\":\"a\",\"edit\":{}}}", journal.edits.len());
        journal.edits.push(data.clone());
        self.trace.note("a dead letter is edited", journal.edits.len() as u64);
        let edit = Edit { id: event.to_string(), target: Some(target), data: data.into() };
        ambient::spawn(async move {
            let _ = owner.edit_letter(edit).await;
        });
    }
}
