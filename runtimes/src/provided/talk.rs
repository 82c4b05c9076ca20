//! Whose turn it is between an instance and its process. Pure: calls in, answers and refusals out.
//!
//! ```text
//! init ──next──> ready       an invocation: offered ──next──> running ──response, error──> ended
//!   └──init/error──> failed
//! ```

use std::{collections::VecDeque, sync::Arc};

use bus::{
    outcome::{Ending, Fault},
    payload::Payload,
    streamed::Outlet,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::dialogue::Answer;

/// An invocation, as `next` tells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turn {
    pub(super) request: Uuid,
    /// As it is told. Of the attempt, so it is the invocation id too: never used again.
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
    /// It has asked for an invocation.
    Ready,
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
    /// Several invocations may run at once.
    many: bool,
    phase: Phase,
    /// Invocations to be taken.
    offered: VecDeque<Arc<Turn>>,
    running: Vec<Arc<Turn>>,
    /// The id of the one that was answered last.
    last: Option<String>,
    /// What the process has said and the instance has not heard yet, and of which invocation.
    said: VecDeque<(Uuid, Answer)>,
}

impl Talk {
    pub(super) fn new(many: bool) -> Self {
        Self { many, ..Self::default() }
    }

    /// An invocation to be taken.
    pub(super) fn offer(&mut self, turn: Turn) {
        self.offered.push_back(Arc::new(turn));
    }

    /// The process asks for its next invocation: there, not yet there, or refused. Where one runs at a time it is that one
    /// again while it runs.
    pub(super) fn next(&mut self) -> Result<Option<Arc<Turn>>, Refusal> {
        match self.phase {
            Phase::Failed => return Err(self.not_now("Ready")),
            Phase::Init => {
                self.phase = Phase::Ready;
                self.said.push_back((Uuid::nil(), Answer::Ready(None)));
            }
            Phase::Ready => {}
        }
        if let Some(turn) = self.offered.pop_front() {
            self.running.push(turn.clone());
            return Ok(Some(turn));
        }
        Ok(self.running.first().filter(|_| !self.many).cloned())
    }

    /// Whether the answer to an invocation may come now. `echoed` is the invocation id a newer client sends along.
    pub(super) fn may_answer(&self, id: &str, echoed: Option<&str>, to: &'static str) -> Result<(), Refusal> {
        let is_its_own = echoed.is_none_or(|echoed| echoed == id);
        if self.phase != Phase::Ready {
            Err(self.not_now(to))
        } else if is_its_own && self.runs(id) {
            Ok(())
        } else if is_its_own && self.running.is_empty() && self.last.as_deref() == Some(id) {
            // a second answer
            Err(self.not_now(to))
        } else if echoed.is_some_and(|echoed| !self.runs(echoed)) {
            Err(Refusal::Stale)
        } else {
            Err(Refusal::RequestId)
        }
    }

    /// Whether it runs, and somebody waits for its answer.
    pub(super) fn runs(&self, id: &str) -> bool {
        self.running.iter().any(|turn| turn.id == id)
    }

    /// The way for a response that is streamed; whether it may be answered was asked before.
    pub(super) fn outlet(&self, id: &str) -> Option<Outlet> {
        self.running.iter().find(|turn| turn.id == id).and_then(|turn| turn.outlet.clone())
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
        if let Some(at) = self.running.iter().position(|turn| turn.id == id) {
            let turn = self.running.swap_remove(at);
            self.last = Some(turn.id.clone());
            self.said.push_back((turn.request, Answer::Ended { ending, output, fault }));
        }
        Ok(())
    }

    /// Nobody waits for the answer any more: it is stale when it comes.
    pub(super) fn forget(&mut self, request: Uuid) {
        self.offered.retain(|turn| turn.request != request);
        self.running.retain(|turn| turn.request != request);
    }

    /// The code could not be loaded.
    pub(super) fn init_error(&mut self, output: Bytes, fault: Fault) -> Result<(), Refusal> {
        if self.phase != Phase::Init {
            return Err(self.not_now("InitError"));
        }
        self.phase = Phase::Failed;
        let answer = Answer::Ended { ending: Ending::InitError, output, fault: Some(fault) };
        self.said.push_back((Uuid::nil(), answer));
        Ok(())
    }

    /// What was said since the last time, for the instance.
    pub(super) fn hear(&mut self) -> Option<(Uuid, Answer)> {
        self.said.pop_front()
    }

    /// Whether an invocation was offered and not taken.
    pub(super) fn is_untaken(&self) -> bool {
        !self.offered.is_empty()
    }

    /// Whether this one was.
    pub(super) fn is_untaken_of(&self, request: Uuid) -> bool {
        self.offered.iter().any(|turn| turn.request == request)
    }

    fn not_now(&self, to: &'static str) -> Refusal {
        let from = match self.phase {
            Phase::Init => "Started",
            Phase::Failed => "InitError",
            Phase::Ready if self.running.is_empty() => "Ready",
            Phase::Ready => "Running",
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
        let request = Uuid::from_u128(id.bytes().map(u128::from).sum());
        Turn { request, id: id.into(), deadline: 7, trace: String::new(), payload, client_context: None, outlet: None }
    }

    fn running(id: &str) -> Talk {
        let mut talk = Talk::default();
        assert_eq!(talk.next(), Ok(None));
        talk.offer(turn(id));
        assert_eq!(talk.next().unwrap().unwrap().id, id);
        talk.hear();
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
        assert!(matches!(talk.hear(), Some((_, Answer::Ready(None)))));
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
        assert!(matches!(talk.hear(), Some((_, Answer::Ended { ending: Ending::Ok, .. }))));
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
        assert!(matches!(talk.hear(), Some((_, Answer::Ended { ending: Ending::InitError, .. }))));
        assert!(talk.next().is_err() && init_error(&mut talk).is_err());
    }

    #[test]
    fn several_run_at_once_and_each_is_taken_and_answered_once() {
        let mut talk = Talk::new(true);
        assert_eq!(talk.next(), Ok(None));
        for id in ["a", "b"] {
            talk.offer(turn(id));
        }
        assert_eq!(talk.next().unwrap().unwrap().id, "a");
        assert_eq!(talk.may_answer("b", None, "x"), Err(Refusal::RequestId), "nobody has taken it");
        assert_eq!(talk.next().unwrap().unwrap().id, "b");
        assert_eq!(talk.next(), Ok(None));
        assert_eq!(answer(&mut talk, "b"), Ok(()));
        assert_eq!(talk.may_answer("b", Some("b"), "x"), Err(Refusal::Stale), "a second answer");
        assert_eq!(talk.may_answer("a", Some("a"), "x"), Ok(()));
        assert_eq!(answer(&mut talk, "a"), Ok(()));
        talk.hear();
        let heard: Vec<Uuid> = std::iter::from_fn(|| talk.hear()).map(|(of, _)| of).collect();
        assert_eq!(heard, [turn("b").request, turn("a").request]);
    }

    #[test]
    fn an_answer_nobody_waits_for_any_more_is_stale() {
        let mut talk = Talk::new(true);
        for id in ["a", "b"] {
            talk.offer(turn(id));
        }
        talk.next().unwrap();
        talk.forget(turn("a").request);
        assert_eq!(talk.may_answer("a", Some("a"), "x"), Err(Refusal::Stale));
        assert_eq!(talk.may_answer("a", None, "x"), Err(Refusal::RequestId));
        assert!(talk.is_untaken_of(turn("b").request) && !talk.is_untaken_of(turn("a").request));
    }
}
