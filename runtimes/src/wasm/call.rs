//! One invocation: an instance is made, runs and is gone.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bus::{
    outcome::{Ending, Fault, error_object},
    presence::LogStream,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio::time;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi::I32Exit;

use super::{
    Guest,
    http::{self, Response, Shape, Stop},
    module::{Entry, Module},
    reach::{State, Streams, Use},
    streams::{Printed, Sink},
};
use crate::{
    command::failed_with,
    engine::invocation_env,
    fault::{Lack, fault, timed_out, too_large},
    instance::Ran,
    lease::Invocation,
    lock,
    output::Output,
};

/// Beside its payload the host may copy so much for an instance in one call of it.
const COPIED: usize = 2 << 20;

/// How far an instance came.
struct Course {
    start: Duration,
    end: Result<End, wasmtime::Error>,
}

enum End {
    Exited(i32),
    Answered(Result<Response, Stop>),
}

/// What is asked of a component that answers HTTP, and how its response is to be given.
type Question = (Request<Full<Bytes>>, Shape);

impl Guest {
    /// Runs one invocation; what it prints beside its result goes to `output`. An error when there is no room for an instance
    /// now. Dropping the future ends it.
    pub(crate) async fn call(
        &self,
        invocation: &Invocation,
        timeout: Duration,
        output: Arc<Mutex<Output>>,
    ) -> Result<Ran, Lack> {
        let failed = |ending, fault: Fault, start, peak| {
            let output = error_object(&fault);
            Ran { ending, output, fault: Some(fault), start, peak }
        };
        let question = match self.question(invocation) {
            Ok(question) => question,
            Err(fault) => return Ok(failed(Ending::Error, fault, Duration::ZERO, 0)),
        };
        let shape = question.as_ref().map(|(_, shape)| *shape);
        let printed = Arc::new(Mutex::new(Printed { limit: self.limit, ..Printed::default() }));
        let (stdin, stdout) = match question {
            Some(_) => (Bytes::new(), Sink::Lines(output.clone(), LogStream::Stdout)),
            None => (invocation.payload.bytes.clone(), Sink::Result(printed.clone())),
        };
        let streams = Streams { stdin, stdout, output: output.clone() };
        let state = match State::new(self, &invocation_env(invocation, timeout), streams) {
            Ok(state) => state,
            Err(error) => {
                let fault = fault("Runtime.InvalidConfiguration", format!("its folders cannot be opened: {error:#}"));
                return Ok(failed(Ending::InitError, fault, Duration::ZERO, 0));
            }
        };
        let used = state.limits.use_.clone();
        let running = &self.module.running;
        let _ticking = running.clock.tick();
        let course = run(self.module.clone(), state, question.map(|(request, _)| request), self.limit);
        let Some(course) = running.spawn(time::timeout(timeout, course)) else {
            return Err(Lack { reason: "the node ends".into(), is_limit: false });
        };
        let Course { start, end } = match course.await {
            Ok(Ok(course)) => course,
            Ok(Err(_)) => return Ok(failed(Ending::Timeout, timed_out(timeout), Duration::ZERO, used.peak())),
            Err(_) => {
                let fault = fault("Runtime.HostError", "fnbus failed in something the function asked for; report this");
                return Ok(failed(Ending::Crash, fault, Duration::ZERO, used.peak()));
            }
        };
        let Printed { bytes, size, limit } = std::mem::take(&mut *lock(&printed));
        let result = match end {
            _ if size > limit => Err((Ending::TooLarge, too_large(size, limit))),
            Ok(End::Exited(0)) => Ok(bytes.freeze()),
            Ok(End::Exited(code)) => Err((Ending::Error, failed_with(code))),
            Ok(End::Answered(Ok(response))) => {
                response.result(shape.unwrap_or(Shape::Body)).map_err(|fault| (Ending::Error, fault))
            }
            Ok(End::Answered(Err(stop))) => match http::ended(stop, limit) {
                Ok(ended) => Err(ended),
                Err(error) => Err(broken(&error, &used, &output)?),
            },
            Err(error) => Err(broken(&error, &used, &output)?),
        };
        let peak = used.peak();
        Ok(match result {
            Ok(output) => Ran { ending: Ending::Ok, output, fault: None, start, peak },
            Err((ending, fault)) => failed(ending, fault, start, peak),
        })
    }

    /// None where the code is a command.
    fn question(&self, invocation: &Invocation) -> Result<Option<Question>, Fault> {
        match self.module.entry {
            Entry::Handle(_) => http::request(&invocation.payload, invocation.trace.as_deref()).map(Some),
            Entry::Start(_) | Entry::Run(_) => Ok(None),
        }
    }
}

async fn run(module: Arc<Module>, state: State, request: Option<Request<Full<Bytes>>>, limit: usize) -> Course {
    let begun = Instant::now();
    let mut store = Store::new(&module.running.engine, state);
    store.limiter(|state| &mut state.limits);
    store.set_hostcall_fuel(limit + COPIED);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    let mut start = None;
    let end = async {
        match (&module.entry, request) {
            (Entry::Start(linked), _) => {
                let instance = linked.instantiate_async(&mut store).await?;
                start = Some(begun.elapsed());
                let entry = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                entry.call_async(&mut store, ()).await.map(|()| End::Exited(0))
            }
            (Entry::Handle(linked), Some(request)) => {
                let component = linked.instantiate_async(&mut store).await?;
                start = Some(begun.elapsed());
                Ok(End::Answered(http::handle(store, component, request, limit).await))
            }
            (Entry::Handle(_), None) => Ok(End::Answered(Err(Stop::Silent))),
            (Entry::Run(linked), _) => {
                let command = linked.instantiate_async(&mut store).await?;
                start = Some(begun.elapsed());
                let ended = command.wasi_cli_run().call_run(&mut store).await?;
                Ok(End::Exited(i32::from(ended.is_err())))
            }
        }
    };
    let end = end.await.or_else(|error| match error.downcast_ref::<I32Exit>() {
        Some(exit) => Ok(End::Exited(exit.0)),
        None => Err(error),
    });
    Course { start: start.unwrap_or_else(|| begun.elapsed()), end }
}

/// What ended an instance that neither returned nor exited. Where it was is told to its log. An error when there was no room
/// for it.
fn broken(error: &wasmtime::Error, used: &Use, output: &Mutex<Output>) -> Result<(Ending, Fault), Lack> {
    if let Some(full) = error.downcast_ref::<PoolConcurrencyLimitError>() {
        return Err(Lack { reason: full.to_string(), is_limit: false });
    }
    if used.was_denied() {
        return Ok((Ending::Oom, fault("Runtime.OutOfMemory", "the function ran out of memory; raise its `memory`")));
    }
    let reason = error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), ToString::to_string);
    lock(output).hear(LogStream::Stderr, format!("{error:?}\n").as_bytes());
    Ok((Ending::Crash, fault("Runtime.Trap", format!("the function was ended: {reason}; its log says where"))))
}
