//! What a function prints: read as it comes, cut into lines, the last of them kept with the attempt.
//!
//! Nothing here grows with what a function prints, and nothing waits for the end of a stream: a child of the function
//! may hold it open for ever.

use std::{collections::VecDeque, fmt::Write, io};

use bus::{
    Name,
    presence::{LogLine, LogStream},
};
use chrono::Utc;
use tokio::{net::unix::pipe, sync::broadcast};
use uuid::Uuid;

/// Most bytes of an attempt's output that are kept.
pub const TAIL: usize = 16 * 1024;
/// Longest line; the rest of it is cut.
const LINE: usize = 4 * 1024;
const CHUNK: usize = 16 * 1024;
/// Most that is read behind an answer: what was printed before it fits the pipe.
const DRAIN: usize = 1024 * 1024;

/// Both streams of one process.
pub(crate) struct Output {
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    lines: Lines,
    chunk: Vec<u8>,
}

impl Output {
    /// Without `stdout` where it carries the result.
    pub(crate) fn new(
        stdout: Option<pipe::Receiver>,
        stderr: pipe::Receiver,
        function: Name,
        logs: broadcast::Sender<LogLine>,
    ) -> Self {
        let lines = Lines::new(function, logs);
        Self { stdout, stderr: Some(stderr), lines, chunk: vec![0; CHUNK] }
    }

    /// Of what is told (`hear`, `line`): it has no pipes of its own.
    pub(crate) fn heard(function: Name, logs: broadcast::Sender<LogLine>) -> Self {
        Self { stdout: None, stderr: None, lines: Lines::new(function, logs), chunk: Vec::new() }
    }

    /// Takes what is printed.
    pub(crate) fn hear(&mut self, stream: LogStream, bytes: &[u8]) {
        self.lines.push(stream, bytes);
    }

    /// Takes a whole line.
    pub(crate) fn line(&mut self, stream: LogStream, text: String) {
        self.lines.add(stream, text);
    }

    /// Keeps a line that was told to who listens already.
    pub(crate) fn keep(&mut self, text: String) {
        self.lines.keep(text);
    }

    /// From now on several print here: lines are not kept, but taken by [`Output::parted`].
    pub(crate) fn part(&mut self) {
        self.lines.request = None;
        self.lines.parted = Some(Vec::new());
    }

    /// The lines that were printed since this was asked last.
    pub(crate) fn parted(&mut self) -> Vec<(LogStream, String)> {
        self.lines.parted.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Tells who listens a line that is nobody's alone.
    pub(crate) fn tell(&self, stream: LogStream, text: &str) {
        if self.lines.logs.receiver_count() > 0 {
            self.lines.send(stream, text.to_owned());
        }
    }

    /// Ends the lines that have begun.
    pub(crate) fn flush(&mut self) {
        self.lines.flush();
    }

    /// Says whose output comes now.
    pub(crate) fn begin(&mut self, request: Uuid) {
        self.lines.request = Some(request);
    }

    /// Takes over what was printed before this process was there, and told to who listens.
    pub(crate) fn follow(&mut self, earlier: &str) {
        earlier.lines().for_each(|line| self.lines.keep(line.to_owned()));
    }

    /// Waits until something is printed and takes it; waits for ever when both streams are closed. May be dropped
    /// at any time.
    pub(crate) async fn fill(&mut self) {
        let stream = tokio::select! {
            () = readable(self.stdout.as_ref()) => LogStream::Stdout,
            () = readable(self.stderr.as_ref()) => LogStream::Stderr,
        };
        self.read(stream, pipe::Receiver::try_read);
    }

    /// Takes what is there, without waiting and past the reactor, which may not have heard yet of what was printed
    /// just before an answer.
    pub(crate) fn drain(&mut self) {
        for stream in [LogStream::Stdout, LogStream::Stderr] {
            let mut left = DRAIN / CHUNK;
            while left > 0 && self.read(stream, |pipe, chunk| Ok(rustix::io::read(pipe, chunk)?)) {
                left -= 1;
            }
        }
    }

    /// Ends the part of this attempt: its last lines.
    pub(crate) fn take(&mut self) -> String {
        self.lines.take()
    }

    /// A line of ours, made only when somebody listens.
    pub(crate) fn platform(&self, text: impl FnOnce() -> String) {
        if self.lines.logs.receiver_count() > 0 {
            self.lines.send(LogStream::Platform, text());
        }
    }

    /// One read. Whether the chunk was filled, so that there may be more.
    fn read(&mut self, stream: LogStream, read: impl FnOnce(&pipe::Receiver, &mut [u8]) -> io::Result<usize>) -> bool {
        let pipe = if stream == LogStream::Stdout { &mut self.stdout } else { &mut self.stderr };
        let Some(open) = pipe else { return false };
        match read(open, &mut self.chunk) {
            Ok(0) => *pipe = None,
            Ok(n) => {
                self.lines.push(stream, &self.chunk[..n]);
                return n == self.chunk.len();
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => *pipe = None,
        }
        false
    }
}

async fn readable(pipe: Option<&pipe::Receiver>) {
    match pipe {
        // a broken pipe shows at the read
        Some(pipe) => drop(pipe.readable().await),
        None => std::future::pending().await,
    }
}

/// Bytes in, bounded lines out.
struct Lines {
    function: Name,
    logs: broadcast::Sender<LogLine>,
    request: Option<Uuid>,
    /// The unfinished lines of stdout and stderr.
    open: [Line; 2],
    kept: VecDeque<String>,
    kept_bytes: usize,
    /// Bytes of lines that are not kept any more.
    dropped: usize,
    /// Whole lines to be taken, where they are not kept; a read has so many at most.
    parted: Option<Vec<(LogStream, String)>>,
}

#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    /// Bytes over the longest line.
    cut: usize,
}

impl Lines {
    fn new(function: Name, logs: broadcast::Sender<LogLine>) -> Self {
        let open = [Line::default(), Line::default()];
        let kept = VecDeque::new();
        Self { function, logs, request: None, open, kept, kept_bytes: 0, dropped: 0, parted: None }
    }

    fn push(&mut self, stream: LogStream, mut bytes: &[u8]) {
        let line = usize::from(stream == LogStream::Stderr);
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            self.open[line].push(&bytes[..end]);
            self.finish(stream, line);
            bytes = &bytes[end + 1..];
        }
        self.open[line].push(bytes);
    }

    fn finish(&mut self, stream: LogStream, line: usize) {
        let text = self.open[line].take();
        match &mut self.parted {
            Some(parted) => parted.push((stream, text)),
            None => self.add(stream, text),
        }
    }

    fn add(&mut self, stream: LogStream, text: String) {
        if self.logs.receiver_count() > 0 {
            self.send(stream, text.clone());
        }
        self.keep(text);
    }

    fn keep(&mut self, text: String) {
        self.kept_bytes += text.len() + 1;
        self.kept.push_back(text);
        while self.kept_bytes > TAIL {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.kept_bytes -= oldest.len() + 1;
            self.dropped += oldest.len() + 1;
        }
    }

    fn send(&self, stream: LogStream, text: String) {
        let (function, request_id) = (self.function.clone(), self.request);
        // nobody listens any more
        let _ = self.logs.send(LogLine { time: Utc::now(), function, request_id, stream, text });
    }

    fn flush(&mut self) {
        for (line, stream) in [LogStream::Stdout, LogStream::Stderr].into_iter().enumerate() {
            if !self.open[line].bytes.is_empty() {
                self.finish(stream, line);
            }
        }
    }

    fn take(&mut self) -> String {
        self.flush();
        if self.kept.is_empty() {
            return String::new();
        }
        let mut text = String::with_capacity(self.kept_bytes + 40);
        if self.dropped > 0 {
            text = format!("[{} bytes before this are cut]\n", self.dropped);
        }
        for line in self.kept.drain(..) {
            text.push_str(&line);
            text.push('\n');
        }
        (self.kept_bytes, self.dropped) = (0, 0);
        text
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(LINE - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..fits]);
        self.cut += bytes.len() - fits;
    }

    fn take(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.cut > 0 {
            let _ = write!(text, " [{} bytes of this line are cut]", self.cut);
        }
        self.bytes.clear();
        self.cut = 0;
        text
    }
}

/// The last line of what was printed that says anything.
pub(crate) fn last_line(log: &str) -> Option<&str> {
    log.lines().rfind(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Lines {
        Lines::new("f".parse().unwrap(), broadcast::channel(8).0)
    }

    #[test]
    fn lines_of_both_streams_are_kept_in_the_order_they_came() {
        let mut lines = lines();
        lines.push(LogStream::Stdout, b"one\ntw");
        lines.push(LogStream::Stderr, b"err\n");
        lines.push(LogStream::Stdout, b"o\nlast");
        assert_eq!(lines.take(), "one\nerr\ntwo\nlast\n");
        assert_eq!(lines.take(), "");
    }

    #[test]
    fn a_flood_keeps_its_last_lines_and_says_what_is_cut() {
        let mut lines = lines();
        for n in 0..100_000 {
            lines.push(LogStream::Stdout, format!("line {n}\n").as_bytes());
        }
        let text = lines.take();
        assert!(text.len() <= TAIL + 60, "{} bytes are kept", text.len());
        assert!(text.starts_with("[1072511 bytes before this are cut]"), "{}", &text[..40]);
        assert!(text.ends_with("line 99999\n"));
    }

    #[test]
    fn an_endless_line_is_cut_and_invalid_utf8_is_replaced() {
        let mut lines = lines();
        for _ in 0..1000 {
            lines.push(LogStream::Stdout, &[b'x'; 1000]);
        }
        assert!(lines.open[0].bytes.len() <= LINE);
        assert!(lines.take().ends_with("x [995904 bytes of this line are cut]\n"));
        lines.push(LogStream::Stdout, b"\xff\xfe ok\n");
        assert_eq!(lines.take(), "\u{fffd}\u{fffd} ok\n");
    }

    #[test]
    fn who_listens_hears_each_line_with_its_attempt() {
        let (logs, mut heard) = broadcast::channel(8);
        let mut lines = Lines::new("f".parse().unwrap(), logs);
        lines.request = Some(Uuid::nil());
        lines.push(LogStream::Stderr, b"hello\n");
        let line = heard.try_recv().unwrap();
        assert_eq!((line.text.as_str(), line.stream, line.request_id), ("hello", LogStream::Stderr, Some(Uuid::nil())));
    }
}
