//! What all functions in WebAssembly share: the engine with its limits, the clock that interrupts them, and the threads they
//! run on.
//!
//! These threads are their own: a function that computes keeps a thread busy until the next tick, and would hold up
//! connections on the threads of the node ([adr/0026](../../../docs/adr/0026-wasm-in-the-process.md)).

use std::{
    collections::{HashMap, HashSet},
    fmt, fs,
    path::Path,
    sync::{Arc, Mutex, OnceLock, Weak},
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, component};

use super::{
    NoModule,
    clock::Clock,
    compile::{Kept, Kind},
    module::Module,
    reach::State,
};
use crate::{ground::Ground, lock, version::Version};

/// A function that computes gives way to others this often, and can be stopped.
const TICK: Duration = Duration::from_millis(2);
/// Memories, and instances with a stack, there may be at once: room for them is reserved, and taken as they are used.
const AT_ONCE: u32 = 1000;
/// A component may be made of so many modules.
pub(super) const PARTS: u32 = 100;
/// Memories and tables of one instance.
pub(super) const MEMORIES: u32 = 20;
pub(super) const TABLES: u32 = 100;
/// Elements of a table: 8 bytes each.
pub(super) const ELEMENTS: usize = 100_000;
/// Of each memory and table so many bytes are not given back to the kernel after an invocation, but set back for the next:
/// of what was written, where the kernel tells that (6.7), else the first.
const RESIDENT: usize = 256 << 10;

/// Made when the first function asks for it.
#[derive(Debug)]
pub(crate) struct Host {
    kept: Kept,
    running: OnceLock<Result<Arc<Running>, String>>,
    /// What is in use, by the version.
    modules: Mutex<HashMap<Arc<str>, Weak<Module>>>,
    /// Compiled code that was used since the start.
    used: Mutex<HashSet<String>>,
}

/// What is there once one did.
pub(super) struct Running {
    pub(super) engine: Engine,
    pub(super) modules: wasmtime::Linker<State>,
    pub(super) components: component::Linker<State>,
    pub(super) clock: Clock,
    /// None as soon as it is to end.
    threads: Option<Runtime>,
}

impl Host {
    pub(crate) fn new(data: &Path) -> Self {
        Self { kept: Kept::new(data), running: OnceLock::new(), modules: Mutex::default(), used: Mutex::default() }
    }

    /// The module of a version: the one that is in use, else it is loaded.
    pub(super) async fn module(
        &self,
        ground: &Arc<Ground>,
        version: &Version,
        name: &str,
    ) -> Result<Arc<Module>, NoModule> {
        if let Some(module) = lock(&self.modules).get(&version.id).and_then(Weak::upgrade) {
            return Ok(module);
        }
        let (ground, version, name) = (ground.clone(), version.clone(), name.to_owned());
        let loaded = tokio::task::spawn_blocking(move || ground.wasm.load(&version, &name)).await;
        loaded.unwrap_or_else(|panic| Err(NoModule::NoEngine(panic.to_string())))
    }

    fn load(&self, version: &Version, name: &str) -> Result<Arc<Module>, NoModule> {
        let running = self.running()?;
        let (file, shown) = (version.code.join(name), version.source.join(name));
        let wasm = fs::read(&file).map_err(|source| NoModule::Unread { file: shown.clone(), source })?;
        let kind = Kind::of(&wasm).ok_or_else(|| NoModule::NotWasm(shown.clone()))?;
        let (code, kept) = self
            .kept
            .compiled(&running.engine, kind, &wasm)
            .map_err(|error| NoModule::NotCompiled { file: shown.clone(), reason: format!("{error:#}") })?;
        lock(&self.used).insert(kept);
        let module = Arc::new(Module::link(running, kind, &code, &shown, version.memory)?);
        let mut modules = lock(&self.modules);
        modules.retain(|_, module| module.strong_count() > 0);
        modules.insert(version.id.clone(), Arc::downgrade(&module));
        Ok(module)
    }

    fn running(&self) -> Result<&Arc<Running>, NoModule> {
        let running = self.running.get_or_init(|| Running::start().map_err(|error| format!("{error:#}")));
        running.as_ref().map_err(|reason| NoModule::NoEngine(reason.clone()))
    }

    /// Removes compiled code that nobody has used since the start. Blocks.
    pub(crate) fn collect(&self) {
        let used = lock(&self.used);
        self.kept.collect(|name| used.contains(name));
    }
}

impl Running {
    fn start() -> wasmtime::Result<Arc<Self>> {
        let engine = engine(true).or_else(|error| {
            debug!(%error, "no room for instances is reserved; each is given its own");
            engine(false)
        })?;
        let mut modules = wasmtime::Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, |state: &mut State| &mut state.wasi)?;
        let mut components = component::Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut components)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut components)?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = Builder::new_multi_thread().worker_threads(cores).thread_name("wasm").enable_all().build()?;
        let clock = Clock::start(&engine, TICK)?;
        Ok(Arc::new(Self { engine, modules, components, clock, threads: Some(threads) }))
    }

    /// Runs it on the threads of WebAssembly; none when they end.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        run: impl Future<Output = T> + Send + 'static,
    ) -> Option<AbortOnDropHandle<T>> {
        self.threads.as_ref().map(|threads| AbortOnDropHandle::new(threads.spawn(run)))
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Running")
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Module")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // dropped among tasks, where nothing may be waited for
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// The engine. Whether room is reserved has no part in what is compiled.
fn engine(reserved: bool) -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    if reserved {
        let mut room = PoolingAllocationConfig::new();
        room.total_memories(AT_ONCE)
            .total_stacks(AT_ONCE)
            .total_component_instances(AT_ONCE)
            .total_core_instances(4 * AT_ONCE)
            .total_tables(2 * AT_ONCE)
            .max_core_instances_per_component(PARTS)
            .max_memories_per_component(MEMORIES)
            .max_memories_per_module(MEMORIES)
            .max_tables_per_component(TABLES)
            .max_tables_per_module(TABLES)
            .table_elements(ELEMENTS)
            .linear_memory_keep_resident(RESIDENT)
            .table_keep_resident(RESIDENT)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(room));
    }
    Engine::new(&config)
}
