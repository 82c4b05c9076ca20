//! What an instance may use and reach: so much memory, the variables of its function, its folders and, in requests of HTTP,
//! its hosts. There is no other network, and nothing of this process.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bus::presence::LogStream;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;
use wasmtime::ResourceLimiter;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView, p1::WasiP1Ctx, p2::pipe::MemoryInputPipe};

use wasmtime_wasi_http::{RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::{Guest, host, streams::Sink};
use crate::{config::Peer, lock, output::Output};

/// What goes with an instance.
pub(super) struct State {
    pub(super) wasi: WasiP1Ctx,
    pub(super) limits: Limits,
    http: WasiHttpCtx,
    gate: Gate,
}

/// How an invocation's streams are laid.
pub(super) struct Streams {
    pub(super) stdin: Bytes,
    pub(super) stdout: Sink,
    pub(super) output: Arc<Mutex<Output>>,
}

/// Through which requests go out.
struct Gate {
    hosts: Arc<[Peer]>,
    /// Says what was refused.
    output: Arc<Mutex<Output>>,
}

/// Holds an instance to its memory.
pub(super) struct Limits {
    /// Bytes, over all of its memories.
    memory: usize,
    pub(super) use_: Arc<Use>,
}

/// What of it was used.
#[derive(Default)]
pub(super) struct Use {
    /// Bytes; memory never shrinks.
    memory: AtomicUsize,
    /// It asked for more than it may have.
    denied: AtomicBool,
}

impl Use {
    pub(super) fn peak(&self) -> u64 {
        self.memory.load(Ordering::Relaxed) as u64
    }

    pub(super) fn was_denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }
}

impl State {
    /// Opens the folders. `more` are variables of this invocation.
    pub(super) fn new(guest: &Guest, more: &[(String, String)], streams: Streams) -> wasmtime::Result<Self> {
        let mut wasi = WasiCtx::builder();
        let Streams { stdin, stdout, output } = streams;
        let stderr = Sink::Lines(output.clone(), LogStream::Stderr);
        wasi.stdin(MemoryInputPipe::new(stdin)).stdout(stdout).stderr(stderr);
        wasi.args(&guest.arguments).envs(&guest.env).envs(more);
        wasi.allow_tcp(false).allow_udp(false);
        for (folders, access) in [(&guest.folders.read, FsPerms::ReadOnly), (&guest.folders.write, FsPerms::ReadWrite)]
        {
            for folder in folders {
                wasi.preopened_dir(folder, folder.to_string_lossy(), access)?;
            }
        }
        let limits = Limits { memory: guest.memory, use_: Arc::default() };
        let gate = Gate { hosts: guest.hosts.clone(), output };
        Ok(Self { wasi: wasi.build_p1(), limits, http: WasiHttpCtx::new(), gate })
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.gate, table: self.wasi.ctx().table, ctx: &mut self.http }
    }
}

/// What wasi:http calls a request that is under way.
type Sent = Box<dyn Future<Output = Result<(hyper::Response<WasiBody>, Ended), wasmtime_wasi_http::Error>> + Send>;
type Ended = Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>;

impl WasiHttpHooks for Gate {
    fn send_request(&mut self, request: Request<WasiBody>, options: Option<RequestOptions>, _: Ended) -> Sent {
        let (asked, scheme) = (request.uri().authority(), request.uri().scheme());
        if !asked.is_some_and(|asked| self.hosts.iter().any(|host| host.is(asked, scheme))) {
            let asked = asked.map_or("nobody", |asked| asked.as_str());
            let said = format!("fnbus: a request to {asked} was refused; `hosts` of the function does not name it\n");
            lock(&self.output).hear(LogStream::Stderr, said.as_bytes());
            return Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) });
        }
        Box::new(async move {
            let (response, ends) = wasmtime_wasi_http::default_send_request(request, options).await?;
            Ok((response.map(BodyExt::boxed_unsync), Box::new(ends) as Ended))
        })
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.use_.memory.load(Ordering::Relaxed) + desired.saturating_sub(current);
        let fits = used <= self.memory;
        if fits {
            self.use_.memory.store(used, Ordering::Relaxed);
        } else {
            self.use_.denied.store(true, Ordering::Relaxed);
        }
        Ok(fits)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= host::ELEMENTS)
    }

    fn instances(&self) -> usize {
        host::PARTS as usize
    }

    fn tables(&self) -> usize {
        host::TABLES as usize
    }

    fn memories(&self) -> usize {
        host::MEMORIES as usize
    }
}
