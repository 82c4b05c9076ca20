//! One invocation of a command: the event goes to its stdin, its stdout is the result, its exit code the verdict.

use std::io;

use bus::outcome::{Ending, Fault, error_object};
use bytes::{Buf, Bytes, BytesMut};
use tokio::net::unix::pipe;

use crate::{
    dialogue::{Answer, Broken},
    fault::{fault, too_large},
    frame::BadFrame,
    process::Group,
};

const CHUNK: usize = 16 * 1024;
/// `EX_DATAERR` of sysexits: the input is wrong, and will be wrong again.
const DATA_ERROR: i32 = 65;

/// The kind of the error that an exit code is.
pub(crate) const EXITED: &str = "Runtime.ExitError";

/// What an exit code says.
pub(crate) fn failed_with(code: i32) -> Fault {
    Fault { retry: code != DATA_ERROR, ..fault(EXITED, format!("exit status {code}")) }
}

pub(crate) struct Once {
    /// Closed as soon as all of the event is written, or nobody reads it.
    stdin: Option<pipe::Sender>,
    /// What is not yet written.
    event: Bytes,
    /// Gone when the command closed it.
    stdout: Option<pipe::Receiver>,
    result: BytesMut,
    /// Longest result.
    limit: usize,
}

impl Once {
    pub(crate) fn new(stdin: Option<pipe::Sender>, stdout: pipe::Receiver, event: Bytes, limit: usize) -> Self {
        let mut once = Self { stdin, event, stdout: Some(stdout), result: BytesMut::new(), limit };
        once.write();
        once
    }

    /// Writes and reads on. The answer is there when the command has ended. May be dropped at any time.
    pub(crate) async fn hear(&mut self) -> Result<(), Broken> {
        let writable = async {
            match &self.stdin {
                Some(stdin) => drop(stdin.writable().await),
                None => std::future::pending().await,
            }
        };
        let readable = async {
            match &self.stdout {
                Some(stdout) => drop(stdout.readable().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = readable => {
                self.result.reserve(CHUNK);
                let read = self.stdout.as_ref().map(|stdout| stdout.try_read_buf(&mut self.result));
                match read {
                    Some(Ok(0)) => self.stdout = None,
                    Some(Err(e)) if e.kind() != io::ErrorKind::WouldBlock => self.stdout = None,
                    _ => {}
                }
                if self.result.len() > self.limit {
                    return Err(Broken::Frame(BadFrame::TooLong(self.result.len())));
                }
            }
            () = writable => self.write(),
        }
        Ok(())
    }

    /// What its end says. None when it was a signal.
    pub(crate) fn last_words(&mut self, group: &Group) -> Option<Answer> {
        // what others still write to stdout comes too late: the command has ended
        let exit = group.reap()?;
        self.drain();
        let failed = |ending, fault| Answer::Ended { ending, output: error_object(&fault), fault: Some(fault) };
        Some(match exit.status.code()? {
            _ if self.result.len() > self.limit => failed(Ending::TooLarge, too_large(self.result.len(), self.limit)),
            0 => Answer::Ended { ending: Ending::Ok, output: self.result.split().freeze(), fault: None },
            code => failed(Ending::Error, failed_with(code)),
        })
    }

    /// Writes as much as fits into the pipe. A command need not read its stdin.
    fn write(&mut self) {
        while let Some(stdin) = &self.stdin {
            if self.event.is_empty() {
                self.stdin = None;
                return;
            }
            match stdin.try_write(&self.event) {
                Ok(n) => self.event.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.stdin = None,
            }
        }
    }

    /// Reads what is there, past the reactor.
    fn drain(&mut self) {
        let mut chunk = [0; CHUNK];
        while let Some(stdout) = &self.stdout
            && self.result.len() <= self.limit
        {
            match rustix::io::read(stdout, &mut chunk) {
                Ok(n) if n > 0 => self.result.extend_from_slice(&chunk[..n]),
                _ => self.stdout = None,
            }
        }
    }
}
