//! A version that is ready to run invocations, one at a time or, where it has several slots, several: a process that has its
//! code loaded, or what a process or an instance of WebAssembly is made from for each of them. An instance that is dropped is
//! killed with its whole group.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bus::{
    Name, Outcome,
    outcome::{Ending, Fault, Start, error_object},
};
use bytes::Bytes;
use tokio::time;

use crate::{
    budget::{Budget, Share},
    command::{EXITED, Program},
    config::RuntimeKind,
    conversation::{Conversation, Silence},
    dialogue::Answer,
    engine::{self, Engine, NoStart},
    fault::{Lack, fault_of, too_large},
    frame::BadFrame,
    ground::Ground,
    lease::Invocation,
    lock,
    node::Spares,
    output::{Output, last_line},
    process::Group,
    provided,
    python::Zygotes,
    shared::Shared,
    streamed::{self, Pieces},
    version::Version,
    wasm::Guest,
};

/// Loading code may always take this long.
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// What to do about a process that ended in the middle.
const CRASHED: &str = "see in its log what it printed last";

pub(crate) struct Instance {
    pub(crate) version: Arc<Version>,
    /// How it was started.
    pub(crate) birth: Birth,
    function: Name,
    ground: Arc<Ground>,
    /// Set where each invocation has a process of its own.
    program: Option<Program>,
    /// What the process of such an invocation holds of the memory of all functions.
    share: Option<Share>,
    /// Set where each has an instance of WebAssembly of its own.
    guest: Option<Box<Guest>>,
    /// Set where several invocations may run at once, each on a handle of its own.
    shared: Option<Arc<Shared>>,
    /// What an invocation printed that has no process of its own, and the most memory it had if no process says so, until
    /// this is reported.
    printed: Option<(Arc<Mutex<Output>>, Option<u64>)>,
    /// None where it would be that process, and nothing runs. Boxed, as instances are passed from hand to hand.
    conversation: Option<Box<Conversation>>,
    /// Largest output.
    limit: usize,
    /// It took a process that waited, and none was started in its place yet.
    owes: bool,
    /// It was started before anybody called, and nobody has yet.
    pub(crate) is_ahead: bool,
    /// The most bytes that the process of the last invocation had, where it is gone, until the pool has taken note.
    pub(crate) peak: Option<u64>,
    /// How long its last invocation took, until the pool has taken note.
    pub(crate) ran: Option<Duration>,
}

/// How a process came to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Birth {
    pub(crate) kind: Start,
    /// How long it took to start the process, and to load the code.
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
    /// Set when a process was started for this invocation.
    pub(crate) birth: Option<Birth>,
}

/// How an invocation ended that ran inside this process.
pub(crate) struct Ran {
    pub(crate) ending: Ending,
    pub(crate) output: Bytes,
    pub(crate) fault: Option<Fault>,
    /// How long it took to make the instance.
    pub(crate) start: Duration,
    /// Most memory it had, in bytes.
    pub(crate) peak: u64,
}

/// Why nothing of an invocation has run.
pub(crate) enum NotRun {
    /// The process had ended before it was asked.
    NotTaken,
    /// There is no room for the process of an invocation that has its own.
    Lack(Lack),
}

/// Why there is no instance.
pub(crate) enum NoInstance {
    /// There is no room for it now.
    Lack(Lack),
    /// An outcome with `InitError`.
    Init(Box<Outcome>),
}

impl Instance {
    /// With nothing in it that could run.
    fn bare(ground: Arc<Ground>, function: Name, version: Arc<Version>, birth: Birth) -> Self {
        let limit = provided::limit(version.runtime, ground.settings.payload_limit);
        Self {
            version,
            birth,
            function,
            ground,
            program: None,
            share: None,
            guest: None,
            shared: None,
            printed: None,
            conversation: None,
            limit,
            owes: false,
            is_ahead: false,
            peak: None,
            ran: None,
        }
    }

    /// Starts a process and loads the code.
    pub(crate) async fn start(
        ground: &Arc<Ground>,
        function: &Name,
        version: Arc<Version>,
        timeout: Duration,
    ) -> Result<Self, NoInstance> {
        let begun = Instant::now();
        let refused = |kind: &str, message: String| {
            let mut outcome = Outcome::failure(Ending::InitError, kind, message);
            outcome.version = version.id.clone();
            Box::new(outcome)
        };
        let limit = timeout.max(INIT_LIMIT);
        let engine = engine::start(ground, function, &version, limit).await;
        let engine = engine.map_err(|e| match Lack::of(&e) {
            Some(lack) => NoInstance::Lack(lack),
            None => NoInstance::Init(refused(e.kind(), e.to_string())),
        })?;
        let birth = Birth { kind: Start::Cold, start: begun.elapsed(), init: Duration::ZERO };
        let mut instance = Self::bare(ground.clone(), function.clone(), version.clone(), birth);
        let (loaded, heard, written);
        match engine {
            Engine::Each(program) => {
                instance.program = Some(program);
                return Ok(instance);
            }
            Engine::Guest(guest) => {
                instance.guest = Some(guest);
                return Ok(instance);
            }
            Engine::Kept(made) => {
                (instance.conversation, instance.birth.kind) = (Some(made.conversation.into()), made.kind);
                (loaded, heard, written) = (made.loaded, made.heard, made.written);
            }
        }
        let heard = match heard {
            Some(heard) => heard,
            None => instance.exchange(limit, Pieces::default()).await,
        };
        let mut reply = match heard {
            Ok(Answer::Ready(own)) => {
                let took = begun.elapsed();
                // where the process does not say, all but its making counts as loading
                let init = own.map_or(took.saturating_sub(instance.birth.start), |own| loaded + own);
                instance.birth = Birth { kind: instance.birth.kind, start: took.saturating_sub(init), init };
                if let Some(written) = written {
                    written.keep().await;
                }
                instance.owes = matches!(version.runtime, RuntimeKind::Node | RuntimeKind::Python);
                if version.slots > 1 {
                    let conversation = instance.conversation.take();
                    instance.shared = conversation.map(|conversation| Shared::new(*conversation, version.slots));
                }
                return Ok(instance);
            }
            Ok(Answer::Ended { ending, output, fault }) => {
                let log = instance.log();
                instance.answered(ending, output, fault, log)
            }
            Ok(Answer::Forks(_) | Answer::Piece(_) | Answer::Printed(..)) => {
                instance.without_answer(Silence::Unusable(BadFrame::Garbage), limit).await
            }
            Err(silence) => instance.without_answer(silence, limit).await,
        };
        instance.explain(&mut reply, None);
        let fault = reply.fault.unwrap_or_else(|| fault_of(&reply.output));
        let mut outcome = refused(&fault.kind, fault.message);
        (outcome.output, outcome.log) = (reply.output, reply.log);
        Err(NoInstance::Init(outcome))
    }

    /// Starts a process in place of the one it took. Not before nobody waits for this instance: a start takes a core.
    pub(crate) fn pay(&mut self) {
        if std::mem::take(&mut self.owes) {
            match self.version.runtime {
                RuntimeKind::Python => Zygotes::refill(&self.ground, &self.function, &self.version),
                _ => Spares::refill(&self.ground, &self.version),
            }
        }
    }

    /// The process group, for who may signal it; none where each invocation has its own.
    pub(crate) fn group(&self) -> Option<&Arc<Group>> {
        let shared = self.shared.as_ref().map(|shared| shared.group());
        shared.or_else(|| self.conversation.as_ref().map(|conversation| conversation.group()))
    }

    /// The process that several invocations may share.
    pub(crate) fn shared(&self) -> Option<&Shared> {
        self.shared.as_deref()
    }

    /// Whether no invocation is on it, as far as its pool counts them.
    pub(crate) fn rests(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.rests())
    }

    /// How many more invocations may be on it.
    pub(crate) fn open(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.open())
    }

    /// Another handle of a process that several invocations may share.
    pub(crate) fn another(&self) -> Option<Self> {
        let shared = Some(self.shared.clone()?);
        let (ground, function, version) = (self.ground.clone(), self.function.clone(), self.version.clone());
        Some(Self { shared, ..Self::bare(ground, function, version, self.birth) })
    }

    /// Whether both are handles of one process.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.shared.as_ref().zip(other.shared.as_ref()).is_some_and(|(one, two)| Arc::ptr_eq(one, two))
    }

    /// Counts it among what all functions hold, or counts it anew.
    pub(crate) fn counts(&mut self, budget: &Arc<Budget>, bytes: u64) {
        if let Some(group) = self.group() {
            group.counts(budget, bytes);
        } else if self.program.is_some() {
            self.share.get_or_insert_with(|| Share::new(budget)).set(bytes);
        }
    }

    /// Whether it runs more than one invocation.
    pub(crate) fn keeps(&self) -> bool {
        self.program.is_none() && self.guest.is_none()
    }

    /// Whether there is something to keep between invocations: a process, or code that is loaded.
    pub(crate) fn stays(&self) -> bool {
        self.program.is_none()
    }

    /// Runs one invocation.
    pub(crate) async fn invoke(&mut self, invocation: &Invocation, timeout: Duration) -> Result<Reply, NotRun> {
        // boxed: what most invocations do not do would make the task of each of them larger
        if self.guest.is_some() {
            return Box::pin(self.call_guest(invocation, timeout)).await;
        }
        if self.shared.is_some() {
            return Box::pin(self.call_shared(invocation, timeout)).await;
        }
        let birth = match self.begin(invocation, timeout).await {
            Ok(birth) => birth,
            Err(e) => {
                if let Some(lack) = Lack::of(&e) {
                    return Err(NotRun::Lack(lack));
                }
                let outcome = Outcome::failure(Ending::InitError, e.kind(), e.to_string());
                let (ending, output, fault) = (outcome.ending, outcome.output, outcome.fault);
                return Ok(Reply { ending, output, fault, log: String::new(), healthy: false, birth: None });
            }
        };
        let Some(conversation) = &mut self.conversation else { return Err(NotRun::NotTaken) };
        conversation.output.begin(invocation.request_id);
        let version = &self.version;
        let start = || format!("START RequestId: {} Version: {}", invocation.request_id, version.called());
        conversation.output.platform(start);
        let asked = conversation.dialogue.ask(invocation, timeout).map_err(Silence::from);
        let heard = match asked {
            Ok(()) => self.exchange(timeout, Pieces::of(invocation, self.limit)).await,
            Err(silence) => Err(silence),
        };
        let mut reply = match heard {
            Ok(Answer::Ended { ending, output, fault }) => {
                let log = self.log();
                self.answered(ending, output, fault, log)
            }
            Ok(Answer::Ready(_) | Answer::Forks(_) | Answer::Piece(_) | Answer::Printed(..)) => {
                Box::pin(self.without_answer(Silence::Unusable(BadFrame::Garbage), timeout)).await
            }
            Err(Silence::NotTaken) => return Err(NotRun::NotTaken),
            Err(silence) => Box::pin(self.without_answer(silence, timeout)).await,
        };
        self.conclude(&mut reply, invocation);
        Ok(Reply { birth, ..reply })
    }

    /// The output of an invocation that has no pipes of its own.
    fn own_output(&self, invocation: &Invocation) -> Arc<Mutex<Output>> {
        let mut output = Output::heard(self.function.clone(), self.ground.settings.logs.clone());
        let version = &self.version;
        output.begin(invocation.request_id);
        output.platform(|| format!("START RequestId: {} Version: {}", invocation.request_id, version.called()));
        Arc::new(Mutex::new(output))
    }

    /// Runs one invocation in a process that has others, too.
    async fn call_shared(&mut self, invocation: &Invocation, timeout: Duration) -> Result<Reply, NotRun> {
        let Some(shared) = self.shared.clone() else { return Err(NotRun::NotTaken) };
        let output = self.own_output(invocation);
        let heard = shared.call(invocation, timeout, &output, self.limit).await;
        let log = lock(&output).take();
        let memory = u64::from(self.version.memory) << 20;
        let mut reply = match heard {
            Ok(Answer::Ended { ending, output, fault }) => self.answered(ending, output, fault, log),
            Err(Silence::NotTaken) => return Err(NotRun::NotTaken),
            other => {
                let silence = other.err().unwrap_or(Silence::Unusable(BadFrame::Garbage));
                let (ending, fault) = silence.fault(shared.group(), timeout, memory, self.limit);
                failed(ending, fault, log, false)
            }
        };
        self.conclude(&mut reply, invocation);
        self.printed = Some((output, None));
        Ok(reply)
    }

    /// Runs one invocation in an instance of WebAssembly.
    async fn call_guest(&mut self, invocation: &Invocation, timeout: Duration) -> Result<Reply, NotRun> {
        let Some(guest) = &self.guest else { return Err(NotRun::NotTaken) };
        let output = self.own_output(invocation);
        let ran = guest.call(invocation, timeout, output.clone()).await.map_err(NotRun::Lack)?;
        let Ran { ending, output: result, fault, start, peak } = ran;
        let log = lock(&output).take();
        self.printed = Some((output, Some(peak)));
        let birth = Some(Birth { kind: Start::Cold, start, init: Duration::ZERO });
        Ok(Reply { birth, healthy: true, ..self.answered(ending, result, fault, log) })
    }

    /// Starts the process of an invocation that has its own.
    async fn begin(&mut self, invocation: &Invocation, timeout: Duration) -> Result<Option<Birth>, NoStart> {
        let Some(program) = &self.program else { return Ok(None) };
        let begun = Instant::now();
        let started = engine::command(&self.ground, &self.function, &self.version, program, invocation, timeout);
        self.conversation = Some(Box::pin(started).await?.into());
        Ok(Some(Birth { kind: Start::Cold, start: begun.elapsed(), init: Duration::ZERO }))
    }

    /// After an invocation: the two lines that AWS prints, and the end of a process that was there for it alone.
    pub(crate) fn finish(&mut self, invocation: &Invocation, run: Duration, born: Option<Birth>) {
        let id = invocation.request_id;
        let printed = self.printed.take();
        let printed = printed.as_ref().map(|(output, peak)| (lock(output), *peak));
        let output = match (&self.conversation, &printed) {
            (Some(conversation), _) => &conversation.output,
            (None, Some((output, _))) => &**output,
            (None, None) => return,
        };
        output.platform(|| format!("END RequestId: {id}"));
        output.platform(|| {
            let ms = run.as_secs_f64() * 1e3;
            let init = born.map_or(String::new(), |b| {
                format!("\tInit Duration: {:.2} ms", (b.start + b.init).as_secs_f64() * 1e3)
            });
            let memory = self.version.memory;
            // asks the kernel, so only for those who listen
            let own = || self.group()?.peak_memory();
            let peak = printed.as_ref().and_then(|(_, peak)| *peak).or_else(own);
            let peak = peak.map_or(String::new(), |bytes| {
                format!("\tMax Memory Used: {} MB", bytes.div_ceil(1 << 20))
            });
            format!(
                "REPORT RequestId: {id}\tDuration: {ms:.2} ms\tBilled Duration: {:.0} ms\tMemory Size: {memory} MB{peak}{init}",
                ms.ceil()
            )
        });
        if !self.keeps()
            && let Some(conversation) = self.conversation.take()
        {
            self.peak = conversation.group().peak_memory();
        }
    }

    /// Whether it can be asked: the process is there, by the kernel.
    pub(crate) fn is_alive(&self) -> bool {
        self.group().is_none_or(|group| !group.is_gone())
    }

    async fn exchange(&mut self, limit: Duration, pieces: Pieces<'_>) -> Result<Answer, Silence> {
        match &mut self.conversation {
            Some(conversation) => conversation.exchange(time::Instant::now() + limit, pieces).await,
            None => Err(Silence::NotTaken),
        }
    }

    fn log(&mut self) -> String {
        self.conversation.as_mut().map_or(String::new(), |conversation| conversation.log())
    }

    fn answered(&self, ending: Ending, output: Bytes, fault: Option<Fault>, log: String) -> Reply {
        if ending == Ending::Ok && output.len() > self.limit {
            let fault = too_large(output.len(), self.limit);
            return failed(Ending::TooLarge, fault, log, true);
        }
        if !self.keeps()
            && ending == Ending::Error
            && let Some(mut fault) = fault
        {
            // a program's last words on stderr say more than its exit code
            if let Some(last) = last_line(&log).filter(|_| fault.kind == EXITED) {
                fault.message = format!("{}: {}", fault.message, last.trim());
            }
            return failed(ending, fault, log, true);
        }
        let mut fault = fault.or_else(|| (ending != Ending::Ok).then(|| fault_of(&output)));
        if let Some(fault) = &mut fault
            && ending != Ending::Error
        {
            // what the handler did not raise, it does not decide on
            fault.retry = true;
        }
        // a process that ran out of memory once has little left; one that says that it crashes is about to end
        let healthy = !matches!(ending, Ending::Oom | Ending::Crash);
        Reply { ending, output, fault, log, healthy, birth: None }
    }

    /// Says of an invocation what nobody else can say.
    fn conclude(&self, reply: &mut Reply, invocation: &Invocation) {
        self.explain(reply, Some(CRASHED));
        reply.log.extend(invocation.outlet.as_ref().and_then(|outlet| streamed::note(outlet.sent())));
    }

    /// Says of a failure what the instance has used up, which the function may not know or not tell; else what
    /// to do about a process that has `crashed`.
    fn explain(&self, reply: &mut Reply, crashed: Option<&str>) {
        let Some(fault) = &mut reply.fault else { return };
        let crashed = crashed.filter(|_| reply.ending == Ending::Crash && fault.kind == EXITED);
        let exhausted = self.group().and_then(|group| group.exhausted());
        let Some(why) = exhausted.or_else(|| crashed.map(str::to_owned)) else { return };
        let is_ours = reply.output == error_object(fault);
        fault.message = format!("{}; {why}", fault.message);
        if is_ours {
            reply.output = error_object(fault);
        } else {
            // what the function answers is passed on as it is
            reply.log.extend([why.as_str(), "\n"]);
        }
    }

    /// Ends the process, which cannot be used any more, and says why.
    async fn without_answer(&mut self, silence: Silence, limit: Duration) -> Reply {
        let memory = u64::from(self.version.memory) << 20;
        let Some(conversation) = &mut self.conversation else {
            let fault = crate::fault::fault("Runtime.ExitError", "there is no process");
            return failed(Ending::Crash, fault, String::new(), false);
        };
        let (ending, fault) = conversation.end(silence, limit, memory, self.limit).await;
        failed(ending, fault, conversation.log(), false)
    }
}

fn failed(ending: Ending, fault: Fault, log: String, healthy: bool) -> Reply {
    Reply { ending, output: error_object(&fault), fault: Some(fault), log, healthy, birth: None }
}
