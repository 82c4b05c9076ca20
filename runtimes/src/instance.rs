//! A process with a version's code loaded, and one conversation with it at a time.
//!
//! Nobody else drives its pipes: whoever runs the invocation writes the request, reads what is printed and waits for
//! the answer, the end of the process or the deadline, all in one place ([`Instance::exchange`]). An instance that is
//! dropped is killed with its whole group.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Name, Outcome,
    outcome::{Ending, Fault, error_object},
};
use bytes::Bytes;
use rustix::process::Signal;
use serde::Deserialize;
use tokio::{net::unix::pipe, time};

use crate::{
    frame::{Answers, BadFrame, Kind, request_head},
    ground::Ground,
    lease::Invocation,
    output::Output,
    process::{self, Exit, Group, Process},
    version::Version,
};

/// Between TERM and KILL of a function that ran over its timeout.
const GRACE: Duration = Duration::from_millis(500);
/// Loading code may always take this long.
const INIT_LIMIT: Duration = Duration::from_secs(10);
/// Error objects may be this long, whatever the limit of outputs is.
const ERROR_LIMIT: usize = 1 << 20;

pub(crate) struct Instance {
    pub(crate) version: Arc<Version>,
    /// How long it took to start the process, and to load the code.
    pub(crate) birth: Birth,
    process: Process,
    requests: pipe::Sender,
    answers: Answers,
    output: Output,
    payload_limit: usize,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Birth {
    pub(crate) start: Duration,
    pub(crate) init: Duration,
}

/// How an exchange ended.
pub(crate) struct Reply {
    pub(crate) ending: Ending,
    pub(crate) output: Bytes,
    pub(crate) fault: Option<Fault>,
    pub(crate) log: String,
    /// Whether the instance can be used again.
    pub(crate) healthy: bool,
}

/// The process had ended before it was asked: nothing has run.
pub(crate) struct NotTaken;

/// Why there is no answer.
enum Silence {
    /// The process had ended before it read anything of the request.
    NotTaken,
    Exited,
    TimedOut,
    Unusable(BadFrame),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorObject {
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    error_type: String,
}

impl Instance {
    /// Starts a process and loads the code. A failure is an outcome with `InitError`.
    pub(crate) async fn start(
        ground: &Ground,
        function: &Name,
        version: Arc<Version>,
        timeout: Duration,
    ) -> Result<Self, Box<Outcome>> {
        let begun = Instant::now();
        let refused = |kind: &str, message: String| {
            let mut outcome = Outcome::failure(Ending::InitError, kind, message);
            outcome.version = version.id.clone();
            Box::new(outcome)
        };
        let launch = match ground.launch(function, &version).await {
            Ok(launch) => launch,
            Err(e) => return Err(refused("Runtime.InvalidConfiguration", e.to_string())),
        };
        let program = launch.program.display().to_string();
        let started = match process::start(launch).await {
            Ok(started) => started,
            Err(e) => return Err(refused("Runtime.StartError", format!("{program} cannot be started: {e}"))),
        };
        let payload_limit = ground.settings.payload_limit;
        let logs = ground.settings.logs.clone();
        let mut instance = Self {
            version: version.clone(),
            birth: Birth { start: Duration::ZERO, init: Duration::ZERO },
            process: started.process,
            requests: started.requests,
            answers: Answers::new(started.answers, payload_limit.max(ERROR_LIMIT)),
            output: Output::new(started.stdout, started.stderr, function.clone(), logs),
            payload_limit,
        };
        let limit = timeout.max(INIT_LIMIT);
        let reply = match instance.exchange(&[], &[], time::Instant::now() + limit).await {
            Ok((Kind::Ready, body)) => {
                let nanos = body.as_ref().try_into().map(u64::from_le_bytes).unwrap_or_default();
                instance.birth.init = Duration::from_nanos(nanos);
                instance.birth.start = begun.elapsed().saturating_sub(instance.birth.init);
                return Ok(instance);
            }
            Ok((Kind::Ended(ending), body)) => instance.answered(ending, body),
            Err(silence) => instance.without_answer(silence, limit).await,
        };
        let fault = reply.fault.unwrap_or_else(|| fault_of(&reply.output));
        let mut outcome = refused(&fault.kind, fault.message);
        (outcome.output, outcome.log) = (reply.output, reply.log);
        Err(outcome)
    }

    /// The process group, for who may signal it.
    pub(crate) fn group(&self) -> &Arc<Group> {
        self.process.group()
    }

    /// Runs one invocation.
    pub(crate) async fn invoke(&mut self, invocation: &Invocation, timeout: Duration) -> Result<Reply, NotTaken> {
        self.output.begin(invocation.request_id);
        let payload = &invocation.payload;
        let head = request_head(
            invocation.request_id,
            &invocation.event_id,
            invocation.trace.as_deref(),
            timeout,
            payload.form,
            payload.bytes.len(),
        );
        self.output.platform(|| format!("START RequestId: {} Version: {}", invocation.request_id, self.version.id));
        match self.exchange(&head, &payload.bytes, time::Instant::now() + timeout).await {
            Ok((Kind::Ended(ending), body)) => Ok(self.answered(ending, body)),
            Ok((Kind::Ready, _)) => Ok(self.without_answer(Silence::Unusable(BadFrame::Garbage), timeout).await),
            Err(Silence::NotTaken) => Err(NotTaken),
            Err(silence) => Ok(self.without_answer(silence, timeout).await),
        }
    }

    /// The two lines after an invocation, as AWS prints them.
    pub(crate) fn report(&self, invocation: &Invocation, run: Duration, cold: Option<Birth>) {
        let id = invocation.request_id;
        self.output.platform(|| format!("END RequestId: {id}"));
        self.output.platform(|| {
            let ms = run.as_secs_f64() * 1e3;
            let init = cold.map_or(String::new(), |b| {
                format!("\tInit Duration: {:.2} ms", (b.start + b.init).as_secs_f64() * 1e3)
            });
            let memory = self.version.memory;
            let peak = peak_memory(self.process.group().id()).map_or(String::new(), |mb| {
                format!("\tMax Memory Used: {mb} MB")
            });
            format!(
                "REPORT RequestId: {id}\tDuration: {ms:.2} ms\tBilled Duration: {:.0} ms\tMemory Size: {memory} MB{peak}{init}",
                ms.ceil()
            )
        });
    }

    /// Whether the process is there, by the kernel.
    pub(crate) fn is_alive(&self) -> bool {
        !self.process.group().is_gone()
    }

    /// Writes a request and waits for its answer, taking what is printed meanwhile.
    async fn exchange(&mut self, head: &[u8], body: &[u8], deadline: time::Instant) -> Result<(Kind, Bytes), Silence> {
        let mut sent = self.write(head, body, 0)?;
        let length = head.len() + body.len();
        let deadline = time::sleep_until(deadline);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                () = self.answers.fill(), if !self.answers.is_closed() => {
                    if let Some(answer) = self.answers.take().map_err(Silence::Unusable)? {
                        return Ok(answer);
                    }
                }
                () = &mut deadline => return Err(Silence::TimedOut),
                () = self.process.group().gone() => {
                    // its last words; a process it left behind may hold the pipe open, so nothing waits for its end
                    self.answers.drain();
                    return match self.answers.take() {
                        Ok(Some(answer)) => Ok(answer),
                        _ if self.is_unread(sent) => Err(Silence::NotTaken),
                        _ => Err(Silence::Exited),
                    };
                }
                () = self.output.fill() => {}
                _ = self.requests.writable(), if sent < length => sent = self.write(head, body, sent)?,
            }
        }
    }

    /// Writes as much of a request as fits into the pipe now; how much of it is written in all.
    fn write(&self, head: &[u8], body: &[u8], mut sent: usize) -> Result<usize, Silence> {
        while sent < head.len() + body.len() {
            let rest =
                [IoSlice::new(&head[sent.min(head.len())..]), IoSlice::new(&body[sent.saturating_sub(head.len())..])];
            match self.requests.try_write_vectored(&rest) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) if sent == 0 => return Err(Silence::NotTaken),
                // it ends, or has stopped to read: the end or the deadline is awaited
                Err(_) => return Ok(head.len() + body.len()),
            }
        }
        Ok(sent)
    }

    /// Whether all that was written of a request still lies in the pipe: the process ended before it looked.
    fn is_unread(&self, sent: usize) -> bool {
        sent > 0 && rustix::io::ioctl_fionread(&self.requests).is_ok_and(|unread| unread == sent as u64)
    }

    fn answered(&mut self, ending: Ending, output: Bytes) -> Reply {
        // what was printed before the answer is in the pipes
        self.output.drain();
        let log = self.output.take();
        if ending == Ending::Ok && output.len() > self.payload_limit {
            return failed(Ending::TooLarge, too_large(output.len(), self.payload_limit), log, true);
        }
        let fault = (ending != Ending::Ok).then(|| fault_of(&output));
        // a process that ran out of memory once has little left
        Reply { ending, output, fault, log, healthy: ending != Ending::Oom }
    }

    /// Ends the process, which cannot be used any more, and says why.
    async fn without_answer(&mut self, silence: Silence, limit: Duration) -> Reply {
        let group = self.process.group().clone();
        let (ending, fault) = match silence {
            Silence::TimedOut => {
                group.signal(Signal::TERM);
                self.end_within(GRACE).await;
                let message = format!("Task timed out after {:.2} seconds", limit.as_secs_f64());
                (Ending::Timeout, fault("Sandbox.Timedout", message))
            }
            Silence::Unusable(BadFrame::TooLong(size)) => (Ending::TooLarge, too_large(size, self.payload_limit)),
            Silence::Unusable(BadFrame::Garbage) => {
                (Ending::Crash, fault("Runtime.BadFrame", BadFrame::Garbage.to_string()))
            }
            Silence::Exited | Silence::NotTaken => crash(group.reap(), u64::from(self.version.memory) << 20),
        };
        group.signal(Signal::KILL);
        self.output.drain();
        failed(ending, fault, self.output.take(), false)
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

fn failed(ending: Ending, fault: Fault, log: String, healthy: bool) -> Reply {
    Reply { ending, output: error_object(&fault), fault: Some(fault), log, healthy }
}

fn fault(kind: &str, message: String) -> Fault {
    Fault { kind: kind.to_owned(), message }
}

/// What an error object of the function says.
fn fault_of(body: &[u8]) -> Fault {
    match serde_json::from_slice::<ErrorObject>(body) {
        Ok(error) => Fault { kind: error.error_type, message: error.error_message },
        Err(_) => fault("Runtime.Unknown", String::from_utf8_lossy(&body[..body.len().min(1000)]).into_owned()),
    }
}

fn too_large(size: usize, limit: usize) -> Fault {
    let message = format!("Response payload size ({size} bytes) exceeded maximum allowed payload size ({limit} bytes)");
    fault("Function.ResponseSizeTooLarge", message)
}

/// A process that ended in the middle. Killed by a signal near its memory limit, it ran out of memory.
fn crash(exit: Option<Exit>, memory: u64) -> (Ending, Fault) {
    use std::os::unix::process::ExitStatusExt;
    let Some(exit) = exit else {
        return (Ending::Crash, fault("Runtime.ExitError", "the function closed its connection to fnbus".into()));
    };
    match (exit.status.signal(), exit.status.code()) {
        (Some(_), _) if exit.peak >= memory / 10 * 9 => {
            let message = "the function ran out of memory; raise its `memory`".to_owned();
            (Ending::Oom, fault("Runtime.OutOfMemory", message))
        }
        (Some(signal), _) => {
            (Ending::Crash, fault("Runtime.ExitError", format!("Runtime exited with error: signal {signal}")))
        }
        (None, code) => {
            let message = format!("Runtime exited with error: exit status {}", code.unwrap_or_default());
            (Ending::Crash, fault("Runtime.ExitError", message))
        }
    }
}

/// Most memory a process had at once, in MB.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb.div_ceil(1024))
}
