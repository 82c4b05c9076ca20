//! What all instances of a node share: its settings, the interpreter, the folder for private files.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use bus::{Name, presence::LogLine};
use chrono::Utc;
use tokio::sync::{OnceCell, broadcast};
use uuid::Uuid;

use crate::{
    config::{EnvValue, RuntimeKind},
    process::Launch,
    python::Interpreter,
    version::{Store, Version},
};

/// What the node says to its functions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data folder: versions, shims and private folders are below it.
    pub data: PathBuf,
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
    /// Every line of every function goes here.
    pub logs: broadcast::Sender<LogLine>,
}

impl Settings {
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            namespace: "fnbus".into(),
            node: "local".into(),
            payload_limit: 6 * 1024 * 1024,
            region: "us-east-1".into(),
            watch: true,
            python: None,
            logs: broadcast::channel(1024).0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    python: OnceCell<Interpreter>,
    /// Private folders of this run; those of earlier ones are beside it.
    homes: PathBuf,
}

/// Why an instance could not even be tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLaunch {
    #[error(transparent)]
    Python(#[from] crate::python::NoPython),
    #[error("the environment variable {name} is a secret from {from}, which {problem}; set it where fnbus is started")]
    Secret { name: String, from: String, problem: String },
    #[error("no private folder can be made at {path}: {source}", path = path.display())]
    Home { path: PathBuf, source: io::Error },
}

impl Ground {
    pub(crate) fn new(mut settings: Settings) -> Self {
        // a path below the data folder is handed to processes that run in another folder
        settings.data = std::path::absolute(&settings.data).unwrap_or(settings.data);
        let homes = settings.data.join("tmp").join(Uuid::now_v7().simple().to_string());
        Self { store: Store::new(&settings.data), settings, python: OnceCell::new(), homes }
    }

    /// Removes what earlier runs left: private folders, and versions that are used no more. Blocks.
    pub(crate) fn collect(&self) {
        self.store.collect();
        for entry in fs::read_dir(self.settings.data.join("tmp")).into_iter().flatten().flatten() {
            if entry.path() != self.homes {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Everything that is needed to start an instance of a version.
    pub(crate) async fn launch(&self, function: &Name, version: &Version) -> Result<Launch, NoLaunch> {
        let python = match version.runtime {
            RuntimeKind::Python => self.python().await?,
        };
        let home = self.homes.join(Uuid::now_v7().simple().to_string());
        fs::create_dir_all(&home).map_err(|source| NoLaunch::Home { path: home.clone(), source })?;
        let mut env = self.env(function, version, python, &home);
        for (name, value) in &version.env {
            env.push((name.clone(), resolve(name, value)?));
        }
        Ok(Launch {
            program: python.path().to_owned(),
            arguments: python.arguments(version, self.settings.payload_limit),
            env,
            folder: version.code.clone(),
            home,
            memory: u64::from(version.memory) << 20,
        })
    }

    /// Found once; looked for again as long as there is none.
    async fn python(&self) -> Result<&Interpreter, crate::python::NoPython> {
        let find = || async {
            let asked = self.settings.python.clone().or_else(|| env::var_os("FNBUS_PYTHON").map(PathBuf::from));
            let data = self.settings.data.clone();
            let found = tokio::task::spawn_blocking(move || Interpreter::find(asked.as_deref(), &data)).await;
            found.unwrap_or_else(|panic| {
                let said = panic.to_string();
                Err(crate::python::NoPython::Broken { asked: "python3".into(), said })
            })
        };
        self.python.get_or_try_init(find).await
    }

    /// The environment of an instance but for the function's own variables, in Lambda's names.
    fn env(&self, function: &Name, version: &Version, python: &Interpreter, home: &Path) -> Vec<(String, String)> {
        let region = &self.settings.region;
        let home = home.display().to_string();
        let stream = format!("{}/[{}]{}", Utc::now().format("%Y/%m/%d"), version.id, Uuid::now_v7().simple());
        let path = env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
        let pairs = [
            ("PATH", path),
            ("LANG", "C.UTF-8".into()),
            ("TZ", ":UTC".into()),
            ("HOME", home.clone()),
            ("TMPDIR", home),
            ("LAMBDA_TASK_ROOT", version.code.display().to_string()),
            ("_HANDLER", version.handler.clone()),
            ("AWS_REGION", region.clone()),
            ("AWS_DEFAULT_REGION", region.clone()),
            ("AWS_EXECUTION_ENV", python.execution_env()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".into()),
            ("AWS_LAMBDA_FUNCTION_NAME", function.to_string()),
            ("AWS_LAMBDA_FUNCTION_VERSION", version.id.to_string()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", version.memory.to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{function}")),
            ("AWS_LAMBDA_LOG_STREAM_NAME", stream),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

/// The value of a variable, now.
fn resolve(name: &str, value: &EnvValue) -> Result<String, NoLaunch> {
    let missing = |from: String, problem: String| NoLaunch::Secret { name: name.to_owned(), from, problem };
    match value {
        EnvValue::Plain(text) => Ok(text.clone()),
        EnvValue::SecretEnv(from) => {
            env::var(from).map_err(|_| missing(format!("the variable {from}"), "is not set".into()))
        }
        EnvValue::SecretFile(path) => {
            let mut text = fs::read_to_string(path)
                .map_err(|e| missing(format!("the file {}", path.display()), format!("cannot be read ({e})")))?;
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
            Ok(text)
        }
    }
}
