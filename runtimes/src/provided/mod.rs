//! Programs that bring their own runtime: they speak the Lambda Runtime API (`2018-06-01`) to a listener that is theirs
//! alone, so an answer can never be another instance's.

// The HTTP side.
mod http;
// Whose a connection is.
mod peer;
// Whose turn it is: pure.
mod talk;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    net::TcpListener,
    sync::{Notify, SetOnce},
};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::{config::RuntimeKind, dialogue::Answer, lease::Invocation, lock, process::Group};
use talk::{Talk, Turn};

/// What AWS allows over its round number.
const ALLOWANCE: usize = 100;

/// Largest output of an instance.
pub(crate) fn limit(runtime: RuntimeKind, payload_limit: usize) -> usize {
    if runtime == RuntimeKind::Provided { payload_limit + ALLOWANCE } else { payload_limit }
}

/// The listener of one instance. Dropped, it refuses.
pub(crate) struct Api {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

/// What the instance and its connections share.
struct Shared {
    talk: Mutex<Talk>,
    /// There is a turn to be taken.
    offered: Notify,
    /// The process has said something.
    said: Notify,
    /// Whose processes may ask, none: anybody's; connections wait until it is known.
    owner: SetOnce<Option<Arc<Group>>>,
    arn: String,
    limit: usize,
    /// Invocations that run at once.
    slots: u32,
}

impl Api {
    /// `slots`: invocations that run at once.
    pub(crate) async fn open(arn: String, payload_limit: usize, slots: u32) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            talk: Mutex::new(Talk::new(slots > 1)),
            offered: Notify::new(),
            said: Notify::new(),
            owner: SetOnce::new(),
            arn,
            limit: limit(RuntimeKind::Provided, payload_limit),
            slots,
        });
        let server = AbortOnDropHandle::new(tokio::spawn(http::serve(listener, shared.clone())));
        Ok(Self { address, shared, _server: server })
    }

    /// Answers this process and those it starts; none: whoever asks.
    pub(crate) fn belongs_to(&self, group: Option<Arc<Group>>) {
        let _ = self.shared.owner.set(group);
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins an invocation: it is there for the next `next`.
    pub(crate) fn ask(&self, invocation: &Invocation, timeout: Duration) {
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + timeout;
        let id = invocation.request_id;
        let trace = trace_id(invocation.trace.as_deref().unwrap_or_default(), id);
        lock(&self.shared.talk).offer(Turn {
            request: id,
            id: id.to_string(),
            deadline: deadline.as_millis() as u64,
            trace,
            payload: invocation.payload.clone(),
            client_context: invocation.client_context.clone(),
            outlet: invocation.outlet.clone(),
        });
        self.shared.offered.notify_waiters();
    }

    /// Waits for what the process says. May be dropped at any time.
    pub(crate) async fn hear(&self) -> (Uuid, Answer) {
        loop {
            let said = self.shared.said.notified();
            if let Some(answer) = self.last_words() {
                return answer;
            }
            said.await;
        }
    }

    pub(crate) fn last_words(&self) -> Option<(Uuid, Answer)> {
        lock(&self.shared.talk).hear()
    }

    /// Whether the invocation was never taken.
    pub(crate) fn is_unread(&self) -> bool {
        lock(&self.shared.talk).is_untaken()
    }

    /// The same of one of several.
    pub(crate) fn is_unread_of(&self, request: Uuid) -> bool {
        lock(&self.shared.talk).is_untaken_of(request)
    }

    /// Nobody waits for its answer any more.
    pub(crate) fn forget(&self, request: Uuid) {
        lock(&self.shared.talk).forget(request);
    }
}

/// X-Ray's form of a `traceparent`. What is none is passed on; without one, one is made that nobody samples.
pub(crate) fn trace_id(traceparent: &str, request: Uuid) -> String {
    let parts: Vec<&str> = traceparent.split('-').collect();
    if let [_, trace, parent, flags] = parts[..]
        && trace.len() == 32
        && trace.is_ascii()
    {
        let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
        return format!("Root=1-{}-{};Parent={parent};Sampled={}", &trace[..8], &trace[8..], u8::from(sampled));
    }
    if !traceparent.is_empty() {
        return traceparent.to_owned();
    }
    let (id, seconds) = (request.simple().to_string(), SystemTime::now().duration_since(UNIX_EPOCH));
    let seconds = seconds.unwrap_or_default().as_secs();
    format!("Root=1-{seconds:08x}-{};Parent={};Sampled=0", &id[8..], &id[16..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_told_in_the_form_of_x_ray() {
        let id = Uuid::from_u128(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
        assert_eq!(
            trace_id("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", id),
            "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"
        );
        assert_eq!(trace_id("Root=1-2-3", id), "Root=1-2-3");
        let made = trace_id("", id);
        assert!(
            made.starts_with("Root=1-")
                && made.ends_with("-0405060708090a0b0c0d0e0f;Parent=08090a0b0c0d0e0f;Sampled=0"),
            "{made}"
        );
    }
}
