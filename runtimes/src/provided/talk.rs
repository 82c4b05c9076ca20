//! Whose turn it is between an instance and its process. Pure: calls in, answers and refusals out.
//!
//! ```text
//! init ──next──> free ──an invocation is offered, next──> running ──response, error──> free
//!   └──init/error──> failed
//! ```

use std::sync::Arc;

use bus::{
    outcome::{Ending, Fault},
    payload::Payload,
    streamed::Outlet,
};
use bytes::Bytes;

use crate::dialogue::Answer;

/// An invocation, as `next` tells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turn {
    /// Of the attempt, so it is the invocation id too: never used again.
    pub(super) id: String,
    /// Milliseconds since 1970.
    pub(super) deadline: u64,
    pub(super) trace: String,
    pub(super) payload: Payload,
    pub(super) client_context: Option<String>,
    /// Where its response may go as it comes.
    pub(super) outlet: Option<Outlet>,
}

/// Where an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// It loads its code.
    #[default]
    Init,
    /// It said that it cannot load it.
    Failed,
    /// It waits for the next invocation, or will ask for it.
    Free,
    /// It runs one.
    Running,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not the time for this.
    State { from: &'static str, to: &'static str },
    /// This id is not running.
    RequestId,
    /// The invocation id that was sent along is that of an earlier attempt.
    Stale,
}

#[derive(Default)]
pub(super) struct Talk {
    phase: Phase,
    /// The invocation to be taken, or running.
    turn: Option<Arc<Turn>>,
    /// The id of the one before.
    last: Option<String>,
    /// What the process has said and the instance has not heard yet.
    said: Option<Answer>,
}

impl Talk {
    /// An invocation to be taken.
    pub(super) fn offer(&mut self, turn: Turn) {
        self.turn = Some(Arc::new(turn));
    }

    /// The process asks for its next invocation: there, not yet there, or refused. While one runs it is that one again.
    pub(super) fn next(&mut self) -> Result<Option<Arc<Turn>>, Refusal> {
        match self.phase {
            Phase::Failed => return Err(self.not_now("Ready")),
            Phase::Init => {
                self.phase = Phase::Free;
                self.said = Some(Answer::Ready(None));
            }
            Phase::Free | Phase::Running => {}
        }
        if self.turn.is_some() {
            self.phase = Phase::Running;
        }
        Ok(self.turn.clone())
    }

    /// Whether the answer to an invocation may come now. `echoed` is the invocation id a newer client sends along.
    pub(super) fn may_answer(&self, id: &str, echoed: Option<&str>, to: &'static str) -> Result<(), Refusal> {
        let running = self.turn.as_ref().filter(|_| self.phase == Phase::Running);
        match (self.phase, running) {
            (Phase::Init | Phase::Failed, _) => Err(self.not_now(to)),
            (_, Some(turn)) if echoed.is_some_and(|echoed| echoed != turn.id) => Err(Refusal::Stale),
            (_, Some(turn)) if turn.id == id => Ok(()),
            // a second answer
            (_, None) if self.last.as_deref() == Some(id) && echoed.is_none_or(|echoed| echoed == id) => {
                Err(self.not_now(to))
            }
            (_, None) if echoed.is_some() => Err(Refusal::Stale),
            _ => Err(Refusal::RequestId),
        }
    }

    /// The way for a response that is streamed; the running invocation was asked for before.
    pub(super) fn outlet(&self) -> Option<Outlet> {
        self.turn.as_ref().and_then(|turn| turn.outlet.clone())
    }

    /// The invocation has ended so. [`Talk::may_answer`] was asked before, and again here: time has passed.
    pub(super) fn answer(
        &mut self,
        id: &str,
        ending: Ending,
        output: Bytes,
        fault: Option<Fault>,
    ) -> Result<(), Refusal> {
        self.may_answer(id, None, "InvocationResponse")?;
        self.last = self.turn.take().map(|turn| turn.id.clone());
        self.phase = Phase::Free;
        self.said = Some(Answer::Ended { ending, output, fault });
        Ok(())
    }

    /// The code could not be loaded.
    pub(super) fn init_error(&mut self, output: Bytes, fault: Fault) -> Result<(), Refusal> {
        if self.phase != Phase::Init {
            return Err(self.not_now("InitError"));
        }
        self.phase = Phase::Failed;
        self.said = Some(Answer::Ended { ending: Ending::InitError, output, fault: Some(fault) });
        Ok(())
    }

    /// What was said since the last time, for the instance.
    pub(super) fn hear(&mut self) -> Option<Answer> {
        self.said.take()
    }

    /// Whether the invocation was offered and not taken.
    pub(super) fn is_untaken(&self) -> bool {
        self.turn.is_some() && self.phase != Phase::Running
    }

    fn not_now(&self, to: &'static str) -> Refusal {
        let from = match self.phase {
            Phase::Init => "Started",
            Phase::Failed => "InitError",
            Phase::Free => "Ready",
            Phase::Running => "Running",
        };
        Refusal::State { from, to }
    }
}

#[cfg(test)]
mod tests {
    use bus::payload::Form;

    use super::*;

    fn turn(id: &str) -> Turn {
        let payload = Payload { bytes: Bytes::from_static(b"1"), form: Form::Json };
        Turn { id: id.into(), deadline: 7, trace: String::new(), payload, client_context: None, outlet: None }
    }

    fn running(id: &str) -> Talk {
        let mut talk = Talk::default();
        assert_eq!(talk.next(), Ok(None));
        talk.offer(turn(id));
        assert_eq!(talk.next().unwrap().unwrap().id, id);
        talk
    }

    fn answer(talk: &mut Talk, id: &str) -> Result<(), Refusal> {
        talk.answer(id, Ending::Ok, Bytes::new(), None)
    }

    #[test]
    fn the_first_next_says_that_the_code_is_loaded() {
        let mut talk = Talk::default();
        assert!(talk.hear().is_none());
        assert_eq!(talk.next(), Ok(None));
        assert!(matches!(talk.hear(), Some(Answer::Ready(None))));
        assert_eq!(talk.next(), Ok(None), "it may ask again");
        assert!(talk.hear().is_none());
    }

    #[test]
    fn an_invocation_is_taken_by_the_next_that_gives_it() {
        let mut talk = Talk::default();
        talk.next().unwrap();
        talk.offer(turn("a"));
        assert!(talk.is_untaken());
        assert_eq!(talk.next().unwrap().unwrap().id, "a");
        assert!(!talk.is_untaken());
    }

    #[test]
    fn a_second_next_while_one_runs_is_the_same_one() {
        let mut talk = running("a");
        assert_eq!(talk.next().unwrap().unwrap().id, "a");
        assert_eq!(answer(&mut talk, "a"), Ok(()));
        assert_eq!(talk.next(), Ok(None));
    }

    #[test]
    fn before_the_first_next_and_twice_is_no_time_for_an_answer() {
        let state = |talk: &Talk, id| matches!(talk.may_answer(id, None, "x"), Err(Refusal::State { .. }));
        assert!(state(&Talk::default(), "a"));
        let mut talk = running("a");
        assert_eq!(answer(&mut talk, "a"), Ok(()));
        assert!(state(&talk, "a"));
        assert!(matches!(talk.hear(), Some(Answer::Ended { ending: Ending::Ok, .. })));
    }

    #[test]
    fn an_id_that_does_not_run_is_refused() {
        let mut talk = running("a");
        assert_eq!(answer(&mut talk, "b"), Err(Refusal::RequestId));
        assert_eq!(answer(&mut talk, "a"), Ok(()));
        talk.offer(turn("b"));
        talk.next().unwrap();
        assert_eq!(answer(&mut talk, "a"), Err(Refusal::RequestId), "one that has ended");
    }

    #[test]
    fn only_who_echoes_an_invocation_id_is_told_that_it_is_stale() {
        let mut talk = running("a");
        assert_eq!(talk.may_answer("a", Some("a"), "x"), Ok(()));
        assert_eq!(talk.may_answer("a", Some("z"), "x"), Err(Refusal::Stale));
        assert_eq!(talk.may_answer("z", Some("z"), "x"), Err(Refusal::Stale));
        assert_eq!(answer(&mut talk, "a"), Ok(()));
        assert_eq!(talk.may_answer("z", Some("z"), "x"), Err(Refusal::Stale));
        assert_eq!(talk.may_answer("z", None, "x"), Err(Refusal::RequestId));
    }

    #[test]
    fn an_error_of_init_can_come_before_the_first_next_alone_and_ends_it_all() {
        let init_error = |talk: &mut Talk| talk.init_error(Bytes::new(), Fault::new("a", "b"));
        assert!(init_error(&mut running("a")).is_err());
        let mut talk = Talk::default();
        assert_eq!(init_error(&mut talk), Ok(()));
        assert!(matches!(talk.hear(), Some(Answer::Ended { ending: Ending::InitError, .. })));
        assert!(talk.next().is_err() && init_error(&mut talk).is_err());
    }
}
