//! From a version to a process that can be spoken to: the one place that knows how each runtime is started.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus::{Name, outcome::Start};

use crate::{
    command::{Once, Program},
    config::{Isolation, RuntimeKind},
    conversation::{Conversation, Silence},
    dialogue::{Answer, Dialogue},
    entry::{self, NoEntry},
    frame::Frames,
    ground::{Ground, NoLaunch},
    lease::Invocation,
    node::{Compiled, NodeJs, Written},
    orphans,
    output::Output,
    process::{self, Launch, Started, Wires},
    provided::{Api, trace_id},
    python::Interpreter,
    version::Version,
    wasm::{Guest, NoModule},
};

/// Code of fewer files is compiled by each process that loads it.
const MANY_FILES: usize = 16;
/// Longest time for all of a version's code.
const COMPILING: Duration = Duration::from_mins(5);
/// Error objects may be this long, whatever the limit of outputs is.
const ERROR_LIMIT: usize = 1 << 20;

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoStart {
    #[error(transparent)]
    Launch(#[from] NoLaunch),
    #[error(transparent)]
    Entry(#[from] NoEntry),
    #[error("{program} cannot be started: {source}", program = program.display())]
    Process { program: PathBuf, source: std::io::Error },
    #[error("no port of this machine can be listened on: {0}")]
    Listen(#[source] std::io::Error),
    #[error("a process was started without pipes; report this")]
    NoFrames,
    #[error(transparent)]
    Module(#[from] NoModule),
}

impl NoStart {
    /// As `errorType` says it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Launch(_) => "Runtime.InvalidConfiguration",
            Self::Module(none) => none.kind(),
            Self::Entry(_) => "Runtime.InvalidEntrypoint",
            Self::Process { .. } | Self::Listen(_) | Self::NoFrames => "Runtime.StartError",
        }
    }
}

/// How a version is run.
pub(crate) enum Engine {
    /// By a process that stays.
    Kept(Box<Made>),
    /// By a process for each invocation.
    Each(Program),
    /// In this process, by an instance of WebAssembly for each.
    Guest(Box<Guest>),
}

/// A process that was made, and how.
pub(crate) struct Made {
    pub(crate) conversation: Conversation,
    pub(crate) kind: Start,
    /// How long the process it was forked from took to load the code, if that was for this one.
    pub(crate) loaded: Duration,
    /// What it has said already; else it has not said yet that it is ready.
    pub(crate) heard: Option<Result<Answer, Silence>>,
    /// What it writes for others while it loads the code.
    pub(crate) written: Option<Written>,
}

impl Made {
    pub(crate) fn new(conversation: Conversation, kind: Start) -> Self {
        Self { conversation, kind, loaded: Duration::ZERO, heard: None, written: None }
    }
}

/// Starts what is there before any invocation is. Loading the code may take this long.
pub(crate) async fn start(
    ground: &Arc<Ground>,
    function: &Name,
    version: &Version,
    limit: Duration,
) -> Result<Engine, NoStart> {
    let made = match version.runtime {
        RuntimeKind::Python => python(ground, function, version, limit).await?,
        RuntimeKind::Node => node(ground, function, version).await?,
        RuntimeKind::Provided => provided(ground, function, version).await?,
        RuntimeKind::Command => return Ok(Engine::Each(Program::find(version)?)),
        RuntimeKind::Wasm => return Ok(Engine::Guest(Box::new(Guest::new(ground, function, version).await?))),
    };
    Ok(Engine::Kept(Box::new(made)))
}

async fn python(ground: &Arc<Ground>, function: &Name, version: &Version, limit: Duration) -> Result<Made, NoStart> {
    // what is forked in namespaces is nobody this node could adopt
    if version.zygote
        && version.isolation != Isolation::Namespaces
        && orphans::adopts()
        && let Some(made) = ground.zygotes.start(ground, function, version, limit).await?
    {
        return Ok(made);
    }
    let mut started = launch_python(ground, function, version, Wires::Frames).await?;
    let frames = frames(ground, &mut started)?;
    Ok(Made::new(converse(ground, function, version, started, Dialogue::Frames(frames)), Start::Cold))
}

/// A process of Python that loads the code.
pub(crate) async fn launch_python(
    ground: &Ground,
    function: &Name,
    version: &Version,
    wires: Wires,
) -> Result<Started, NoStart> {
    let python = ground.python(version.pin).await.map_err(NoLaunch::from)?;
    let zygote = wires == Wires::Zygote;
    // the private folders of what is forked from it lie beside its own
    let home = if zygote { ground.inner_home()? } else { ground.home()? };
    let private = if zygote { home.parent().unwrap_or(&home) } else { &home };
    let reach = ground.reach(version, private, python.folders())?;
    let mut env = ground.env(function, version, &home, Some(python.execution_env()))?;
    if zygote {
        env.push(("AWS_LAMBDA_INITIALIZATION_TYPE".into(), "snap-start".into()));
    }
    launch(Launch {
        program: python.path().to_owned(),
        arguments: python.arguments(version, ground.settings.payload_limit, zygote),
        wires,
        env,
        folder: version.code.clone(),
        home,
        memory: version.most_memory(),
        reach,
        bounds: ground.bounds(version.limits()),
    })
    .await
}

/// Compiles the code of a Python version, once: instances in a sandbox cannot keep what they compile, and much of it takes
/// long to load then. The first instance is not kept waiting.
pub(crate) async fn compile(ground: &Ground, version: &Version) -> Result<(), NoStart> {
    let python = ground.python(version.pin).await.map_err(NoLaunch::from)?;
    let done = version.code.join("__pycache__").join(format!(".compiled-{}", python.version()));
    if version.isolation == Isolation::Process || version.files < MANY_FILES || done.exists() {
        return Ok(());
    }
    let home = ground.home()?;
    let mut reach = ground.bare_reach(&home, python.folders());
    reach.write.push(version.code.clone());
    let Started { process, .. } = launch(Launch {
        program: python.path().to_owned(),
        arguments: Interpreter::compiler(&version.code),
        wires: Wires::Outputs,
        env: Ground::bare_env(&home),
        folder: version.code.clone(),
        home,
        memory: version.most_memory(),
        reach: Some(reach),
        bounds: ground.bounds(version.limits()),
    })
    .await?;
    ground.passing(process.group());
    if tokio::time::timeout(COMPILING, process.group().gone()).await.is_ok() {
        let marked = done.parent().map(std::fs::create_dir_all).transpose().and_then(|_| std::fs::write(&done, ""));
        if let Err(error) = marked {
            tracing::debug!(%error, "compiled code is not marked as that");
        }
    }
    Ok(())
}

async fn node(ground: &Arc<Ground>, function: &Name, version: &Version) -> Result<Made, NoStart> {
    let node = ground.node(version.pin).await.map_err(NoLaunch::from)?;
    let compiled = Compiled::of(&node, version);
    let kept = |elsewhere| compiled.as_ref().and_then(|compiled| compiled.kept(elsewhere));
    let spare = match ground.spares.take(version) {
        Some(spare) => spare.of(version, kept(true)).await,
        None => None,
    };
    let (mut started, start, version) = if let Some((spare, version)) = spare {
        (spare, Start::Partial, &version.clone())
    } else {
        let home = ground.home()?;
        let env = ground.env(function, version, &home, Some(node.execution_env()))?;
        let reach = ground.reach(version, &home, node.folders().into_iter().chain(kept(false).map(Path::to_owned)))?;
        (
            launch(node.launch(version.memory, env, home, false, reach, ground.bounds(version.limits()))).await?,
            Start::Cold,
            version,
        )
    };
    let env = ground.env(function, version, started.process.home(), Some(node.execution_env()))?;
    let begun = compiled.map(|compiled| compiled.begin(version, started.process.home()));
    let (told, written) = begun.unwrap_or_default();
    let mut frames = frames(ground, &mut started)?;
    // a process that has just ended shows at the first look
    let _ = frames.tell(&NodeJs::load(version, &env, ground.settings.payload_limit, &told));
    let made = Made::new(converse(ground, function, version, started, Dialogue::Frames(frames)), start);
    Ok(Made { written, ..made })
}

async fn provided(ground: &Ground, function: &Name, version: &Version) -> Result<Made, NoStart> {
    let program = version.code.join(&version.handler);
    entry::check(&program, &version.source.join(&version.handler))?;
    let arn = format!("arn:aws:lambda:{}:000000000000:function:{function}", ground.settings.region);
    let api = Api::open(arn, ground.settings.payload_limit, version.slots).await.map_err(NoStart::Listen)?;
    let home = ground.home()?;
    let mut env = ground.env(function, version, &home, None)?;
    env.push(("AWS_LAMBDA_RUNTIME_API".into(), api.address().to_string()));
    let reach = ground.reach(version, &home, [])?;
    let started = launch(Launch {
        program,
        arguments: Vec::new(),
        wires: Wires::Outputs,
        env,
        folder: version.code.clone(),
        home,
        memory: version.most_memory(),
        reach,
        bounds: ground.bounds(version.limits()),
    });
    let started = started.await?;
    let sandboxed = version.isolation != Isolation::Process;
    api.belongs_to(sandboxed.then(|| started.process.group().clone()));
    Ok(Made::new(converse(ground, function, version, started, Dialogue::Api(api)), Start::Cold))
}

/// Starts a command for one invocation.
pub(crate) async fn command(
    ground: &Ground,
    function: &Name,
    version: &Version,
    program: &Program,
    invocation: &Invocation,
    timeout: Duration,
) -> Result<Conversation, NoStart> {
    let home = ground.home()?;
    let mut env = ground.env(function, version, &home, None)?;
    env.extend(invocation_env(invocation, timeout));
    let reach = ground.reach(version, &home, [program.path.clone()])?;
    let started = launch(Launch {
        program: program.path.clone(),
        arguments: program.arguments.clone(),
        wires: Wires::Stdin,
        env,
        folder: version.code.clone(),
        home,
        memory: version.most_memory(),
        reach,
        bounds: ground.bounds(version.limits()),
    });
    let Started { process, stdin, stdout, stderr, .. } = started.await?;
    ground.passing(process.group());
    ground.hold(function, &process, version);
    let once = Once::new(stdin, stdout, invocation.payload.bytes.clone(), ground.settings.payload_limit);
    let output = Output::new(None, stderr, function.clone(), ground.settings.logs.clone());
    Ok(Conversation { process, dialogue: Dialogue::Once(once), output })
}

/// What is read in the environment where an invocation has one of its own.
pub(crate) fn invocation_env(invocation: &Invocation, timeout: Duration) -> Vec<(String, String)> {
    let deadline = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + timeout;
    let mut env = vec![
        ("AWS_LAMBDA_REQUEST_ID".into(), invocation.request_id.to_string()),
        ("AWS_LAMBDA_DEADLINE_MS".into(), deadline.as_millis().to_string()),
        ("FNBUS_EVENT_ID".into(), invocation.event_id.replace('\0', "")),
    ];
    if let Some(trace) = &invocation.trace {
        env.push(("TRACEPARENT".into(), trace.replace('\0', "")));
        env.push(("_X_AMZN_TRACE_ID".into(), trace_id(trace, invocation.request_id).replace('\0', "")));
    }
    env
}

async fn launch(launch: Launch) -> Result<Started, NoStart> {
    let program = launch.program.clone();
    process::start(launch).await.map_err(|source| NoStart::Process { program, source })
}

pub(crate) fn frames(ground: &Ground, started: &mut Started) -> Result<Frames, NoStart> {
    let (requests, answers) = started.frames.take().ok_or(NoStart::NoFrames)?;
    Ok(Frames::new(requests, answers, ground.settings.payload_limit.max(ERROR_LIMIT)))
}

pub(crate) fn converse(
    ground: &Ground,
    function: &Name,
    version: &Version,
    started: Started,
    dialogue: Dialogue,
) -> Conversation {
    let Started { process, stdout, stderr, .. } = started;
    ground.hold(function, &process, version);
    let output = Output::new(Some(stdout), stderr, function.clone(), ground.settings.logs.clone());
    Conversation { process, dialogue, output }
}
