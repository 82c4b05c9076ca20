//! Calls of functions that are known to come: the next time of a schedule, the next step of a run. Said to whoever can have an
//! instance ready; nothing depends on its being heard.

use chrono::{DateTime, Utc};
use tokio::sync::broadcast;

use crate::name::Name;

/// What may wait to be heard; more is forgotten.
const KEPT: usize = 256;

/// What is going to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ahead {
    /// These functions, then.
    At(DateTime<Utc>, Vec<Name>),
    /// The functions of the first list are being called; when they are done, those of the next one, and so on.
    Path(Vec<Vec<Name>>),
}

/// Where it is said. Clones share it.
#[derive(Debug, Clone)]
pub struct Foresight(broadcast::Sender<Ahead>);

impl Default for Foresight {
    fn default() -> Self {
        Self(broadcast::channel(KEPT).0)
    }
}

impl Foresight {
    pub fn say(&self, ahead: Ahead) {
        // nobody listens: nothing can be made ready
        let _ = self.0.send(ahead);
    }

    pub fn listen(&self) -> broadcast::Receiver<Ahead> {
        self.0.subscribe()
    }
}
