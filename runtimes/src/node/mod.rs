//! Node.js functions: which binary runs them and how it is started. The shim speaks [`crate::frame`].

// What was compiled of a version's code.
mod compiled;
// Processes that wait for a function.
mod spares;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{
    config::RuntimeKind,
    ground,
    interpreter::{Asked, candidates, hint},
    lifecycle::Lifecycle,
    process::{Bounds, Launch, Wires},
    sandbox::{self, Reach},
    version::{Version, most_memory},
};

pub(crate) use compiled::{Compiled, Written};
pub(crate) use spares::Spares;

/// One script.
const SHIM: &str = concat!(
    include_str!("fnbus_runtime.cjs"),
    include_str!("invocation.cjs"),
    include_str!("slots.cjs"),
    include_str!("streamed.cjs"),
    "main();\n"
);
const SHIM_NAME: &str = "fnbus_runtime.cjs";
/// What is asked for unless another one is named.
const NODE: &str = "node";
/// Since these it can keep what it compiles and write it when it is told to, and use it for code that lies elsewhere.
const COMPILES: (u32, u32) = (22, 8);
const PORTABLE: (u32, u32) = (24, 12);
/// Since then each thread of it maps so much at once, for code that it may compile: it takes none of it before it does.
const RESERVES: (u32, u32) = (23, 0);
const FOR_CODE: u64 = 512 << 20;
/// Threads for which that is allowed where a control group holds the process to what it really has.
const THREADS: u64 = 8;

/// Asked of whatever `node` is: behind a version manager's shim is the real binary.
const PROBE: &str = "console.log(JSON.stringify({path: process.execPath, version: process.versions.node}))";

/// The binary, found once.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NodeJs {
    path: PathBuf,
    version: String,
    /// The shim's file.
    #[serde(skip)]
    shim: PathBuf,
}

/// Why there is no Node.js.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoNode {
    #[error(
        "no Node.js to run it with: `{asked}` does not start ({source}); install Node.js 18 or newer, or set FNBUS_NODE to its path"
    )]
    Missing { asked: String, source: io::Error },
    #[error(
        "`{asked}` is not a Node.js that works: {said}; install Node.js 18 or newer, or set FNBUS_NODE to its path"
    )]
    Broken { asked: String, said: String },
    #[error(
        "there is no {pin} on this machine: install Node.js {}, so that its `node` is on PATH, or write runtime = \"node\" to take \
         the one that is there", pin.trim_start_matches("nodejs").trim_end_matches(".x")
    )]
    NotThis { pin: &'static str },
    #[error("the Node.js runtime cannot be written to {path}: {source}; make the data folder writable", path = path.display())]
    Shim { path: PathBuf, source: io::Error },
}

impl NodeJs {
    /// Finds the real binary behind `asked` (none: `node` on the path), or the one that functions are pinned to, and puts the
    /// shim into place. Blocks.
    pub(crate) fn find(asked: Option<&Path>, pin: Option<Lifecycle>, data: &Path) -> Result<Self, NoNode> {
        let mut found = Self::probe(asked, pin, &Asked::default())?;
        hint(RuntimeKind::Node, pin, &found.identifier());
        let folder = ground::install(data, RuntimeKind::Node.as_str(), SHIM_NAME, SHIM);
        found.shim = folder.map_err(|(path, source)| NoNode::Shim { path, source })?.join(SHIM_NAME);
        Ok(found)
    }

    /// The same without a trace: the shim is not there yet.
    pub(crate) fn probe(asked: Option<&Path>, pin: Option<Lifecycle>, before: &Asked<Self>) -> Result<Self, NoNode> {
        let Some(pin) = pin else { return Self::ask(asked.unwrap_or(Path::new(NODE))) };
        let is_it = |node: &Self| node.identifier() == pin.name;
        let ask = |program: PathBuf| before.once(&program, || Self::ask(&program).ok()).filter(is_it);
        let found = candidates(asked, &[NODE]).into_iter().find_map(ask);
        found.ok_or(NoNode::NotThis { pin: pin.name })
    }

    fn ask(asked: &Path) -> Result<Self, NoNode> {
        let name = asked.display().to_string();
        let said = Command::new(asked)
            .args(["-e", PROBE])
            .env_remove("NODE_OPTIONS")
            .stdin(Stdio::null())
            .output()
            .map_err(|source| NoNode::Missing { asked: name.clone(), source })?;
        let found: Self = serde_json::from_slice(&said.stdout).map_err(|_| {
            let text = String::from_utf8_lossy(&said.stderr);
            let last = text.trim().lines().next_back().unwrap_or("it said nothing");
            NoNode::Broken { asked: name.clone(), said: last.to_owned() }
        })?;
        if found.major() < 18 {
            return Err(NoNode::Broken { asked: name, said: format!("it is version {}", found.version) });
        }
        Ok(found)
    }

    /// As AWS calls it.
    pub(crate) fn identifier(&self) -> String {
        format!("nodejs{}.x", self.major())
    }

    /// As `AWS_EXECUTION_ENV` says it.
    pub(crate) fn execution_env(&self) -> String {
        format!("AWS_Lambda_{}", self.identifier())
    }

    /// A process that waits to be told what it is to load. A spare one has time to get ready for it.
    pub(crate) fn launch(
        &self,
        memory: u32,
        env: Vec<(String, String)>,
        home: PathBuf,
        spare: bool,
        reach: Option<Reach>,
        bounds: Option<Bounds>,
    ) -> Launch {
        // the heap collects what it can before the process meets its limit
        let heap = format!("--max-old-space-size={memory}");
        let mut arguments = vec![heap.into(), OsString::from(&self.shim)];
        if spare {
            arguments.push("spare".into());
        }
        Launch {
            program: self.path.clone(),
            arguments,
            wires: Wires::Frames,
            env,
            folder: home.clone(),
            home,
            memory: most_memory(RuntimeKind::Node, memory) + self.for_code(bounds.is_some()),
            reach,
            bounds,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// What it reads itself.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        let beside = self.path.parent().map(sandbox::around).unwrap_or_default();
        beside.into_iter().chain([self.shim.clone()]).collect()
    }

    /// What such a process is told. `compiled` is what it is told of what was compiled.
    pub(crate) fn load(
        version: &Version,
        env: &[(String, String)],
        limit: usize,
        compiled: &serde_json::Value,
    ) -> serde_json::Value {
        let env: serde_json::Map<_, _> =
            env.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        serde_json::json!({
            "code": version.code,
            "source": version.source,
            "handler": version.handler,
            "env": env,
            "limit": limit,
            "slots": version.slots,
            "compiled": compiled,
        })
    }

    /// Bytes that it maps and does not take. `held`: what it takes is bounded, too.
    fn for_code(&self, held: bool) -> u64 {
        let threads = if held { THREADS } else { 1 };
        if self.release() >= RESERVES { threads * FOR_CODE } else { 0 }
    }

    /// Whether it can keep what it compiles.
    pub(crate) fn compiles(&self) -> bool {
        self.release() >= COMPILES
    }

    fn is_portable(&self) -> bool {
        self.release() >= PORTABLE
    }

    fn major(&self) -> u32 {
        self.release().0
    }

    /// Major and minor.
    fn release(&self) -> (u32, u32) {
        let mut numbers = self.version.split('.').map(|number| number.parse().unwrap_or_default());
        (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
    }
}
