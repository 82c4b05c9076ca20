//! Functions in WebAssembly: modules of WASI preview 1 and components of preview 2 that are commands, which get the event on
//! stdin and print the result as any command, and components that answer HTTP.
//!
//! They run inside this process. Each invocation has an instance of its own, made from code that was compiled when it was
//! deployed, and ends with it; it can reach what its function's config names and nothing else.

// From a file to machine code, kept on the disk.
mod compile;
// What all of them share: the engine, its limits, its clock and its threads.
mod host;
// What interrupts those that compute.
mod clock;
// A version's code, linked.
mod module;
// What an instance may use and reach.
mod reach;
// What goes in and comes out of it.
mod streams;
// Events as requests, responses as results.
mod http;
// One invocation.
mod call;

use std::{path::PathBuf, sync::Arc};

use bus::Name;

use crate::{
    command,
    config::{Folders, Peer},
    ground::{Ground, NoLaunch},
    version::Version,
};

pub(crate) use host::Host;

/// Whether this binary can run WebAssembly.
pub(crate) const BUILT: bool = true;

/// What the invocations of an instance of the pool are made from.
pub(crate) struct Guest {
    module: Arc<module::Module>,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    folders: Folders,
    /// Where it may send requests to.
    hosts: Arc<[Peer]>,
    /// Bytes.
    memory: usize,
    /// Largest result.
    limit: usize,
}

/// Why code cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoModule {
    #[error(transparent)]
    Launch(#[from] NoLaunch),
    #[error("{file} cannot be read: {source}; put it there, or correct `handler`", file = file.display())]
    Unread { file: PathBuf, source: std::io::Error },
    #[error("{file} is no WebAssembly; build it for wasm32-wasip1 or wasm32-wasip2, or correct `handler`", file = .0.display())]
    NotWasm(PathBuf),
    #[error("{file} cannot be compiled: {reason}", file = file.display())]
    NotCompiled { file: PathBuf, reason: String },
    #[error(
        "{file} cannot be linked: {reason}; fnbus has WASI 0.1 and 0.2 alone: build it for wasm32-wasip1 or wasm32-wasip2",
        file = file.display()
    )]
    NotLinked { file: PathBuf, reason: String },
    #[error("{file} is a library: it exports {lacks}; build a program, one with `main`", file = file.display())]
    NoEntry { file: PathBuf, lacks: &'static str },
    #[error("{file} has {needs} MiB of memory when it starts, more than its `memory`; raise that", file = file.display())]
    Memory { file: PathBuf, needs: u64 },
    #[error("{path}, one of its `folders`, is a file; WebAssembly is given folders alone: name the one it is in", path = .0.display())]
    NoFolder(PathBuf),
    #[error("`{0}` is not a command line; is there a quote that is not closed?")]
    Malformed(String),
    #[error("WebAssembly cannot be run on this machine: {0}")]
    NoEngine(String),
}

impl NoModule {
    /// As `errorType` says it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Launch(_) | Self::Memory { .. } | Self::NoFolder(_) => "Runtime.InvalidConfiguration",
            Self::NoEngine(_) => "Runtime.StartError",
            _ => "Runtime.InvalidEntrypoint",
        }
    }
}

impl Guest {
    /// Compiles and links the code, as far as nobody did. Compiling a large module takes seconds.
    pub(crate) async fn new(ground: &Arc<Ground>, function: &Name, version: &Version) -> Result<Self, NoModule> {
        let malformed = || NoModule::Malformed(version.handler.clone());
        let arguments = command::words(&version.handler).ok_or_else(malformed)?;
        ground.check_folders(version)?;
        if let Some(file) = version.folders.all().find(|path| !path.is_dir()) {
            return Err(NoModule::NoFolder(file.clone()));
        }
        let env = ground.told(function, version)?;
        let module = ground.wasm.module(ground, version, arguments.first().map_or("", String::as_str)).await?;
        Ok(Self {
            module,
            arguments,
            env,
            folders: version.folders.clone(),
            hosts: version.hosts.as_slice().into(),
            memory: (version.memory as usize) << 20,
            limit: ground.settings.payload_limit,
        })
    }
}
