//! A version's code: loaded, and linked with what it may ask for, so that an instance is made in microseconds.

use std::{path::Path, sync::Arc};

use wasmtime::{InstancePre, component::Component};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::{NoModule, compile::Kind, host::Running, reach::State};

/// Bytes of a page of WebAssembly's memory.
const PAGE: u64 = 64 << 10;

pub(super) struct Module {
    pub(super) entry: Entry,
    pub(super) running: Arc<Running>,
}

/// Where an invocation begins.
pub(super) enum Entry {
    /// `_start` of a module.
    Start(InstancePre<State>),
    /// `wasi:cli/run` of a component.
    Run(CommandPre<State>),
    /// `wasi:http/incoming-handler` of a component.
    Handle(ProxyPre<State>),
}

impl Module {
    /// Links what was compiled; `file` is where its author knows it.
    pub(super) fn link(
        running: &Arc<Running>,
        kind: Kind,
        code: &[u8],
        file: &Path,
        memory: u32,
    ) -> Result<Self, NoModule> {
        let engine = &running.engine;
        let broken =
            |error: wasmtime::Error| NoModule::NotCompiled { file: file.to_owned(), reason: format!("{error:#}") };
        let unlinked =
            |error: wasmtime::Error| NoModule::NotLinked { file: file.to_owned(), reason: format!("{error:#}") };
        let library = |lacks| NoModule::NoEntry { file: file.to_owned(), lacks };
        let (entry, needs) = match kind {
            Kind::Module => {
                // SAFETY: this process has just compiled it, or has read the whole of what this user once compiled with an
                // engine of the same version and settings: `compile.rs` answers for that.
                let module = unsafe { wasmtime::Module::deserialize(engine, code) }.map_err(broken)?;
                if module.get_export("_start").is_none_or(|start| start.func().is_none()) {
                    return Err(library("no `_start`"));
                }
                let needs = module.resources_required();
                let linked = running.modules.instantiate_pre(&module).map_err(unlinked)?;
                (Entry::Start(linked), Some(needs))
            }
            Kind::Component => {
                // SAFETY: as above.
                let component = unsafe { Component::deserialize(engine, code) }.map_err(broken)?;
                let needs = component.resources_required();
                let linked = running.components.instantiate_pre(&component).map_err(unlinked)?;
                let entry = match ProxyPre::new(linked.clone()) {
                    Ok(handle) => Entry::Handle(handle),
                    Err(_) => CommandPre::new(linked)
                        .map(Entry::Run)
                        .map_err(|_| library("neither `wasi:cli/run` nor `wasi:http/incoming-handler`"))?,
                };
                (entry, needs)
            }
        };
        let needs = needs.and_then(|needs| needs.max_initial_memory_size).unwrap_or(0) * PAGE;
        if needs > u64::from(memory) << 20 {
            return Err(NoModule::Memory { file: file.to_owned(), needs: needs.div_ceil(1 << 20) });
        }
        Ok(Self { entry, running: running.clone() })
    }
}
