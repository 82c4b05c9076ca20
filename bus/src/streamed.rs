//! An answer that goes to its caller as it comes. Both ends are in one process: its pieces pass a short channel, so a function
//! is held up as long as its caller does not take them. How the call has ended is said by its reply alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};
use uuid::Uuid;

use crate::sink::{CallError, Reply};

/// So many bytes of an answer that was passed on are its output, as it is logged.
pub const KEPT: usize = 64 * 1024;
/// The media type of an answer that begins with the head of an HTTP response.
pub const HTTP_RESPONSE: &str = "application/vnd.awslambda.http-integration-response";
/// What stands between that head and the body.
pub const HEAD_END: [u8; 8] = [0; 8];

/// Pieces that wait for the caller.
const WAITING: usize = 4;

/// What is known before the first byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The attempt's id.
    pub request_id: Option<Uuid>,
    pub media_type: Option<String>,
}

impl Head {
    /// Whether the bytes begin with the head of an HTTP response, a JSON object and eight NUL bytes.
    pub fn is_http_response(&self) -> bool {
        let of = self.media_type.as_deref().and_then(|media_type| media_type.split(';').next());
        of.is_some_and(|of| of.trim().eq_ignore_ascii_case(HTTP_RESPONSE))
    }
}

enum Piece {
    Head(Head),
    Data(Bytes),
}

/// Where a function's answer goes in. Clones share it.
#[derive(Debug, Clone)]
pub struct Outlet {
    pieces: mpsc::Sender<Piece>,
    sent: Arc<AtomicUsize>,
}

/// Two are the same when they lead to the same caller.
impl PartialEq for Outlet {
    fn eq(&self, other: &Self) -> bool {
        self.pieces.same_channel(&other.pieces)
    }
}

impl Outlet {
    /// Waits until there is room for a piece. May be dropped at any time. A caller that left does not stop a function: then
    /// there always is, and what is sent is gone.
    pub async fn room(&self) {
        let _ = self.pieces.reserve().await;
    }

    /// Says what will come; after [`Outlet::room`].
    pub fn begin(&self, head: Head) {
        let _ = self.pieces.try_send(Piece::Head(head));
    }

    /// Sends a piece; after [`Outlet::room`].
    pub fn send(&self, data: Bytes) {
        self.sent.fetch_add(data.len(), Ordering::Relaxed);
        let _ = self.pieces.try_send(Piece::Data(data));
    }

    /// Bytes that went in until now.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Where a function's answer comes out.
pub struct Inlet(mpsc::Receiver<Piece>);

/// Both ends of a way for an answer.
pub fn channel() -> (Outlet, Inlet) {
    let (pieces, taken) = mpsc::channel(WAITING);
    (Outlet { pieces, sent: Arc::default() }, Inlet(taken))
}

/// A call under way, whose answer may come in pieces. Dropped, it leaves the call to go on.
pub struct UnderWay {
    pieces: mpsc::Receiver<Piece>,
    task: JoinHandle<Result<Reply, CallError>>,
    ended: Option<Ended>,
}

/// How the task of a call ended.
type Ended = Result<Result<Reply, CallError>, JoinError>;

impl UnderWay {
    /// The call that has the other end of the way.
    pub fn new(task: JoinHandle<Result<Reply, CallError>>, inlet: Inlet) -> Self {
        Self { pieces: inlet.0, task, ended: None }
    }

    /// Waits until it is known whether the answer comes in pieces; none: it is whole in the reply.
    pub async fn head(&mut self) -> Option<Head> {
        match self.next().await? {
            Piece::Head(head) => Some(head),
            Piece::Data(_) => None,
        }
    }

    /// The next bytes; none at the end, be it a good one or not.
    pub async fn data(&mut self) -> Option<Bytes> {
        loop {
            if let Piece::Data(data) = self.next().await? {
                return Some(data);
            }
        }
    }

    /// The reply.
    pub async fn ended(self) -> Ended {
        match self.ended {
            Some(ended) => ended,
            None => self.task.await,
        }
    }

    async fn next(&mut self) -> Option<Piece> {
        while self.ended.is_none() {
            tokio::select! {
                biased;
                Some(piece) = self.pieces.recv() => return Some(piece),
                ended = &mut self.task => self.ended = Some(ended),
            }
        }
        // what it sent came before its reply
        self.pieces.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EventId, Outcome, outcome::Ending};

    fn head(media_type: &str) -> Head {
        Head { request_id: None, media_type: Some(media_type.into()) }
    }

    fn reply() -> Reply {
        Reply { event: EventId::new(), outcome: Outcome::failure(Ending::Error, "A", "b") }
    }

    #[tokio::test]
    async fn what_was_sent_comes_out_before_the_reply() {
        let (outlet, inlet) = channel();
        let call = tokio::spawn(async move {
            outlet.begin(head("text/plain"));
            for n in 0..20_u8 {
                outlet.room().await;
                outlet.send(vec![n].into());
            }
            Ok(reply())
        });
        let mut under_way = UnderWay::new(call, inlet);
        assert_eq!(under_way.head().await, Some(head("text/plain")));
        let mut got = Vec::new();
        while let Some(data) = under_way.data().await {
            got.extend_from_slice(&data);
        }
        assert_eq!(got, (0..20).collect::<Vec<u8>>());
        assert!(under_way.ended().await.is_ok_and(|reply| reply.is_ok()));
    }

    #[tokio::test]
    async fn an_answer_that_is_not_sent_is_in_the_reply_and_a_caller_that_left_holds_up_nobody() {
        let (outlet, inlet) = channel();
        let kept = outlet.clone();
        let mut under_way = UnderWay::new(tokio::spawn(async { Ok(reply()) }), inlet);
        assert_eq!(under_way.head().await, None);
        assert!(under_way.ended().await.is_ok());
        for _ in 0..20 {
            kept.room().await;
            kept.send(Bytes::from_static(b"x"));
        }
        assert_eq!((kept.sent(), kept == outlet), (20, true));
    }

    #[test]
    fn the_head_of_a_response_is_told_by_the_media_type_alone() {
        assert!(head("Application/vnd.awslambda.http-integration-response; x=y").is_http_response());
        assert!(!head("application/json").is_http_response());
    }
}
