//! A node's functions in a temporary folder, with real processes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bus::{
    Name, Outcome,
    log::Log,
    payload::{Form, Payload},
    presence::FunctionStatus,
};
use runtimes::{EnvValue, FunctionConfig, Functions, Invocation, Isolation, Lease, LeaseError, RuntimeKind, Settings};
use tempfile::TempDir;
use uuid::Uuid;

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) functions: Functions,
    temp: Arc<TempDir>,
    configs: BTreeMap<Name, FunctionConfig>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let temp = Arc::new(tempfile::tempdir().unwrap());
        let mut settings = Settings::new(temp.path().join("data"));
        change(&mut settings);
        let log = Log::open(&settings.data).unwrap();
        Self { functions: Functions::new(settings, log), temp, configs: BTreeMap::new() }
    }

    /// One that adopts what is left by its functions, as a real node does: its Python functions are forked.
    pub(crate) fn adopting() -> Self {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        Self::new()
    }

    /// Adds a function `f`.
    pub(crate) fn function(self, code: &str) -> Self {
        self.function_with(code, |_| {})
    }

    pub(crate) fn function_with(self, code: &str, change: impl FnOnce(&mut FunctionConfig)) -> Self {
        self.write("app.py", code);
        self.configured(RuntimeKind::Python, change)
    }

    /// A function `f` of any runtime, whose code is in this file, which can be executed.
    pub(crate) fn of(self, runtime: RuntimeKind, file: &str, code: &str) -> Self {
        self.of_with(runtime, file, code, |_| {})
    }

    pub(crate) fn of_with(
        self,
        runtime: RuntimeKind,
        file: &str,
        code: &str,
        change: impl FnOnce(&mut FunctionConfig),
    ) -> Self {
        self.write(file, code);
        fs::set_permissions(self.code().join(file), fs::Permissions::from_mode(0o755)).unwrap();
        self.configured(runtime, change)
    }

    /// A function `f` with the code that was written.
    pub(crate) fn configured(mut self, runtime: RuntimeKind, change: impl FnOnce(&mut FunctionConfig)) -> Self {
        fs::create_dir_all(self.code()).unwrap();
        let mut config = FunctionConfig {
            timeout: LONG,
            concurrency: 4,
            isolation: Isolation::Process,
            ..FunctionConfig::new(runtime, self.code())
        };
        change(&mut config);
        self.configs.insert(name(), config);
        self.functions.configure(self.configs.clone());
        self
    }

    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&mut FunctionConfig)) {
        change(self.configs.get_mut("f").unwrap());
        self.functions.configure(self.configs.clone());
    }

    pub(crate) fn code(&self) -> PathBuf {
        self.temp.path().join("f")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.code().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file the function may write to, to tell the test something.
    pub(crate) fn note(&self) -> PathBuf {
        self.temp.path().join("note")
    }

    pub(crate) async fn lease(&self) -> Result<Lease, LeaseError> {
        self.functions.lease(&name(), LONG).await
    }

    /// Runs one invocation; a failed start is its outcome.
    pub(crate) async fn invoke(&self, payload: &str) -> Outcome {
        self.invoke_as(Form::Json, payload.as_bytes()).await
    }

    pub(crate) async fn invoke_as(&self, form: Form, payload: &[u8]) -> Outcome {
        match self.lease().await {
            Ok(lease) => lease.invoke(invocation(form, payload)).await.expect("there is an instance"),
            Err(LeaseError::Init(outcome)) => *outcome,
            Err(e) => panic!("no lease: {e}"),
        }
    }

    pub(crate) fn status(&self) -> FunctionStatus {
        self.functions.status().remove(0)
    }

    /// Waits until the function's status is as it should be.
    pub(crate) async fn until(&self, what: impl Fn(&FunctionStatus) -> bool) -> FunctionStatus {
        until(|| Some(self.status()).filter(&what)).await
    }
}

pub(crate) fn name() -> Name {
    "f".parse().unwrap()
}

pub(crate) fn invocation(form: Form, payload: &[u8]) -> Invocation {
    Invocation {
        request_id: Uuid::now_v7(),
        payload: Payload { bytes: payload.to_vec().into(), form },
        event_id: "event-1".into(),
        trace: None,
        client_context: None,
        outlet: None,
    }
}

/// Looks again until there is something. The state of processes and files has no signal to wait for.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "waited too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn is_running(pid: &str) -> bool {
    // a zombie has ended, it only waits to be reaped
    fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

pub(crate) fn kind(outcome: &Outcome) -> &str {
    outcome.fault.as_ref().map_or("", |f| &f.kind)
}

pub(crate) fn message(outcome: &Outcome) -> &str {
    outcome.fault.as_ref().map_or("", |f| &f.message)
}

pub(crate) fn text(outcome: &Outcome) -> &str {
    std::str::from_utf8(&outcome.output).unwrap()
}

pub(crate) fn plain(value: &str) -> EnvValue {
    EnvValue::Plain(value.to_owned())
}
