//! A process and what is said with it and printed by it.
//!
//! Nobody else drives its pipes: whoever runs the invocation asks, reads what is printed and waits for the answer, the
//! end of the process or the deadline, all in one place ([`Conversation::exchange`]). Dropped, it kills the process
//! with its whole group.

use std::{sync::Arc, time::Duration};

use bus::outcome::{Ending, Fault};
use rustix::process::Signal;
use tokio::time;

use crate::{
    dialogue::{Answer, Broken, Dialogue},
    fault::{crash, fault, timed_out, too_large},
    frame::BadFrame,
    output::Output,
    process::{Group, Process},
    streamed::Pieces,
};

/// Between TERM and KILL of a function that ran over its timeout.
const GRACE: Duration = Duration::from_millis(500);

pub(crate) struct Conversation {
    pub(crate) process: Process,
    pub(crate) dialogue: Dialogue,
    pub(crate) output: Output,
}

/// Why there is no answer.
#[derive(Clone, Copy)]
pub(crate) enum Silence {
    /// The process had ended before it read anything of the request.
    NotTaken,
    Exited,
    TimedOut,
    Unusable(BadFrame),
}

impl From<Broken> for Silence {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::NotTaken => Self::NotTaken,
            Broken::Frame(bad) => Self::Unusable(bad),
        }
    }
}

impl Silence {
    /// How an invocation ended that has no answer. The arguments are those of [`Conversation::end`].
    pub(crate) fn fault(self, group: &Group, limit: Duration, memory: u64, payload_limit: usize) -> (Ending, Fault) {
        match self {
            Self::TimedOut => (Ending::Timeout, timed_out(limit)),
            Self::Unusable(BadFrame::TooLong(size)) => (Ending::TooLarge, too_large(size, payload_limit)),
            Self::Unusable(BadFrame::Garbage) => {
                (Ending::Crash, fault("Runtime.BadFrame", BadFrame::Garbage.to_string()))
            }
            Self::Exited | Self::NotTaken => crash(group.reap(), memory),
        }
    }
}

impl Conversation {
    pub(crate) fn group(&self) -> &Arc<Group> {
        self.process.group()
    }

    /// Waits for the answer to what was asked, taking what is printed meanwhile. Where it comes in pieces, they are taken as
    /// fast as they can be passed on.
    pub(crate) async fn exchange(&mut self, until: time::Instant, mut pieces: Pieces<'_>) -> Result<Answer, Silence> {
        let deadline = time::sleep_until(until);
        tokio::pin!(deadline);
        loop {
            let heard = async {
                pieces.room().await;
                self.dialogue.hear().await
            };
            tokio::select! {
                biased;
                heard = heard => match heard? {
                    // one comes after the other as long as the function likes
                    Some((_, Answer::Piece(_))) if time::Instant::now() >= until => return Err(Silence::TimedOut),
                    Some((_, Answer::Piece(piece))) => pieces.add(piece),
                    Some((_, answer)) => return Ok(pieces.end(answer)),
                    None => {}
                },
                () = &mut deadline => return Err(Silence::TimedOut),
                () = self.process.group().gone() => break,
                () = self.output.fill() => {}
            }
        }
        loop {
            match self.dialogue.last_words(self.process.group()) {
                Some((_, Answer::Piece(piece))) => {
                    time::timeout_at(until, pieces.room()).await.map_err(|_| Silence::TimedOut)?;
                    pieces.add(piece);
                }
                Some((_, answer)) => return Ok(pieces.end(answer)),
                None if self.dialogue.is_unread() => return Err(Silence::NotTaken),
                None => return Err(Silence::Exited),
            }
        }
    }

    /// What was printed until now, and has not been taken: what came before an answer is in the pipes.
    pub(crate) fn log(&mut self) -> String {
        self.output.drain();
        self.output.take()
    }

    /// Ends the process, which cannot be used any more, and says why. `limit` is what it took too long for, `memory`
    /// what it may use, in bytes.
    pub(crate) async fn end(
        &mut self,
        silence: Silence,
        limit: Duration,
        memory: u64,
        payload_limit: usize,
    ) -> (Ending, Fault) {
        let group = self.process.group().clone();
        if matches!(silence, Silence::TimedOut) {
            self.end_gently().await;
        }
        let ended = silence.fault(&group, limit, memory, payload_limit);
        group.signal(Signal::KILL);
        ended
    }

    /// Asks the process to end, and gives it some time for that.
    pub(crate) async fn end_gently(&mut self) {
        self.process.group().signal(Signal::TERM);
        self.end_within(GRACE).await;
    }

    /// Waits for the end of the process, still taking what it prints, which may be what it waits for.
    async fn end_within(&mut self, grace: Duration) {
        let group = self.process.group().clone();
        let over = time::sleep(grace);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = group.gone() => return,
                () = &mut over => return,
                () = self.output.fill() => {}
            }
        }
    }
}
