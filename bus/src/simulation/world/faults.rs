//! What goes wrong, and what people do meanwhile.

use std::{sync::Arc, time::Duration};

use super::{Check, World, project};
use crate::{
    ambient,
    catalog::Catalog,
    log::{LogError, dead::Edit, query::Selection, replay::Request},
};

impl World {
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
