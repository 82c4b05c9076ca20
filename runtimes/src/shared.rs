//! A process that runs several invocations at once. One task drives it: it asks, hears what is said and printed, and gives each
//! invocation what is its own. Whoever runs one waits here for its answer or its deadline.
//!
//! An invocation that runs over its time cannot be stopped alone. Its caller is told at once; the process gets no other
//! (the pool sees to that), those that run beside it go on to their own ends, and then it is ended as one that ran over its time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus::outcome::Ending;
use tokio::{sync::mpsc, time};
use uuid::Uuid;

use crate::{
    conversation::{Conversation, Silence},
    dialogue::Answer,
    frame::BadFrame,
    lease::Invocation,
    lock,
    output::Output,
    process::Group,
    streamed::Pieces,
};

/// Answers that one invocation has not taken: a piece, what comes before it, and the end.
const UNTAKEN: usize = 4;

/// A process, as those know it that use it. It ends when the last of them is dropped.
pub(crate) struct Shared {
    /// A few for each invocation that runs.
    words: mpsc::UnboundedSender<Word>,
    group: Arc<Group>,
    slots: usize,
    /// Invocations that run. Its pool counts them, under its lock.
    running: AtomicUsize,
    /// It gets no further invocation.
    leaves: AtomicBool,
}

/// What the task is told.
enum Word {
    Ask(Call),
    /// This one has passed a piece of its answer on.
    Took(Uuid),
    /// Nobody waits for this one any more.
    Over(Uuid),
}

/// An invocation that runs.
struct Call {
    invocation: Invocation,
    timeout: Duration,
    /// As it would stand in a line.
    id: String,
    told: mpsc::Sender<Result<Answer, Silence>>,
    output: Arc<Mutex<Output>>,
}

impl Shared {
    /// Takes over a process that has loaded its code.
    pub(crate) fn new(mut conversation: Conversation, slots: u32) -> Arc<Self> {
        let earlier = conversation.log();
        conversation.output.part();
        conversation.dialogue.share();
        let group = conversation.group().clone();
        let (words, told) = mpsc::unbounded_channel();
        tokio::spawn(drive(conversation, told, earlier));
        let slots = slots as usize;
        Arc::new(Self { words, group, slots, running: AtomicUsize::default(), leaves: AtomicBool::default() })
    }

    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// Another invocation is on it. Whether it is the only one.
    pub(crate) fn enter(&self) -> bool {
        self.running.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// One less.
    pub(crate) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn rests(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0
    }

    /// How many more it may run.
    pub(crate) fn open(&self) -> usize {
        self.slots.saturating_sub(self.running.load(Ordering::Relaxed))
    }

    /// It gets no further invocation.
    pub(crate) fn retire(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.leaves.load(Ordering::Relaxed)
    }

    /// Runs one invocation. What it prints comes into `output`; `limit` is its largest answer. Dropped, the invocation goes on
    /// as one that ran over its time.
    pub(crate) async fn call(
        &self,
        invocation: &Invocation,
        timeout: Duration,
        output: &Arc<Mutex<Output>>,
        limit: usize,
    ) -> Result<Answer, Silence> {
        let until = time::Instant::now() + timeout;
        let (tell, mut told) = mpsc::channel(UNTAKEN);
        let id = invocation.request_id;
        let call =
            Call { invocation: invocation.clone(), timeout, id: id.to_string(), told: tell, output: output.clone() };
        self.words.send(Word::Ask(call)).map_err(|_| Silence::NotTaken)?;
        let mut waits = Waits { words: &self.words, id, is_answered: false };
        let mut pieces = Pieces::of(invocation, limit);
        loop {
            let next = async {
                pieces.room().await;
                told.recv().await
            };
            let said = time::timeout_at(until, next).await.map_err(|_| Silence::TimedOut)?;
            let Some(said) = said else { return Err(Silence::Exited) };
            match said {
                Ok(Answer::Piece(piece)) => {
                    pieces.add(piece);
                    let _ = self.words.send(Word::Took(id));
                }
                said => {
                    waits.is_answered = true;
                    return said.map(|answer| pieces.end(answer));
                }
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // others need not wait until it is gone
        self.group.holds(0);
    }
}

/// Somebody waits for an answer, as long as this lives.
struct Waits<'a> {
    words: &'a mpsc::UnboundedSender<Word>,
    id: Uuid,
    is_answered: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let _ = self.words.send(Word::Over(self.id));
        }
    }
}

/// Drives the process until nobody uses it any more, or it ends. `earlier` is what it printed until now.
async fn drive(mut conversation: Conversation, mut words: mpsc::UnboundedReceiver<Word>, mut earlier: String) {
    let group = conversation.group().clone();
    let mut calls = Calls::default();
    let mut is_over = false;
    let silence = loop {
        tokio::select! {
            biased;
            word = words.recv() => match word {
                Some(Word::Ask(call)) => {
                    lock(&call.output).follow(&std::mem::take(&mut earlier));
                    match conversation.dialogue.ask(&call.invocation, call.timeout) {
                        Ok(()) => calls.running.insert(call.invocation.request_id, call),
                        Err(broken) => break Some(Silence::from(broken)),
                    };
                }
                Some(Word::Took(id)) => conversation.dialogue.took(id),
                Some(Word::Over(id)) => {
                    is_over = true;
                    calls.running.remove(&id);
                    conversation.dialogue.forget(id);
                }
                None => break None,
            },
            heard = conversation.dialogue.hear() => match heard {
                Ok(Some((of, answer))) => {
                    if let Err(bad) = calls.hear(of, answer, &mut conversation.output) {
                        break Some(Silence::Unusable(bad));
                    }
                }
                Ok(None) => {}
                Err(broken) => break Some(Silence::from(broken)),
            },
            () = group.gone() => break Some(Silence::Exited),
            () = conversation.output.fill() => calls.part(&mut conversation.output),
        }
    };
    let Some(silence) = silence else {
        if is_over {
            conversation.end_gently().await;
        }
        return;
    };
    while let Some((of, answer)) = conversation.dialogue.last_words(&group) {
        if calls.hear(of, answer, &mut conversation.output).is_err() {
            break;
        }
    }
    conversation.output.drain();
    conversation.output.flush();
    calls.part(&mut conversation.output);
    for (id, call) in calls.running {
        let untaken = matches!(silence, Silence::Exited) && conversation.dialogue.is_unread_of(id);
        let _ = call.told.try_send(Err(if untaken { Silence::NotTaken } else { silence }));
    }
    drop(conversation);
    words.close();
    while let Some(word) = words.recv().await {
        if let Word::Ask(call) = word {
            let _ = call.told.try_send(Err(Silence::NotTaken));
        }
    }
}

#[derive(Default)]
struct Calls {
    running: HashMap<Uuid, Call>,
}

impl Calls {
    /// Gives an answer to whom it belongs.
    fn hear(&mut self, of: Uuid, answer: Answer, output: &mut Output) -> Result<(), BadFrame> {
        match answer {
            Answer::Printed(stream, bytes) => {
                if let Some(call) = self.running.get(&of) {
                    lock(&call.output).hear(stream, &bytes);
                }
            }
            Answer::Piece(_) => {
                if let Some(call) = self.running.get(&of)
                    && let Err(mpsc::error::TrySendError::Full(_)) = call.told.try_send(Ok(answer))
                {
                    // it was not told to go on
                    return Err(BadFrame::Garbage);
                }
            }
            Answer::Ended { ending, output: result, fault } => {
                // what was printed before it is in the pipes
                output.drain();
                if self.running.len() == 1 {
                    output.flush();
                }
                self.part(output);
                let own = self.running.remove(&of);
                // that the process is about to end concerns all
                let all = if of.is_nil() && ending == Ending::Crash {
                    std::mem::take(&mut self.running)
                } else {
                    <_>::default()
                };
                for call in own.into_iter().chain(all.into_values()) {
                    let answer = Answer::Ended { ending, output: result.clone(), fault: fault.clone() };
                    let _ = call.told.try_send(Ok(answer));
                }
            }
            Answer::Ready(_) | Answer::Forks(_) => return Err(BadFrame::Garbage),
        }
        Ok(())
    }

    /// Gives each line to whom it belongs: to the one whose id stands in it, or that runs alone; else to all.
    fn part(&self, output: &mut Output) {
        for (stream, text) in output.parted() {
            let mut calls = self.running.values();
            let own = match (calls.next(), calls.next()) {
                (one, None) => one,
                _ => self.running.values().find(|call| text.contains(&call.id)),
            };
            if let Some(call) = own {
                lock(&call.output).line(stream, text);
                continue;
            }
            output.tell(stream, &text);
            for call in self.running.values() {
                lock(&call.output).keep(text.clone());
            }
        }
    }
}
