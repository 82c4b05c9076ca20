//! The wire between a worker and the shims: length-prefixed frames on two pipes, one request in flight, or several.
//!
//! ```text
//! request   u32 payload length · u32 milliseconds left · u32 event id length · u32 trace length · u32 context length
//!           u8 form · 36 bytes request id · event id · trace · context · payload
//! answer    u32 body length · u8 kind · body
//! ```
//! Where several requests are in flight, the body of each answer begins with the 36 bytes of the request id, nil for all of
//! them, and a piece of a streamed answer is followed by the next when it was taken: a request without anything but its id,
//! of the form `A`. What is printed comes in answers then, as it says whose it is.
//!
//! Numbers are little-endian. The body of a failure is its error object, that of `Ready` the nanoseconds it took to
//! load the code. A process that is started before it is known what it will run (Node), or who it is (a fork of a
//! Python zygote), is first told: a u32 length and a JSON object.

use std::{collections::VecDeque, io, io::IoSlice, time::Duration};

use bus::{outcome::Ending, payload::Form, presence::LogStream};
use bytes::{Buf, Bytes, BytesMut};
use tokio::net::unix::pipe;
use uuid::Uuid;

use crate::{
    dialogue::{Answer, Broken},
    lease::Invocation,
    streamed::Piece,
};

const ANSWER_HEAD: usize = 5;
/// Of a request.
const REQUEST_HEAD: usize = 21;
/// A request id.
const ID: usize = 36;
/// Read at once when nothing is known of the answer's size.
const CHUNK: usize = 8 * 1024;

/// Everything of a request but its payload, which is written behind it from where it lies.
fn request_head(invocation: &Invocation, left: Duration) -> Vec<u8> {
    let Invocation { request_id, payload, event_id, trace, client_context, .. } = invocation;
    let (trace, context) = (trace.as_deref().unwrap_or_default(), client_context.as_deref().unwrap_or_default());
    let left = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
    let texts = [event_id.as_str(), trace, context];
    let [event, traced, told] = texts.map(|text| text.len() as u32);
    let mut head = Vec::with_capacity(REQUEST_HEAD + ID + texts.iter().map(|text| text.len()).sum::<usize>());
    for number in [payload.bytes.len() as u32, left, event, traced, told] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.push(match payload.form {
        Form::Json => b'J',
        Form::Text => b'T',
        Form::Bytes => b'B',
        Form::Unknown => b'U',
    });
    head.extend_from_slice(request_id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
    for text in texts {
        head.extend_from_slice(text.as_bytes());
    }
    head
}

/// Says that a piece of an answer was taken.
fn taken(request: Uuid) -> Vec<u8> {
    let mut head = vec![0; REQUEST_HEAD + ID];
    head[REQUEST_HEAD - 1] = b'A';
    request.hyphenated().encode_lower(&mut head[REQUEST_HEAD..]);
    head
}

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The code is loaded; the first answer of an instance that works.
    Ready,
    /// The code is loaded, and instances can be forked.
    Forks,
    /// A streamed answer begins; its media type.
    Begins,
    /// A piece of it. After the last one `Ended` follows, without a body if that is `Ok`.
    Data,
    /// Something was printed.
    Printed(LogStream),
    /// The invocation, or the loading of the code, ended so.
    Ended(Ending),
}

impl Kind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            b'R' => Self::Ready,
            b'Z' => Self::Forks,
            b'S' => Self::Begins,
            b'D' => Self::Data,
            b'1' => Self::Printed(LogStream::Stdout),
            b'2' => Self::Printed(LogStream::Stderr),
            b'I' => Self::Ended(Ending::InitError),
            b'O' => Self::Ended(Ending::Ok),
            b'E' => Self::Ended(Ending::Error),
            b'B' => Self::Ended(Ending::BadOutput),
            b'C' => Self::Ended(Ending::Crash),
            b'M' => Self::Ended(Ending::Oom),
            b'L' => Self::Ended(Ending::TooLarge),
            _ => return None,
        })
    }
}

/// Why the bytes on the pipe are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("the answer is {0} bytes long")]
    TooLong(usize),
    #[error("the answer is no frame; does the function write to file descriptor 4?")]
    Garbage,
}

/// Both pipes of a process, and the request that is being written.
pub(crate) struct Frames {
    requests: pipe::Sender,
    answers: Answers,
    head: Vec<u8>,
    body: Bytes,
    /// Bytes of head and body that lie in the pipe.
    sent: usize,
    /// Set where several are in flight.
    many: Option<Many>,
}

/// Several requests in flight.
#[derive(Default)]
struct Many {
    /// To be written behind the one that is being written.
    queue: VecDeque<(Vec<u8>, Bytes)>,
    /// Bytes that were ever written, and ever put into the queue.
    written: u64,
    queued: u64,
    /// Requests without an answer, and at which byte each begins.
    asked: Vec<(Uuid, u64)>,
}

impl Frames {
    /// `limit` is the longest answer that is read.
    pub(crate) fn new(requests: pipe::Sender, answers: pipe::Receiver, limit: usize) -> Self {
        let (answers, body) = (Answers::new(answers, limit), Bytes::new());
        Self { requests, answers, head: Vec::new(), body, sent: 0, many: None }
    }

    /// From now on several requests may be in flight.
    pub(crate) fn share(&mut self) {
        self.answers.limit += ID;
        self.many = Some(Many::default());
    }

    /// Tells a process what it is to load.
    pub(crate) fn tell(&mut self, what: &serde_json::Value) -> Result<(), Broken> {
        let text = what.to_string();
        self.send((text.len() as u32).to_le_bytes().into(), text.into())
    }

    /// Begins an invocation. A process that said more than it was asked is not asked again: its next answer could be one
    /// to an earlier request.
    pub(crate) fn ask(&mut self, invocation: &Invocation, left: Duration) -> Result<(), Broken> {
        if let Some(many) = &mut self.many {
            many.asked.push((invocation.request_id, many.queued));
        } else if self.answers.is_untaken() {
            return Err(Broken::NotTaken);
        }
        self.send(request_head(invocation, left), invocation.payload.bytes.clone())
    }

    /// Says that a piece of an answer was taken, so that the next may come.
    pub(crate) fn took(&mut self, request: Uuid) {
        // a process that has just ended shows at the next look
        let _ = self.send(taken(request), Bytes::new());
    }

    fn send(&mut self, head: Vec<u8>, body: Bytes) -> Result<(), Broken> {
        if let Some(many) = &mut self.many {
            many.queued += (head.len() + body.len()) as u64;
            many.queue.push_back((head, body));
            return self.write();
        }
        (self.head, self.body, self.sent) = (head, body, 0);
        self.write()
    }

    /// Writes on and waits until something was read; the answer, when that was all of it. May be dropped at any time.
    pub(crate) async fn hear(&mut self) -> Result<Option<(Uuid, Answer)>, Broken> {
        // several may have come at once
        if let Some(answer) = self.take().map_err(Broken::Frame)? {
            return Ok(Some(answer));
        }
        let unsent = self.sent < self.head.len() + self.body.len();
        tokio::select! {
            biased;
            () = self.answers.fill(), if !self.answers.closed => {
                self.take().map_err(Broken::Frame)
            }
            _ = self.requests.writable(), if unsent => self.write().map(|()| None),
            else => std::future::pending().await,
        }
    }

    /// What lies in the pipe of a process that has ended. A process it left behind may hold the pipe open, so nothing
    /// waits for its end.
    pub(crate) fn last_words(&mut self) -> Option<(Uuid, Answer)> {
        self.answers.drain();
        self.take().ok().flatten()
    }

    /// The next answer, if all of it has been read, and whose it is where several are in flight.
    fn take(&mut self) -> Result<Option<(Uuid, Answer)>, BadFrame> {
        let Some((kind, mut body)) = self.answers.take()? else { return Ok(None) };
        let mut request = Uuid::nil();
        if let Some(many) = &mut self.many {
            let id = body.get(..ID).ok_or(BadFrame::Garbage)?;
            request = Uuid::try_parse_ascii(id).map_err(|_| BadFrame::Garbage)?;
            body.advance(ID);
            if matches!(kind, Kind::Ended(_)) {
                many.asked.retain(|(asked, _)| *asked != request);
            }
        }
        Ok(Some((request, (kind, body).into())))
    }

    /// Whether all that was written of the request still lies in the pipe: the process ended before it looked.
    pub(crate) fn is_unread(&self) -> bool {
        self.sent > 0 && rustix::io::ioctl_fionread(&self.requests).is_ok_and(|unread| unread == self.sent as u64)
    }

    /// The same of one of several.
    pub(crate) fn is_unread_of(&self, request: Uuid) -> bool {
        let Some(many) = &self.many else { return self.is_unread() };
        let unread = rustix::io::ioctl_fionread(&self.requests).unwrap_or_default();
        many.asked.iter().any(|(asked, at)| *asked == request && at + unread >= many.written)
    }

    /// Writes as much as fits into the pipe now.
    fn write(&mut self) -> Result<(), Broken> {
        loop {
            let length = self.head.len() + self.body.len();
            while self.sent < length {
                let head = &self.head[self.sent.min(self.head.len())..];
                let rest = [IoSlice::new(head), IoSlice::new(&self.body[self.sent.saturating_sub(self.head.len())..])];
                match self.requests.try_write_vectored(&rest) {
                    Ok(n) => {
                        self.sent += n;
                        if let Some(many) = &mut self.many {
                            many.written += n as u64;
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(_) if self.sent == 0 && self.many.is_none() => return Err(Broken::NotTaken),
                    // it ends, or has stopped to read: the end or the deadline is awaited
                    Err(_) => {
                        self.sent = length;
                        if let Some(many) = &mut self.many {
                            many.queue.clear();
                        }
                    }
                }
            }
            let Some(next) = self.many.as_mut().and_then(|many| many.queue.pop_front()) else { return Ok(()) };
            (self.head, self.body, self.sent) = (next.0, next.1, 0);
        }
    }
}

impl From<(Kind, Bytes)> for Answer {
    fn from((kind, body): (Kind, Bytes)) -> Self {
        let took = || body.as_ref().try_into().ok().map(|nanos| Duration::from_nanos(u64::from_le_bytes(nanos)));
        match kind {
            Kind::Ready => Self::Ready(took()),
            Kind::Forks => Self::Forks(took()),
            Kind::Begins => Self::Piece(Piece::Begins(String::from_utf8_lossy(&body).into_owned())),
            Kind::Data => Self::Piece(Piece::Data(body)),
            Kind::Printed(stream) => Self::Printed(stream, body),
            Kind::Ended(ending) => Self::Ended { ending, output: body, fault: None },
        }
    }
}

/// The reading end of the answers.
struct Answers {
    pipe: pipe::Receiver,
    buffer: BytesMut,
    /// Longest body that is read.
    limit: usize,
    closed: bool,
}

impl Answers {
    fn new(pipe: pipe::Receiver, limit: usize) -> Self {
        Self { pipe, buffer: BytesMut::new(), limit, closed: false }
    }

    /// The next answer, if all of it has been read.
    fn take(&mut self) -> Result<Option<(Kind, Bytes)>, BadFrame> {
        take(&mut self.buffer, self.limit)
    }

    /// Whether something lies there that nobody asked for.
    fn is_untaken(&self) -> bool {
        !self.buffer.is_empty() || rustix::io::ioctl_fionread(&self.pipe).is_ok_and(|unread| unread > 0)
    }

    /// Waits until something can be read, and reads it. May be dropped at any time.
    async fn fill(&mut self) {
        if self.pipe.readable().await.is_err() {
            self.closed = true;
        }
        self.buffer.reserve(CHUNK);
        match self.pipe.try_read_buf(&mut self.buffer) {
            Ok(0) => self.closed = true,
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => self.closed = true,
            _ => {}
        }
    }

    /// Reads what is there without waiting and without asking the reactor, which may not have heard of it yet.
    fn drain(&mut self) {
        let mut chunk = [0; CHUNK];
        while self.buffer.len() <= self.limit + ANSWER_HEAD {
            match rustix::io::read(&self.pipe, &mut chunk) {
                Ok(n) if n > 0 => self.buffer.extend_from_slice(&chunk[..n]),
                _ => break,
            }
        }
    }
}

fn take(buffer: &mut BytesMut, limit: usize) -> Result<Option<(Kind, Bytes)>, BadFrame> {
    let Some(&[a, b, c, d, kind]) = buffer.first_chunk::<ANSWER_HEAD>() else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let kind = Kind::parse(kind).ok_or(BadFrame::Garbage)?;
    if length > limit {
        return Err(BadFrame::TooLong(length));
    }
    let missing = (ANSWER_HEAD + length).saturating_sub(buffer.len());
    if missing > 0 {
        buffer.reserve(missing);
        return Ok(None);
    }
    buffer.advance(ANSWER_HEAD);
    Ok(Some((kind, buffer.split_to(length).freeze())))
}

#[cfg(test)]
mod tests {
    use bus::payload::Payload;
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_le_bytes()[..], &[kind], body].concat()
    }

    /// The shim's reading of a request, as far as a test needs it.
    fn parse(frame: &[u8]) -> (u32, u32, char, [String; 4]) {
        let number = |i: usize| u32::from_le_bytes(frame[4 * i..4 * i + 4].try_into().unwrap());
        let event = 57 + number(2) as usize;
        let trace = event + number(3) as usize;
        let context = trace + number(4) as usize;
        let text = |range: std::ops::Range<usize>| String::from_utf8(frame[range].to_vec()).unwrap();
        (
            number(0),
            number(1),
            frame[20] as char,
            [text(21..57), text(57..event), text(event..trace), text(trace..context)],
        )
    }

    proptest! {
        #[test]
        fn a_request_reads_back(
            id in any::<u128>(),
            event in ".{0,40}",
            trace in ".{0,60}",
            context in ".{0,60}",
            ms in 0_u64..1 << 33,
        ) {
            let invocation = Invocation {
                request_id: Uuid::from_u128(id),
                payload: Payload { bytes: vec![0; 77].into(), form: Form::Text },
                event_id: event.clone(),
                trace: Some(trace.clone()),
                client_context: Some(context.clone()),
                outlet: None,
            };
            let head = request_head(&invocation, Duration::from_millis(ms));
            let left = u32::try_from(ms).unwrap_or(u32::MAX);
            prop_assert_eq!(parse(&head), (77, left, 'T', [invocation.request_id.to_string(), event, trace, context]));
        }

        #[test]
        fn answers_read_back_however_they_are_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5),
            cut in 1_usize..64,
        ) {
            let wire: Vec<u8> = bodies.iter().flat_map(|b| frame(b'O', b)).collect();
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some((kind, body)) = take(&mut buffer, 300).unwrap() {
                    prop_assert_eq!(kind, Kind::Ended(Ending::Ok));
                    got.push(body.to_vec());
                }
            }
            prop_assert_eq!(got, bodies);
            prop_assert!(buffer.is_empty());
        }
    }

    #[test]
    fn an_answer_over_the_limit_is_known_by_its_first_bytes() {
        let mut buffer = BytesMut::from(&frame(b'O', &[0; 11])[..6]);
        assert_eq!(take(&mut buffer, 10), Err(BadFrame::TooLong(11)));
    }

    #[test]
    fn what_is_no_frame_is_said_to_be_none() {
        assert_eq!(take(&mut BytesMut::from(&b"hello"[..]), 10), Err(BadFrame::Garbage));
    }
}
