//! Where requests begin and end in the bytes of a connection.
//!
//! A parser that is lenient (a bare LF ends a line, a Transfer-Encoding silently outweighs a Content-Length) disagrees
//! with the proxy before it about where a request ends, and whoever disagrees can be fed a hidden request. So heads are
//! looked at before the parser sees them, and what proxies are known to read differently is refused. Pure: bytes in,
//! how many may pass out.

use super::{guard::Violation, server::Limits};

/// Most headers of a request.
const MAX_HEADERS: usize = 100;

/// Longest method, with the space after it.
const MAX_METHOD: usize = 32;

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows a connection through its requests.
pub(super) struct Framing {
    state: State,
    max_uri: usize,
    max_head: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing was seen yet: it may become HTTP/2.
    Start,
    /// A request's head is next.
    Head,
    /// So many bytes of a body are.
    Body(u64),
    /// The line that says how long the next chunk is.
    ChunkSize { size: u64, digits: bool, extension: bool },
    /// A chunk and its line end.
    Chunk(u64),
    /// What follows the last chunk; whether the line so far is empty.
    Trailer { empty: bool },
    /// HTTP/2: its frames are unambiguous.
    Opaque,
}

/// How much of the bytes may pass. What is left is an unfinished head, to be shown again with more of it, or, with a
/// violation, never.
#[derive(Debug, PartialEq)]
pub(super) struct Passed {
    pub(super) bytes: usize,
    pub(super) violation: Option<Violation>,
}

impl Framing {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { state: State::Start, max_uri: limits.max_uri, max_head: limits.max_head }
    }

    /// Whether all that came so far were whole requests.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.state, State::Start | State::Head)
    }

    pub(super) fn is_opaque(&self) -> bool {
        self.state == State::Opaque
    }

    pub(super) fn pass(&mut self, bytes: &[u8]) -> Passed {
        let mut at = 0;
        while at < bytes.len() {
            match self.step(&bytes[at..]) {
                Ok(0) => return Passed { bytes: at, violation: None },
                Ok(n) => at += n,
                Err(violation) => return Passed { bytes: at, violation: Some(violation) },
            }
        }
        Passed { bytes: at, violation: None }
    }

    /// Takes at least one byte, or none of an unfinished head.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let first = bytes[0];
        match self.state {
            State::Start if bytes.starts_with(PREFACE) => self.state = State::Opaque,
            State::Start if PREFACE.starts_with(bytes) => return Ok(0),
            State::Start => self.state = State::Head,
            State::Opaque => return Ok(bytes.len()),
            State::Body(left) => {
                let n = left.min(bytes.len() as u64);
                self.state = if n == left { State::Head } else { State::Body(left - n) };
                return Ok(n as usize);
            }
            State::Chunk(left) => {
                let n = left.min(bytes.len() as u64);
                self.state = if n == left { CHUNK_SIZE } else { State::Chunk(left - n) };
                return Ok(n as usize);
            }
            State::ChunkSize { size, digits, extension } => {
                self.state = chunk_size(first, size, digits, extension)?;
                return Ok(1);
            }
            State::Trailer { empty } => {
                self.state = match first {
                    b'\n' if empty => State::Head,
                    b'\n' => State::Trailer { empty: true },
                    b'\r' => State::Trailer { empty },
                    _ => State::Trailer { empty: false },
                };
                return Ok(1);
            }
            State::Head => {
                let Some((length, next)) = self.head(bytes)? else { return Ok(0) };
                self.state = next;
                return Ok(length);
            }
        }
        self.step(bytes)
    }

    /// Length of a whole head and what comes after it; none: more of it has to come.
    fn head(&self, bytes: &[u8]) -> Result<Option<(usize, State)>, Violation> {
        if !(bytes[0].is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~\r\n".contains(&bytes[0])) {
            return Err(Violation::Malformed("does not begin with a method"));
        }
        let mut at = 0;
        let mut target_seen = false;
        let mut headers = 0;
        let mut body = Body::default();
        while let Some(length) = bytes[at..].iter().position(|b| *b == b'\n') {
            let Some(line) = bytes[at..at + length].strip_suffix(b"\r") else {
                return Err(Violation::Malformed("has a line that ends without CR"));
            };
            at += length + 1;
            if at > self.max_head + self.max_uri {
                return Err(Violation::HeadTooLarge);
            }
            match (target_seen, line.is_empty()) {
                // RFC 9112: empty lines before a request are to be overlooked
                (false, true) => {}
                (false, false) => {
                    let target = line.split(|b| *b == b' ').nth(1).unwrap_or_default();
                    if target.len() > self.max_uri {
                        return Err(Violation::UriTooLong);
                    }
                    target_seen = true;
                }
                (true, true) if headers > MAX_HEADERS || at > self.max_head => return Err(Violation::HeadTooLarge),
                (true, true) => return Ok(Some((at, body.next()?))),
                (true, false) => {
                    headers += 1;
                    body.header(line)?;
                }
            }
        }
        let unfinished = bytes.len() - at;
        if !target_seen && unfinished > self.max_uri + MAX_METHOD {
            return Err(Violation::UriTooLong);
        }
        if target_seen && (bytes.len() > self.max_head || headers > MAX_HEADERS) {
            return Err(Violation::HeadTooLarge);
        }
        Ok(None)
    }
}

const CHUNK_SIZE: State = State::ChunkSize { size: 0, digits: false, extension: false };

fn chunk_size(byte: u8, size: u64, digits: bool, extension: bool) -> Result<State, Violation> {
    let broken = Violation::Malformed("has a chunk without a size");
    match byte {
        b'\n' if !digits => Err(broken),
        b'\n' if size == 0 => Ok(State::Trailer { empty: true }),
        // the chunk is followed by CRLF
        b'\n' => Ok(State::Chunk(size.checked_add(2).ok_or(broken)?)),
        b'\r' => Ok(State::ChunkSize { size, digits, extension }),
        _ if extension => Ok(State::ChunkSize { size, digits, extension }),
        b';' | b' ' | b'\t' => Ok(State::ChunkSize { size, digits, extension: true }),
        _ => {
            let digit = char::from(byte).to_digit(16).ok_or(broken.clone())?;
            let size = size.checked_mul(16).and_then(|size| size.checked_add(digit.into())).ok_or(broken)?;
            Ok(State::ChunkSize { size, digits: true, extension })
        }
    }
}

/// What a head says of the body after it.
#[derive(Default)]
struct Body {
    length: Option<u64>,
    chunked: bool,
}

impl Body {
    fn header(&mut self, line: &[u8]) -> Result<(), Violation> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Violation::Malformed("has a header folded over two lines"));
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return Err(Violation::Malformed("has a header without a colon"));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.last().is_none_or(u8::is_ascii_whitespace) {
            return Err(Violation::Malformed("has a space before the colon of a header"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = str::from_utf8(value).ok().filter(|_| digits).and_then(|value| value.parse().ok());
            if self.length.is_some() || length.is_none() {
                return Err(Violation::Malformed("has more than one Content-Length, or one that is no number"));
            }
            self.length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            // a vertical tab is no space, but some parsers trim it
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::Malformed("has a Transfer-Encoding other than chunked"));
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn next(self) -> Result<State, Violation> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Violation::Malformed("has both Content-Length and Transfer-Encoding")),
            (None, true) => Ok(CHUNK_SIZE),
            (None | Some(0), false) => Ok(State::Head),
            (Some(length), false) => Ok(State::Body(length)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn framing() -> Framing {
        Framing::new(&Limits { max_uri: 100, max_head: 400, ..Limits::default() })
    }

    const STREAM: &[u8] = b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 4\r\n\r\na\n\nb\
        POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\n\n\n\r\n0\r\nt: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n";

    #[test]
    fn requests_pass_however_they_are_cut() {
        for cut in 0..=STREAM.len() {
            let mut framing = framing();
            let first = framing.pass(&STREAM[..cut]);
            assert_eq!(first.violation, None, "cut at {cut}");
            let rest = framing.pass(&STREAM[first.bytes..]);
            assert_eq!(rest, Passed { bytes: STREAM.len() - first.bytes, violation: None }, "cut at {cut}");
            assert!(framing.is_between());
        }
    }

    #[test]
    fn requests_pass_byte_by_byte() {
        let mut framing = framing();
        let (mut held, mut passed) = (Vec::new(), Vec::new());
        for byte in STREAM {
            held.push(*byte);
            let now = framing.pass(&held);
            assert_eq!(now.violation, None);
            passed.extend(held.drain(..now.bytes));
        }
        assert_eq!(passed, STREAM);
    }

    #[test]
    fn http_2_passes_as_it_is() {
        let mut framing = framing();
        assert_eq!(framing.pass(&PREFACE[..10]), Passed { bytes: 0, violation: None });
        assert_eq!(framing.pass(&[PREFACE, b"\n\n\n"].concat()).bytes, PREFACE.len() + 3);
        assert!(framing.is_opaque());
    }

    #[rstest]
    #[case::both_lengths("GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n")]
    #[case::both_lengths_the_other_way("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n")]
    #[case::two_lengths("GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n")]
    #[case::list_of_lengths("GET / HTTP/1.1\r\nContent-Length: 5, 6\r\n\r\n")]
    #[case::signed_length("GET / HTTP/1.1\r\nContent-Length: +5\r\n\r\n")]
    #[case::unknown_coding("GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n")]
    #[case::vertical_tab("GET / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n")]
    #[case::bare_lf("GET / HTTP/1.1\nHost: x\n\n")]
    #[case::one_bare_lf("GET / HTTP/1.1\r\nHost: x\n\r\n")]
    #[case::folded("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n")]
    #[case::space_before_colon("GET / HTTP/1.1\r\nHost : x\r\n\r\n")]
    #[case::no_colon("GET / HTTP/1.1\r\nHost\r\n\r\n")]
    #[case::huge_chunk("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF1\r\n")]
    #[case::chunk_without_size("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n")]
    #[case::tls("\u{16}\u{3}\u{1}")]
    fn what_parsers_disagree_about_does_not_pass(#[case] bytes: &str) {
        assert!(matches!(framing().pass(bytes.as_bytes()).violation, Some(Violation::Malformed(_))));
    }

    #[test]
    fn what_is_too_long_does_not_pass_and_need_not_be_whole() {
        let uri = format!("GET /{}", "a".repeat(200));
        assert_eq!(framing().pass(uri.as_bytes()).violation, Some(Violation::UriTooLong));
        let uri = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100));
        assert_eq!(framing().pass(uri.as_bytes()).violation, Some(Violation::UriTooLong));
        let head = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(400));
        assert_eq!(framing().pass(head.as_bytes()).violation, Some(Violation::HeadTooLarge));
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(101));
        let mut framing = Framing::new(&Limits::default());
        assert_eq!(framing.pass(head.as_bytes()).violation, Some(Violation::HeadTooLarge));
    }

    #[test]
    fn the_requests_before_a_violation_pass() {
        let good = b"GET / HTTP/1.1\r\n\r\n";
        let passed = framing().pass(&[good.as_slice(), b"GET / HTTP/1.1\n"].concat());
        assert_eq!(passed.bytes, good.len());
        assert!(passed.violation.is_some());
    }
}
