//! The interpreters of this machine: which of them a function asks for, each found once.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
};

use chrono::Utc;
use tokio::sync::OnceCell;
use tracing::warn;

use crate::{config::RuntimeKind, entry, lifecycle::Lifecycle, lock, node::NodeJs, python};

/// One that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    pub path: PathBuf,
    pub version: String,
    /// What AWS calls such a one: `python3.13`, `nodejs22.x`.
    pub identifier: String,
    /// Whether what it compiled of a version is kept for the next instance.
    pub keeps_compiled: bool,
}

/// Those of one language, by the runtime that functions are pinned to; none: whichever there is.
#[derive(Debug)]
pub(crate) struct Found<T>(Mutex<BTreeMap<Option<Lifecycle>, Once<T>>>);

type Once<T> = Arc<OnceCell<Arc<T>>>;

impl<T> Default for Found<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Send + 'static> Found<T> {
    /// Found once; looked for again as long as there is none. `find` blocks.
    pub(crate) async fn get<E: Send + 'static>(
        &self,
        pin: Option<Lifecycle>,
        find: impl FnOnce() -> Result<T, E> + Send + 'static,
        panicked: impl FnOnce(String) -> E,
    ) -> Result<Arc<T>, E> {
        let cell = lock(&self.0).entry(pin).or_default().clone();
        let found = async move || match tokio::task::spawn_blocking(find).await {
            Ok(found) => found.map(Arc::new),
            Err(panic) => Err(panicked(panic.to_string())),
        };
        cell.get_or_try_init(found).await.cloned()
    }
}

/// What programs answered that were asked what they are, each once; none: it is no interpreter that works.
#[derive(Debug)]
pub(crate) struct Asked<T>(Mutex<BTreeMap<PathBuf, Arc<OnceLock<Option<T>>>>>);

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Asked<T> {
    /// The answer of a program. Whoever wants it meanwhile waits for it.
    pub(crate) fn once(&self, program: &Path, ask: impl FnOnce() -> Option<T>) -> Option<T> {
        let answer = lock(&self.0).entry(program.to_owned()).or_default().clone();
        answer.get_or_init(ask).clone()
    }
}

/// Says that what a function gets that asks for none of a name is near its end.
pub(crate) fn hint(kind: RuntimeKind, pin: Option<Lifecycle>, identifier: &str) {
    if pin.is_none()
        && let Some(warning) = Lifecycle::of(identifier).and_then(|lifecycle| lifecycle.warning(Utc::now()))
    {
        warn!("`{}` is {identifier} here, which {warning}", kind.as_str());
    }
}

/// The interpreter that the environment names for a runtime.
pub(crate) fn asked_for(runtime: RuntimeKind) -> Option<PathBuf> {
    let variable = match runtime {
        RuntimeKind::Python => "FNBUS_PYTHON",
        RuntimeKind::Node => "FNBUS_NODE",
        RuntimeKind::Provided | RuntimeKind::Command | RuntimeKind::Wasm => return None,
    };
    env::var_os(variable).map(PathBuf::from)
}

/// What may be the interpreter that a function is pinned to: the one that was named, and all programs of these names on
/// `PATH`.
pub(crate) fn candidates(asked: Option<&Path>, names: &[&str]) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    let on_path = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let mut seen = BTreeSet::new();
    let is_new = |program: &PathBuf| seen.insert(program.canonicalize().unwrap_or_else(|_| program.clone()));
    let there = on_path.filter(|program| entry::is_executable(program));
    asked.map(Path::to_owned).into_iter().chain(there).filter(is_new).collect()
}

/// The interpreters that there are now: what was found once is not looked for again.
#[derive(Debug, Default)]
pub struct Interpreters {
    python: Asked<python::Interpreter>,
    node: Asked<NodeJs>,
}

impl Interpreters {
    /// That of a runtime, or why there is none; none where functions bring their own. Blocks.
    pub fn find(&self, runtime: RuntimeKind, pin: Option<Lifecycle>) -> Option<Result<Interpreter, String>> {
        let asked = asked_for(runtime);
        match runtime {
            RuntimeKind::Python => {
                let found = python::Interpreter::probe(asked.as_deref(), pin, &self.python);
                Some(found.map_err(|error| error.to_string()).map(|python| Interpreter {
                    path: python.path().to_owned(),
                    version: python.version(),
                    identifier: python.identifier(),
                    keeps_compiled: true,
                }))
            }
            RuntimeKind::Node => {
                let found = NodeJs::probe(asked.as_deref(), pin, &self.node);
                Some(found.map_err(|error| error.to_string()).map(|node| Interpreter {
                    path: node.path().to_owned(),
                    version: node.version().to_owned(),
                    identifier: node.identifier(),
                    keeps_compiled: node.compiles(),
                }))
            }
            RuntimeKind::Provided | RuntimeKind::Command | RuntimeKind::Wasm => None,
        }
    }
}
