//! How a process is spoken to: in frames on two pipes, by the Lambda Runtime API, or once through stdin and stdout.

use std::time::Duration;

use bus::{
    outcome::{Ending, Fault},
    presence::LogStream,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    command::Once,
    frame::{BadFrame, Frames},
    lease::Invocation,
    process::Group,
    provided::Api,
    streamed::Piece,
};

/// One of the ways.
pub(crate) enum Dialogue {
    Frames(Frames),
    Api(Api),
    Once(Once),
}

/// What a process says.
pub(crate) enum Answer {
    /// The code is loaded; how long that took, where the process knows it.
    Ready(Option<Duration>),
    /// The same of a process that runs nothing itself and can be forked.
    Forks(Option<Duration>),
    /// A piece of what will be the answer.
    Piece(Piece),
    /// What one of several invocations printed.
    Printed(LogStream, Bytes),
    /// The invocation, or the loading of the code, ended so. Without a fault the output says what went wrong.
    Ended { ending: Ending, output: Bytes, fault: Option<Fault> },
}

/// Why nothing will be heard.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The process had ended before it read anything of the request.
    NotTaken,
    Frame(BadFrame),
}

impl Dialogue {
    /// From now on several invocations may run at once.
    pub(crate) fn share(&mut self) {
        if let Self::Frames(frames) = self {
            frames.share();
        }
    }

    /// Begins an invocation.
    pub(crate) fn ask(&mut self, invocation: &Invocation, timeout: Duration) -> Result<(), Broken> {
        match self {
            Self::Frames(frames) => frames.ask(invocation, timeout),
            Self::Api(api) => {
                api.ask(invocation, timeout);
                Ok(())
            }
            // the process was started with it
            Self::Once(_) => Ok(()),
        }
    }

    /// Goes on talking; the answer, when it is whole, and whose it is of several. May be dropped at any time.
    pub(crate) async fn hear(&mut self) -> Result<Option<(Uuid, Answer)>, Broken> {
        match self {
            Self::Frames(frames) => frames.hear().await,
            Self::Api(api) => Ok(Some(api.hear().await)),
            Self::Once(once) => once.hear().await.map(|()| None),
        }
    }

    /// What a process that has ended still had to say.
    pub(crate) fn last_words(&mut self, group: &Group) -> Option<(Uuid, Answer)> {
        match self {
            Self::Frames(frames) => frames.last_words(),
            Self::Api(api) => api.last_words(),
            Self::Once(once) => once.last_words(group).map(|answer| (Uuid::nil(), answer)),
        }
    }

    /// Whether a process that has ended never looked at the invocation.
    pub(crate) fn is_unread(&self) -> bool {
        match self {
            Self::Frames(frames) => frames.is_unread(),
            Self::Api(api) => api.is_unread(),
            Self::Once(_) => false,
        }
    }

    /// The same of one of several.
    pub(crate) fn is_unread_of(&self, request: Uuid) -> bool {
        match self {
            Self::Frames(frames) => frames.is_unread_of(request),
            Self::Api(api) => api.is_unread_of(request),
            Self::Once(_) => false,
        }
    }

    /// A piece of the answer of one of several was passed on.
    pub(crate) fn took(&mut self, request: Uuid) {
        if let Self::Frames(frames) = self {
            frames.took(request);
        }
    }

    /// Nobody waits for the answer of this one of several any more.
    pub(crate) fn forget(&mut self, request: Uuid) {
        if let Self::Api(api) = self {
            api.forget(request);
        }
    }
}
