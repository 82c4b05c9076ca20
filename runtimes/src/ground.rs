//! What all instances of a node share: its settings, the interpreters, the folder for private files, the environment.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, Weak},
};

use bus::{
    Name, Outcome,
    log::{Log, LogError, version},
    outcome::Ending,
    presence::LogLine,
};
use chrono::Utc;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

use crate::{
    budget::{Budget, Share},
    cgroups::{Cgroups, Limits},
    config::{EnvValue, Isolation, RuntimeKind, RuntimesConfig},
    fault::Lack,
    interpreter::{Found, asked_for},
    lifecycle::{Act, Lifecycle},
    lock,
    node::{NoNode, NodeJs, Spares},
    orphans::{self, MARK},
    policy::cost_window::Prices,
    pool::Pool,
    process::{Bounds, Group, Process},
    python::{Interpreter, NoPython, Zygotes},
    sandbox::{self, Private, Reach},
    storage::Storage,
    version::{Store, Version, hex},
    wasm,
};

/// What the node says to its functions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder: versions, shims and private folders are below it.
    pub data: PathBuf,
    /// The folder of the config file, for functions that read or write beside it; none: they are not told.
    pub project: Option<PathBuf>,
    pub namespace: String,
    pub node: String,
    /// Largest output of an invocation.
    pub payload_limit: usize,
    /// What functions read in `AWS_REGION`; clients of AWS refuse one they do not know.
    pub region: String,
    /// Whether edits of code are deployed.
    pub watch: bool,
    /// The Python to use; none: `FNBUS_PYTHON`, else `python3` on the path.
    pub python: Option<PathBuf>,
    /// The Node.js to use; none: `FNBUS_NODE`, else `node` on the path.
    pub node_js: Option<PathBuf>,
    /// What memory is worth against waiting, where `keep_alive` is `auto`.
    pub prices: Prices,
    /// Bytes that all functions may hold together; none: half of what there is.
    pub memory: Option<u64>,
    /// Processes of Node.js kept ready for functions of one memory size, as it is slow to start; 0: none.
    pub spares: usize,
    /// Versions of each function that are kept, beside those in use.
    pub keep_versions: usize,
    /// Whether functions of a runtime that has ended are refused, from its dates on.
    pub enforce: bool,
    /// Every line of every function goes here.
    pub logs: broadcast::Sender<LogLine>,
}

impl Settings {
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            project: None,
            namespace: "fnbus".into(),
            node: "local".into(),
            payload_limit: 6 * 1024 * 1024,
            region: "us-east-1".into(),
            watch: true,
            python: None,
            node_js: None,
            prices: Prices::default(),
            memory: None,
            spares: 2,
            keep_versions: RuntimesConfig::default().keep_versions as usize,
            enforce: RuntimesConfig::default().enforce,
            logs: broadcast::channel(1024).0,
        }
    }
}

pub(crate) struct Ground {
    pub(crate) settings: Settings,
    /// Where versions are kept, beside their code.
    pub(crate) log: Log,
    /// Tells that a version is on trial.
    pub(crate) canaries: Notify,
    pub(crate) store: Store,
    /// What all functions may hold of the memory.
    pub(crate) budget: Arc<Budget>,
    /// Those that hold it.
    pools: Mutex<Vec<Weak<Pool>>>,
    /// Processes of Node.js that wait for a function.
    pub(crate) spares: Spares,
    /// Processes of Python that have loaded a function.
    pub(crate) zygotes: Zygotes,
    /// What functions in WebAssembly share.
    pub(crate) wasm: wasm::Host,
    python: Found<Interpreter>,
    node: Found<NodeJs>,
    /// Processes that live for one invocation.
    passing: Mutex<Vec<Weak<Group>>>,
    /// Private folders of this run; those of earlier ones are beside it.
    homes: PathBuf,
    /// What of the machine any function may read.
    machine: OnceLock<Vec<PathBuf>>,
    /// What they keep in files.
    pub(crate) storage: Arc<Storage>,
    /// None where none can be made.
    cgroups: OnceLock<Option<Arc<Cgroups>>>,
}

/// Why an instance could not even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLaunch {
    #[error(transparent)]
    Python(#[from] NoPython),
    #[error(transparent)]
    Node(#[from] NoNode),
    #[error("the environment variable {name} is a secret from {from}, which {problem}; set it where fnbus is started")]
    Secret { name: String, from: String, problem: String, source: Option<io::Error> },
    #[error("no private folder can be made at {path}: {source}", path = path.display())]
    Home { path: PathBuf, source: io::Error },
    #[error("{path}, one of its `folders`, is not there and cannot be made: {source}; make it, or correct `folders`", path = path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{path}, one of its `folders`, holds or is in the data folder of fnbus; name a folder beside it", path = .0.display())]
    DataFolder(PathBuf),
}

impl Ground {
    pub(crate) fn new(mut settings: Settings, log: Log) -> Self {
        // a path below the data folder is handed to processes that run in another folder
        settings.data = std::path::absolute(&settings.data).unwrap_or(settings.data);
        let homes = settings.data.join("tmp").join(Uuid::now_v7().simple().to_string());
        orphans::take(&homes);
        Self {
            store: Store::new(&settings.data),
            budget: Budget::new(settings.memory, settings.prices.memory),
            pools: Mutex::default(),
            wasm: wasm::Host::new(&settings.data),
            settings,
            log,
            canaries: Notify::new(),
            spares: Spares::default(),
            zygotes: Zygotes::default(),
            python: Found::default(),
            node: Found::default(),
            passing: Mutex::default(),
            homes,
            machine: OnceLock::new(),
            storage: Arc::default(),
            cgroups: OnceLock::new(),
        }
    }

    /// Ends what earlier runs left running. Blocks.
    pub(crate) fn sweep(&self) {
        orphans::sweep(&self.homes);
        self.cgroups.get_or_init(Cgroups::here);
    }

    /// What a process may have with all that it starts; none where that cannot be held.
    pub(crate) fn bounds(&self, limits: Limits) -> Option<Bounds> {
        self.cgroups.get()?.clone().map(|cgroups| Bounds { cgroups, limits })
    }

    /// Holds a process of a version to what it may have.
    pub(crate) fn hold(&self, function: &Name, process: &Process, version: &Version) {
        if let Some(bounds) = self.bounds(version.limits()) {
            process.group().hold(bounds);
        }
        if version.isolation != Isolation::Namespaces {
            let shared = version.runtime == RuntimeKind::Python && process.home().parent() != Some(&self.homes);
            self.storage.hold(function, process, version.most_storage(), shared);
        }
    }

    /// Removes the code of versions that are neither kept nor used.
    pub(crate) async fn collect(self: &Arc<Self>) -> Result<(), LogError> {
        let kept = self.log.read(|c| Ok::<_, LogError>(version::folders(c)?)).await?;
        let ground = self.clone();
        let _ = tokio::task::spawn_blocking(move || ground.store.collect(&kept)).await;
        Ok(())
    }

    /// Removes the private folders of earlier runs, and compiled code that was not used in this one. Blocks.
    pub(crate) fn tidy(&self) {
        self.wasm.collect();
        for entry in fs::read_dir(self.settings.data.join("tmp")).into_iter().flatten().flatten() {
            if entry.path() != self.homes {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// A private folder for a process.
    pub(crate) fn home(&self) -> Result<PathBuf, NoLaunch> {
        Self::home_in(&self.homes)
    }

    /// The same in a folder of its own, in which there may be more, and other things for the process.
    pub(crate) fn inner_home(&self) -> Result<PathBuf, NoLaunch> {
        Self::home_in(&self.homes.join(Uuid::now_v7().simple().to_string()))
    }

    /// The same in such a folder.
    pub(crate) fn home_in(folder: &Path) -> Result<PathBuf, NoLaunch> {
        let home = folder.join(Uuid::now_v7().simple().to_string());
        fs::create_dir_all(&home).map_err(|source| NoLaunch::Home { path: home.clone(), source })?;
        Ok(home)
    }

    /// What a process of a version may reach, with `private` and what its `engine` needs; none: it is not in a sandbox.
    pub(crate) fn reach(
        &self,
        version: &Version,
        private: &Path,
        engine: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Option<Reach>, NoLaunch> {
        if version.isolation == Isolation::Process {
            return Ok(None);
        }
        self.check_folders(version)?;
        let mut reach = self.bare_reach(private, engine);
        reach.read.extend([version.code.clone(), version.source.join(".venv")]);
        reach.read.extend(version.folders.read.iter().cloned());
        reach.write.extend(version.folders.write.iter().cloned());
        reach.network = version.network;
        let own = || Private { folder: private.to_owned(), bytes: version.most_storage() };
        reach.namespaces = (version.isolation == Isolation::Namespaces).then(own);
        Ok(Some(reach))
    }

    /// Makes what is not there of a version's folders. None of them leads into the data folder.
    pub(crate) fn check_folders(&self, version: &Version) -> Result<(), NoLaunch> {
        for path in version.folders.all() {
            if !path.exists() {
                fs::create_dir_all(path).map_err(|source| NoLaunch::Folder { path: path.clone(), source })?;
            }
            let (data, real) = (self.settings.data.canonicalize(), path.canonicalize());
            let (data, real) = (data.unwrap_or_default(), real.unwrap_or_default());
            if real.starts_with(&data) || data.starts_with(&real) {
                return Err(NoLaunch::DataFolder(path.clone()));
            }
        }
        Ok(())
    }

    /// The same for a process of which nothing is known yet.
    pub(crate) fn bare_reach(&self, private: &Path, engine: impl IntoIterator<Item = PathBuf>) -> Reach {
        let machine = || sandbox::machine(&self.settings.data, self.settings.project.as_deref());
        let mut read = self.machine.get_or_init(machine).clone();
        read.extend(engine);
        Reach { read, write: vec![private.to_owned()], network: true, namespaces: None }
    }

    /// The Python for functions that are pinned to a runtime, or to none.
    pub(crate) async fn python(&self, pin: Option<Lifecycle>) -> Result<Arc<Interpreter>, NoPython> {
        let (given, data) = (self.settings.python.clone(), self.settings.data.clone());
        let find = move || {
            let asked = given.or_else(|| asked_for(RuntimeKind::Python));
            Interpreter::find(asked.as_deref(), pin, &data)
        };
        self.python.get(pin, find, |said| NoPython::Broken { asked: "python3".into(), said }).await
    }

    /// As [`Ground::python`].
    pub(crate) async fn node(&self, pin: Option<Lifecycle>) -> Result<Arc<NodeJs>, NoNode> {
        let (given, data) = (self.settings.node_js.clone(), self.settings.data.clone());
        let find = move || {
            let asked = given.or_else(|| asked_for(RuntimeKind::Node));
            NodeJs::find(asked.as_deref(), pin, &data)
        };
        self.node.get(pin, find, |said| NoNode::Broken { asked: "node".into(), said }).await
    }

    /// How it ends that this is not done with a version, as its runtime has ended; none where that is not enforced.
    pub(crate) fn refuses(&self, version: &Version, act: Act) -> Option<Box<Outcome>> {
        let pin = version.pin.filter(|_| self.settings.enforce)?;
        let mut outcome = Outcome::failure(Ending::InitError, "Runtime.Deprecated", pin.refuses(act, Utc::now())?);
        outcome.version = version.id.clone();
        Some(Box::new(outcome))
    }

    /// The environment of a process, in Lambda's names, with the function's own variables. `engine` is what its
    /// interpreter is called.
    pub(crate) fn env(
        &self,
        function: &Name,
        version: &Version,
        home: &Path,
        engine: Option<String>,
    ) -> Result<Vec<(String, String)>, NoLaunch> {
        let mut env = Self::bare_env(home);
        env.push(("LAMBDA_TASK_ROOT".into(), version.code.display().to_string()));
        env.extend(engine.map(|engine| ("AWS_EXECUTION_ENV".to_owned(), engine)));
        env.extend(self.told(function, version)?);
        env.push((MARK.into(), home.display().to_string()));
        Ok(env)
    }

    /// What any code of a version reads in its environment: who it is, and its own variables, which come last.
    pub(crate) fn told(&self, function: &Name, version: &Version) -> Result<Vec<(String, String)>, NoLaunch> {
        let region = &self.settings.region;
        let stream = format!("{}/[{}]{}", Utc::now().format("%Y/%m/%d"), version.called(), Uuid::now_v7().simple());
        let ours = [
            ("_HANDLER", version.handler.clone()),
            ("AWS_REGION", region.clone()),
            ("AWS_DEFAULT_REGION", region.clone()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".into()),
            ("AWS_LAMBDA_FUNCTION_NAME", function.to_string()),
            ("AWS_LAMBDA_FUNCTION_VERSION", version.called()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", version.memory.to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{function}")),
            ("AWS_LAMBDA_LOG_STREAM_NAME", stream),
        ];
        let mut env: Vec<_> = ours.map(|(name, value)| (name.to_owned(), value)).into();
        if version.slots > 1 {
            env.push(("AWS_LAMBDA_MAX_CONCURRENCY".into(), version.slots.to_string()));
        }
        let project = self.settings.project.as_ref();
        env.extend(project.map(|project| ("FNBUS_PROJECT".to_owned(), project.display().to_string())));
        for (name, value) in &version.env {
            env.push((name.clone(), resolve(name, value)?));
        }
        Ok(env)
    }

    /// The environment of a process of which nothing is known yet.
    pub(crate) fn bare_env(home: &Path) -> Vec<(String, String)> {
        let home = home.display().to_string();
        let path = env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
        let pairs = [
            ("PATH", path),
            ("LANG", "C.UTF-8".into()),
            ("TZ", ":UTC".into()),
            ("HOME", home.clone()),
            ("TMPDIR", home.clone()),
            (MARK, home),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Room for so many bytes; instances end for it that are worth less, then what others are started from.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<Share, Lack> {
        loop {
            match self.budget.take(bytes) {
                Err(_) if self.gives_up() => {}
                taken => return taken,
            }
        }
    }

    /// Ends what is worth least as long as functions hold more than they may.
    pub(crate) fn trim(&self) {
        while self.budget.is_over() && self.gives_up() {}
    }

    /// Ends what is worth least. Whether there was anything.
    fn gives_up(&self) -> bool {
        let pools: Vec<Arc<Pool>> = lock(&self.pools).iter().filter_map(Weak::upgrade).collect();
        let idle = pools.iter().filter_map(|pool| Some((pool.worth()?, pool)));
        if let Some((_, pool)) = idle.min_by(|one, other| one.0.total_cmp(&other.0)) {
            if let Some(worth) = pool.give_up() {
                self.budget.ended(worth);
            }
            return true;
        }
        pools.iter().any(|pool| pool.gives_zygote_up()) || self.spares.end()
    }

    /// Keeps count of a pool.
    pub(crate) fn joined(&self, pool: &Weak<Pool>) {
        let mut pools = lock(&self.pools);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool.clone());
    }

    /// Keeps hold of a process that no pool knows, for a shutdown.
    pub(crate) fn passing(&self, group: &Arc<Group>) {
        let mut passing = lock(&self.passing);
        passing.retain(|group| group.strong_count() > 0);
        passing.push(Arc::downgrade(group));
    }

    /// The processes no pool knows.
    pub(crate) fn passing_groups(&self) -> Vec<Arc<Group>> {
        lock(&self.passing).iter().filter_map(Weak::upgrade).collect()
    }
}

/// Writes a shim to `<data>/runtimes/<language>-<hash>/` and gives the folder; by another name first, as others may
/// start from it now. Blocks.
pub(crate) fn install(data: &Path, language: &str, name: &str, shim: &str) -> Result<PathBuf, (PathBuf, io::Error)> {
    let folder = data.join("runtimes").join(format!("{language}-{}", &hex(&Sha256::digest(shim))[..12]));
    let file = folder.join(name);
    let write = || {
        fs::create_dir_all(&folder)?;
        if fs::read(&file).is_ok_and(|there| there == shim.as_bytes()) {
            return Ok(());
        }
        let temporary = folder.join(format!(".{}", Uuid::now_v7().simple()));
        fs::write(&temporary, shim)?;
        fs::rename(&temporary, &file)
    };
    match write() {
        Ok(()) => Ok(folder),
        Err(source) => Err((file, source)),
    }
}

/// The value of a variable, now.
fn resolve(name: &str, value: &EnvValue) -> Result<String, NoLaunch> {
    let missing = |from, problem, source| NoLaunch::Secret { name: name.to_owned(), from, problem, source };
    match value {
        EnvValue::Plain(text) => Ok(text.clone()),
        EnvValue::SecretEnv(from) => {
            env::var(from).map_err(|_| missing(format!("the variable {from}"), "is not set".into(), None))
        }
        EnvValue::SecretFile(path) => {
            let unread = |e: io::Error| {
                missing(format!("the file {}", path.display()), format!("cannot be read ({e})"), Some(e))
            };
            let mut text = fs::read_to_string(path).map_err(unread)?;
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            Ok(text)
        }
    }
}
