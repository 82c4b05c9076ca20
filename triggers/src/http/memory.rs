//! How many bytes of requests and answers are here at once. A node that is sent more than it can pass on says so; it does
//! not grow until something ends it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::{
    guard::Answering,
    problem::Refusal,
    stream::{BrokenOff, Streamed},
};

/// Answers from this size on are counted: smaller ones cost little, and there are many.
const COUNTED: usize = 64 * 1024;

/// What all exchanges of a server share.
#[derive(Clone)]
pub(super) struct Memory {
    most: usize,
    held: Arc<AtomicUsize>,
}

/// What one exchange holds of it, until dropped.
pub(super) struct Share {
    memory: Memory,
    bytes: usize,
}

impl Memory {
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// An empty share.
    pub(super) fn share(&self) -> Share {
        Share { memory: self.clone(), bytes: 0 }
    }

    /// Counts the bytes of an answer until they are written: what has run is answered, whatever the room.
    pub(super) fn answer(&self, content: Content, answering: Answering) -> Answer {
        Answer { content, memory: self.clone(), _answering: answering }
    }

    fn counted(&self, data: Bytes) -> Bytes {
        if data.len() < COUNTED {
            return data;
        }
        let mut share = self.share();
        share.add(data.len());
        Bytes::from_owner(Counted { data, _share: share })
    }
}

impl Share {
    /// Takes so many bytes more; refused when there is no room for them.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.add(bytes) > self.memory.most { Err(Refusal::Overloaded) } else { Ok(()) }
    }

    /// How much is held in all with these bytes.
    fn add(&mut self, bytes: usize) -> usize {
        self.bytes += bytes;
        self.memory.held.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What an answer says.
pub(super) enum Content {
    Whole(Full<Bytes>),
    Streamed(Streamed),
}

/// The body of an answer.
pub(super) struct Answer {
    content: Content,
    memory: Memory,
    /// While it is written its client may be silent.
    _answering: Answering,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = match &mut self.content {
            Content::Whole(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(|never| match never {}))
            }
            Content::Streamed(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| self.memory.counted(data)))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Whole(body) => body.is_end_stream(),
            Content::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(body) => body.size_hint(),
            Content::Streamed(body) => body.size_hint(),
        }
    }
}

/// Bytes with their share.
struct Counted {
    data: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}
