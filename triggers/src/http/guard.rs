//! Between socket and parser: a stream that shows the parser whole, unambiguous heads only, in time.
//!
//! What is refused is replaced by a request of ours ([`stand_in`]), which the parser reads in its turn, after the answers
//! to what came before; the exchange answers it with the reason and the connection closes. (A client that sends such a
//! request itself refuses itself.) Then the guard reads and drops what the client still sends, for a while: a socket
//! closed with unread bytes would take the answer back.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use hyper::{Method, Uri};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{framing::Framing, problem::Refusal, server::Limits};

/// Why a head does not reach the parser.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Violation {
    Malformed(&'static str),
    UriTooLong,
    HeadTooLarge,
    TooSlow,
}

/// The method of the request that stands for a refused one.
const METHOD: &str = "REFUSED-HERE";

/// The request that stands for a refused one.
fn stand_in(violation: &Violation) -> String {
    let code = match violation {
        Violation::UriTooLong => "uri",
        Violation::HeadTooLarge => "head",
        Violation::TooSlow => "slow",
        Violation::Malformed(_) => "malformed",
    };
    format!("{METHOD} /{code} HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n")
}

/// What the guard refused, if this request stands for something refused.
pub(super) fn refused(method: &Method, uri: &Uri) -> Option<Refusal> {
    (method.as_str() == METHOD).then(|| match uri.path() {
        "/uri" => Refusal::UriTooLong,
        "/head" => Refusal::HeadTooLarge,
        "/slow" => Refusal::TooSlow,
        _ => Refusal::Malformed("is not HTTP as servers and proxies agree on"),
    })
}

/// How many requests of a connection are being answered: while one is, its client may be silent.
#[derive(Clone, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

/// One request being answered, until dropped.
pub(super) struct Answering(Busy);

impl Busy {
    pub(super) fn answering(&self) -> Answering {
        self.0.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is_busy(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A guarded connection.
pub(super) struct Guarded<T> {
    io: T,
    framing: Framing,
    /// A head that has begun and not ended.
    held: Vec<u8>,
    /// Bytes that may pass but were not asked for yet, the last ones first to go at the end.
    cleared: Vec<u8>,
    taken: usize,
    refused: bool,
    shut: bool,
    /// When a head has to be whole, or a connection used again. The timer may be set to an earlier time; it looks here.
    deadline: Instant,
    timer: Pin<Box<Sleep>>,
    /// Runs while the client does not read.
    unread: Option<Pin<Box<Sleep>>>,
    busy: Busy,
    limits: Arc<Limits>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Guarded<T> {
    pub(super) fn new(io: T, limits: Arc<Limits>, busy: Busy) -> Self {
        let deadline = Instant::now() + limits.head_timeout;
        Self {
            io,
            framing: Framing::new(&limits),
            held: Vec::new(),
            cleared: Vec::new(),
            taken: 0,
            refused: false,
            shut: false,
            deadline,
            timer: Box::pin(sleep_until(deadline)),
            unread: None,
            busy,
            limits,
        }
    }

    /// Sorts what was just read: bytes from `before` on in `buf`.
    fn sort(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let was_between = self.held.is_empty();
        let violation = if was_between {
            let read = &buf.filled()[before..];
            let passed = self.framing.pass(read);
            if passed.violation.is_none() && passed.bytes < read.len() {
                self.held.extend_from_slice(&read[passed.bytes..]);
            }
            buf.set_filled(before + passed.bytes);
            passed.violation
        } else {
            self.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
            let passed = self.framing.pass(&self.held);
            self.cleared.extend(self.held.drain(..passed.bytes));
            passed.violation
        };
        if let Some(violation) = violation {
            self.refuse(&violation);
        } else if self.held.is_empty() {
            self.deadline = Instant::now() + self.limits.idle_timeout;
        } else if was_between {
            // the timer is set for an idle connection; a head has less time
            self.deadline = Instant::now() + self.limits.head_timeout;
            self.timer.as_mut().reset(self.deadline);
        }
    }

    fn refuse(&mut self, violation: &Violation) {
        self.refused = true;
        self.held.clear();
        self.cleared.extend_from_slice(stand_in(violation).as_bytes());
    }

    /// Ready when a deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.framing.is_opaque() {
            return Poll::Pending;
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.busy.is_busy() {
                self.deadline = Instant::now() + self.limits.idle_timeout;
            }
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }

    /// A write that the client gets no further with ends after a while: what it leaves unread is memory.
    fn or_unread(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if write.is_ready() {
            self.unread = None;
            return write;
        }
        let timer = self.unread.get_or_insert_with(|| Box::pin(sleep(self.limits.write_timeout)));
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and drops; ready when the client is done or fails.
    fn poll_swallow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 8192];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        loop {
            if me.taken < me.cleared.len() {
                let n = buf.remaining().min(me.cleared.len() - me.taken);
                buf.put_slice(&me.cleared[me.taken..me.taken + n]);
                me.taken += n;
                return Poll::Ready(Ok(()));
            }
            me.cleared.clear();
            me.taken = 0;
            if me.refused {
                // no end of file: it would be taken for a client that left, and the answer be dropped
                return me.poll_swallow(cx).map(Ok);
            }
            let before = buf.filled().len();
            match Pin::new(&mut me.io).poll_read(cx, buf) {
                Poll::Ready(Ok(())) if buf.filled().len() > before => me.sort(buf, before),
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending => {
                    ready!(me.poll_deadline(cx));
                    if me.held.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    me.refuse(&Violation::TooSlow);
                }
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let write = Pin::new(&mut me.io).poll_write(cx, bytes);
        me.or_unread(cx, write)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let write = Pin::new(&mut me.io).poll_write_vectored(cx, bytes);
        me.or_unread(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if !me.shut {
            ready!(Pin::new(&mut me.io).poll_shutdown(cx))?;
            me.shut = true;
            let clean = me.framing.is_between() && me.held.is_empty() && !me.refused;
            if clean || me.framing.is_opaque() {
                return Poll::Ready(Ok(()));
            }
            me.timer.as_mut().reset(Instant::now() + me.limits.linger);
        }
        if me.poll_swallow(cx).is_pending() {
            ready!(me.timer.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }
}
