//! In place of WebAssembly, in a binary that was built without it.

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bus::Name;

use crate::{fault::Lack, ground::Ground, instance::Ran, lease::Invocation, output::Output, version::Version};

pub(crate) const BUILT: bool = false;

#[derive(Debug)]
pub(crate) struct Host;

impl Host {
    pub(crate) fn new(_data: &Path) -> Self {
        Self
    }

    #[allow(clippy::unused_self, reason = "with WebAssembly there is something to do")]
    pub(crate) fn collect(&self) {}
}

/// There is none.
pub(crate) struct Guest(Infallible);

#[derive(Debug, thiserror::Error)]
#[error("this fnbus was built without wasm; build it with `--features wasm`, or take one that has it")]
pub(crate) struct NoModule;

impl NoModule {
    #[allow(clippy::unused_self, reason = "with WebAssembly there are several")]
    pub(crate) fn kind(&self) -> &'static str {
        "Runtime.InvalidConfiguration"
    }
}

impl Guest {
    #[allow(clippy::unused_async, reason = "with WebAssembly there is something to wait for")]
    pub(crate) async fn new(_: &Arc<Ground>, _: &Name, _: &Version) -> Result<Self, NoModule> {
        Err(NoModule)
    }

    #[allow(clippy::unused_async, reason = "with WebAssembly there is something to wait for")]
    pub(crate) async fn call(&self, _: &Invocation, _: Duration, _: Arc<Mutex<Output>>) -> Result<Ran, Lack> {
        match self.0 {}
    }
}
