//! Synchronous calls: from whoever waits for an answer straight to the worker of this node, through memory, and straight back.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use crate::{
    Event, Name, Outcome,
    payload::Format,
    sink::{Call, CallError},
    streamed::Outlet,
    target::Qualifier,
};

/// How long a call waits for a free instance before it is told that all are busy.
pub const QUEUE_WAIT: Duration = Duration::from_secs(1);
/// What a call may take beyond its function's timeout: queueing and a cold start.
pub const OVERHEAD: Duration = Duration::from_secs(15);

/// The calling end. Clones share it.
#[derive(Clone)]
pub(crate) struct Caller(mpsc::UnboundedSender<Called>);

/// The answering end: the calls for this node.
pub struct Calls(mpsc::UnboundedReceiver<Called>);

/// One call in a worker's hands. Dropping it without an answer says that nobody knows what became of it.
pub struct Called {
    pub event: Arc<Event>,
    pub function: Name,
    /// Which version of it; none: what serves.
    pub version: Option<Qualifier>,
    pub format: Format,
    /// Where the answer may go as it comes.
    pub outlet: Option<Outlet>,
    reply: oneshot::Sender<Result<Outcome, Refusal>>,
}

/// Why a worker did not run a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Busy,
    /// The function's concurrency is 0.
    Stopped,
    Unknown,
}

/// Both ends.
pub(crate) fn channel() -> (Caller, Calls) {
    let (caller, calls) = mpsc::unbounded_channel();
    (Caller(caller), Calls(calls))
}

impl Caller {
    /// Runs `call.function` with `event`, waiting at most `wait`. Dropping the future does not stop the invocation.
    pub(crate) async fn call(&self, event: &Arc<Event>, call: &Call, wait: Duration) -> Result<Outcome, CallError> {
        let function = call.function.clone();
        let (reply, answer) = oneshot::channel();
        let called = Called {
            event: event.clone(),
            function: function.clone(),
            version: call.version.clone(),
            format: call.format,
            outlet: call.outlet.clone(),
            reply,
        };
        if self.0.send(called).is_err() {
            return Err(CallError::NoNode { function });
        }
        match tokio::time::timeout(wait, answer).await {
            Ok(Ok(Ok(outcome))) => Ok(outcome),
            Ok(Ok(Err(Refusal::Busy))) => Err(CallError::Busy { function }),
            Ok(Ok(Err(Refusal::Stopped))) => Err(CallError::Stopped { function }),
            Ok(Ok(Err(Refusal::Unknown))) => Err(CallError::NoNode { function }),
            Ok(Err(_)) => Err(CallError::Vanished { function }),
            Err(_) => Err(CallError::TimedOut { function }),
        }
    }
}

impl Calls {
    /// The next call; none once nobody can call any more.
    pub async fn next(&mut self) -> Option<Called> {
        self.0.recv().await
    }
}

impl Called {
    pub fn answer(self, answer: Result<Outcome, Refusal>) {
        // the event is its caller's alone again before the caller goes on
        drop(self.event);
        // who does not wait any more is not told
        let _ = self.reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outcome::Ending, sink::LogMode};

    fn call() -> Call {
        let function = "f".parse().unwrap();
        Call { function, version: None, format: Format::Body, timeout: None, log: LogMode::Off, outlet: None }
    }

    fn event() -> Arc<Event> {
        Arc::new(Event::new("/test", "test", "data"))
    }

    #[tokio::test]
    async fn a_call_is_answered_or_refused_by_the_worker() {
        let (caller, mut calls) = channel();
        let worker = tokio::spawn(async move {
            for refusal in [None, Some(Refusal::Busy), Some(Refusal::Stopped), Some(Refusal::Unknown)] {
                let called = calls.next().await.unwrap();
                assert_eq!((called.function.as_str(), &called.event.data[..]), ("f", &b"data"[..]));
                called.answer(refusal.map_or_else(|| Ok(Outcome::failure(Ending::Error, "A", "b")), Err));
            }
        });
        let function = call().function;
        let ask = async || caller.call(&event(), &call(), Duration::from_mins(1)).await;
        assert!(ask().await.is_ok());
        assert_eq!(ask().await, Err(CallError::Busy { function: function.clone() }));
        assert_eq!(ask().await, Err(CallError::Stopped { function: function.clone() }));
        assert_eq!(ask().await, Err(CallError::NoNode { function }));
        worker.await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_is_not_taken_or_not_answered_is_told_so() {
        let ((caller, mut calls), function) = (channel(), call().function);
        let ask = async |wait| caller.call(&event(), &call(), wait).await;
        let minute = Duration::from_mins(1);
        assert_eq!(ask(Duration::ZERO).await, Err(CallError::TimedOut { function: function.clone() }));
        drop(calls.next().await);
        let dropped = tokio::join!(ask(minute), async { drop(calls.next().await) }).0;
        assert_eq!(dropped, Err(CallError::Vanished { function: function.clone() }));
        drop(calls);
        assert_eq!(ask(minute).await, Err(CallError::NoNode { function }), "no worker any more");
    }
}
