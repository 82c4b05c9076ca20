//! What a node answers on its socket.

// Dead letters, and settling them.
mod dead;
// The NATS of the bus.
mod nats;
// Pipelines and their runs.
mod runs;
// Versions of functions.
mod versions;
// What triggers do, and steering them.
mod triggers;

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Path, RawQuery, Request, State},
    http::header::{AUTHORIZATION, CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bus::{
    Bus, Event, Name, Sink,
    cloudevent::json,
    log::{
        detail,
        query::{self, Selection},
        replay,
    },
    outcome::{Fault, Start, Times},
    payload::Format,
    presence::{
        FunctionStatus, LogLine, MoveError, Moved, Promote, Steer, SteerError, Steered, TriggerStatus, Unaliased,
        VersionStatus, Which,
    },
    sink::{Call, LogMode},
    target::{Qualifier, Target},
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, future::BoxFuture, stream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{key, problem::Problem, socket::Socket};

pub use dead::{DeadQuery, EditRequest};
pub use nats::{Heard, NatsAddress, Publish, Published, SubscribeQuery};
pub use runs::{PipelineStatus, RunsQuery};

/// Events read at once when following or paging.
const PAGE: usize = 500;
/// Bodies on the socket: an invocation's payload, with room.
const MAX_BODY: usize = 64 << 20;

/// A trigger that is being steered.
pub type Steering = BoxFuture<'static, Result<Steered, SteerError>>;

/// Versions that are looked at or put into service.
pub type Moving<T> = BoxFuture<'static, Result<T, MoveError>>;

/// What the version of a call is called, by what was meant and the id of what ran.
pub type Calling = dyn Fn(Name, Option<Qualifier>, Option<String>) -> BoxFuture<'static, String> + Send + Sync;

/// What others know and the control plane shows.
#[derive(Clone)]
pub struct Views {
    pub functions: Arc<dyn Fn() -> Vec<FunctionStatus> + Send + Sync>,
    pub versions: Arc<dyn Fn(Name) -> Moving<Vec<VersionStatus>> + Send + Sync>,
    pub promote: Arc<dyn Fn(Name, Promote) -> Moving<Moved> + Send + Sync>,
    pub rollback: Arc<dyn Fn(Name, Which) -> Moving<Moved> + Send + Sync>,
    pub unalias: Arc<dyn Fn(Name, Which) -> Moving<Unaliased> + Send + Sync>,
    /// An error when there is no such version or alias.
    pub find_version: Arc<dyn Fn(Name, Qualifier) -> Moving<()> + Send + Sync>,
    pub called: Arc<Calling>,
    pub triggers: Arc<dyn Fn() -> Vec<TriggerStatus> + Send + Sync>,
    /// Tells a trigger that there is to do something.
    pub steer: Arc<dyn Fn(Name, Steer) -> Steering + Send + Sync>,
    pub logs: broadcast::Sender<LogLine>,
    /// Addresses and folders, as `up` prints them.
    pub node: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

/// The control plane of one node.
#[derive(Clone)]
pub struct Control {
    bus: Bus,
    views: Views,
    shutdown: CancellationToken,
}

/// `fnbus events`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventsQuery {
    pub selection: query::Selection,
    pub limit: Option<usize>,
    /// Go on with what happens from now.
    pub follow: bool,
}

/// `fnbus logs`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LogsQuery {
    pub function: Option<Name>,
    pub limit: Option<usize>,
    pub follow: bool,
}

/// The answer to an invocation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Invoked {
    pub event: String,
    pub outcome: String,
    pub fault: Option<Fault>,
    pub log: String,
    pub version: String,
    pub start: Start,
    pub times: Times,
    /// The output, when it is text.
    pub output: Option<String>,
    pub output_base64: Option<String>,
}

/// The answer to an emitted event.
#[derive(Debug, Serialize, Deserialize)]
pub struct Emitted {
    pub id: String,
    pub deliveries: usize,
    pub duplicate: bool,
}

impl Control {
    pub fn new(bus: Bus, views: Views) -> Self {
        Self { bus, views, shutdown: CancellationToken::new() }
    }

    /// Answers until shut down; what is being answered is finished, streams are ended.
    pub async fn run(self, socket: Socket, shutdown: CancellationToken) {
        let Socket { listener, key, .. } = socket;
        let expected: Arc<str> = key::expected(&key).into();
        let streams = self.shutdown.clone();
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/v1/node", get(node))
            .route("/v1/events", get(events).post(emit))
            .route("/v1/events/{id}", get(show))
            .route("/v1/functions", get(functions))
            .route("/v1/functions/{name}/invoke", post(invoke))
            .route("/v1/functions/{name}/versions", get(versions::list))
            .route("/v1/functions/{name}/promote", post(versions::promote))
            .route("/v1/functions/{name}/rollback", post(versions::rollback))
            .route("/v1/functions/{name}/unalias", post(versions::unalias))
            .route("/v1/triggers", get(triggers::list))
            .route("/v1/triggers/{name}/{steer}", post(triggers::steer))
            .route("/v1/pipelines", get(runs::pipelines))
            .route("/v1/runs", get(runs::list))
            .route("/v1/runs/{id}", get(runs::show))
            .route("/v1/nats", get(nats::address))
            .route("/v1/nats/publish", post(nats::publish))
            .route("/v1/nats/subscribe", get(nats::subscribe))
            .route("/v1/dead", get(dead::list))
            .route("/v1/dead/totals", get(dead::totals))
            .route("/v1/dead/drop", post(dead::drop))
            .route("/v1/dead/edit", post(dead::edit))
            .route("/v1/replays/plan", post(plan))
            .route("/v1/replays", post(replay))
            .route("/v1/logs", get(logs))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(expected, with_key))
            .with_state(self);
        let ended = async move {
            shutdown.cancelled().await;
            streams.cancel();
        };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
            tracing::error!(%error, "the control socket failed");
        }
    }
}

/// Answers who has the key.
async fn with_key(State(expected): State<Arc<str>>, request: Request, next: Next) -> Response {
    match request.headers().get(AUTHORIZATION) {
        Some(given) if given.as_bytes() == expected.as_bytes() => next.run(request).await,
        _ => Problem::no_key().into_response(),
    }
}

/// Questions have structure, so they travel as one JSON value in the query string.
fn asked<T: DeserializeOwned + Default>(query: Option<&str>) -> Result<T, Problem> {
    let Some(text) = query.and_then(|query| query.strip_prefix("q=")) else { return Ok(T::default()) };
    let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    serde_json::from_str(&text).map_err(|error| Problem::bad_request(format!("the question does not read: {error}")))
}

async fn node(State(control): State<Control>) -> Result<Json<serde_json::Value>, Problem> {
    let mut node = (control.views.node)();
    let totals = control.bus.log().read(query::totals).await?;
    node["deliveries"] = totals.into_iter().map(|(status, n)| (status, serde_json::Value::from(n))).collect();
    node["log_bytes"] = control.bus.log().size().into();
    if let Some(trouble) = control.bus.log().trouble() {
        node["log_trouble"] = trouble.to_string().into();
    }
    let (used, most) = control.bus.log().sizes();
    node["log_used"] = used.into();
    node["log_max"] = most.into();
    node["accepting"] = control.bus.log().reached().is_none().into();
    node["calls_not_logged"] = control.bus.log().calls().dropped().into();
    node["late_outcomes"] = control.bus.owner().late_outcomes().into();
    node["conflicts"] = control.bus.owner().conflicts().into();
    let pinned = (control.views.functions)().into_iter().filter(|function| function.pinned);
    node["pinned"] = pinned.map(|f| (f.name.to_string(), serde_json::Value::from(f.number))).collect();
    node["nats_connected"] = control.bus.nats().is_connected().into();
    Ok(Json(node))
}

async fn events(State(control): State<Control>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let EventsQuery { selection, limit, follow } = asked(query.as_deref())?;
    control.bus.log().calls().flush().await;
    let chosen = selection.clone();
    let first = control.bus.log().read(move |c| query::events(c, &chosen, limit.unwrap_or(50))).await?;
    if !follow {
        return Ok(lines(stream::iter(first)));
    }
    let (sender, receiver) = mpsc::channel(PAGE);
    tokio::spawn(async move {
        let shutdown = control.shutdown.clone();
        tokio::select! {
            () = follow_events(&control.bus, selection, first, &sender) => {}
            () = sender.closed() => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(lines(stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })))
}

/// History, then what comes: each event once, in the order of the log.
async fn follow_events(
    bus: &Bus,
    selection: query::Selection,
    first: Vec<query::EventRow>,
    to: &mpsc::Sender<query::EventRow>,
) {
    let mut commits = bus.log().commits();
    let mut after = first.last().map(|row| row.seq);
    if after.is_none() {
        after = bus.log().read(query::newest).await.ok();
    }
    let mut after = after.unwrap_or_default();
    let mut rows = first;
    loop {
        for row in rows {
            after = row.seq;
            if to.send(row).await.is_err() {
                return;
            }
        }
        // Seen before the look, so a commit during it is not missed.
        commits.borrow_and_update();
        let chosen = selection.clone();
        let next = bus.log().read(move |c| query::events_after(c, &chosen, after, PAGE)).await;
        match next {
            Ok(next) => rows = next,
            Err(error) => {
                tracing::warn!(%error, "events can no longer be followed");
                return;
            }
        }
        if rows.is_empty() && commits.changed().await.is_err() {
            return;
        }
    }
}

async fn show(State(control): State<Control>, Path(id): Path<String>) -> Result<Json<detail::EventDetail>, Problem> {
    control.bus.log().calls().flush().await;
    let mut event = control.bus.log().read(move |c| detail::show(c, &id)).await?;
    let catalog = control.bus.owner().catalog();
    event.deliveries.iter_mut().for_each(|delivery| delivery.explain(&catalog));
    Ok(Json(event))
}

async fn emit(State(control): State<Control>, body: Bytes) -> Result<Json<Emitted>, Problem> {
    let source = format!("/{}", control.bus.subjects().namespace()).into();
    let event = json::read_loose(&body, &source)?;
    let accepted = control.bus.accept(event).await?;
    Ok(Json(Emitted { id: accepted.id.to_string(), deliveries: accepted.deliveries, duplicate: accepted.duplicate }))
}

async fn functions(State(control): State<Control>) -> Json<Vec<FunctionStatus>> {
    Json((control.views.functions)())
}

async fn invoke(
    State(control): State<Control>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Invoked>, Problem> {
    let catalog = control.bus.owner().catalog().clone();
    // a pipeline is invoked as it is called: a run, and its last output
    let is_known = |name: &Name| catalog.functions.contains_key(name) || catalog.pipelines.contains_key(name);
    let target = name.parse::<Target>().ok();
    let Some(function) = target.as_ref().and_then(|target| target.name()).filter(|name| is_known(name)).cloned() else {
        let mut known: Vec<String> =
            catalog.functions.keys().chain(catalog.pipelines.keys()).map(Name::to_string).collect();
        known.sort();
        return Err(Problem::unknown_function(&name, &known));
    };
    let mut event = Event::new(format!("/{}/invoke", control.bus.subjects().namespace()), "function.invoke", body);
    if serde_json::from_slice::<serde::de::IgnoredAny>(&event.data).is_ok() {
        event.datacontenttype = Some("application/json".into());
    }
    let version = target.and_then(|target| target.version().cloned());
    if let Some(version) = &version {
        (control.views.find_version)(function.clone(), version.clone()).await?;
    }
    let call = Call { function, version, format: Format::Body, timeout: None, log: LogMode::Full, outlet: None };
    let reply = control.bus.call(event, call).await?;
    let outcome = reply.outcome;
    let text = std::str::from_utf8(&outcome.output).ok().map(str::to_owned);
    Ok(Json(Invoked {
        event: reply.event.to_string(),
        outcome: outcome.ending.as_str().to_owned(),
        fault: outcome.fault,
        log: outcome.log,
        version: outcome.version.to_string(),
        start: outcome.start,
        times: outcome.times,
        output_base64: text
            .is_none()
            .then(|| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &outcome.output)),
        output: text,
    }))
}

async fn plan(
    State(control): State<Control>,
    Json(request): Json<replay::Request>,
) -> Result<Json<replay::Plan>, Problem> {
    check(&control, &request)?;
    known_target(&control, &request.selection).await?;
    control.bus.log().calls().flush().await;
    Ok(Json(control.bus.log().read(move |c| replay::plan(c, &request)).await?))
}

async fn replay(
    State(control): State<Control>,
    Json(request): Json<replay::Request>,
) -> Result<Json<replay::Created>, Problem> {
    check(&control, &request)?;
    Ok(Json(control.bus.owner().replay(request).await?))
}

fn check(control: &Control, request: &replay::Request) -> Result<(), Problem> {
    request.to.as_ref().map_or(Ok(()), |to| known(control, to))
}

/// Whether the config has a function.
fn known(control: &Control, function: &Name) -> Result<(), Problem> {
    let catalog = control.bus.owner().catalog();
    if catalog.functions.contains_key(function) {
        return Ok(());
    }
    Err(Problem::unknown_function(function.as_str(), &catalog.function_names()))
}

/// What nothing is bound to and nothing was ever delivered to is most likely misspelt.
async fn known_target(control: &Control, selection: &Selection) -> Result<(), Problem> {
    let Some(target) = &selection.function else { return Ok(()) };
    let mut known: BTreeSet<String> = {
        let catalog = control.bus.owner().catalog();
        catalog.functions.keys().chain(catalog.pipelines.keys()).map(Name::to_string).collect()
    };
    if !known.contains(target) {
        known.extend(control.bus.log().read(query::targets).await?);
    }
    if known.contains(target) {
        return Ok(());
    }
    Err(Problem::unknown_target(target, &known.into_iter().collect::<Vec<_>>()))
}

async fn logs(State(control): State<Control>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let LogsQuery { function, limit, follow } = asked(query.as_deref())?;
    // Subscribed before history is read and the answer begins: whoever has its head misses nothing printed after, and a
    // line may come twice. What an attempt under way had printed before is shown by the next question.
    let live = control.views.logs.subscribe();
    control.bus.log().calls().flush().await;
    let chosen = function.clone();
    let history = control.bus.log().read(move |c| query::logs(c, chosen.as_ref(), limit.unwrap_or(100))).await?;
    // one that has gone from the config may have printed before
    if let Some(name) = function.as_ref().filter(|_| history.is_empty()) {
        known(&control, name)?;
    }
    let history = stream::iter(history).map(|line| json_line(&line));
    if !follow {
        return Ok(body(history));
    }
    let shutdown = control.shutdown.clone();
    let live = stream::unfold(live, move |mut live| {
        let (function, shutdown) = (function.clone(), shutdown.clone());
        async move {
            loop {
                let line = tokio::select! {
                    line = live.recv() => line,
                    () = shutdown.cancelled() => return None,
                };
                match line {
                    Ok(line) if function.as_ref().is_none_or(|wanted| *wanted == line.function) => {
                        return Some((json_line(&line), live));
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        return Some((json_line(&serde_json::json!({ "missed": missed })), live));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        }
    });
    Ok(body(history.chain(live)))
}

fn lines<T: Serialize>(rows: impl Stream<Item = T> + Send + 'static) -> Response {
    body(rows.map(|row| json_line(&row)))
}

fn json_line<T: Serialize>(row: &T) -> Bytes {
    let mut line = serde_json::to_vec(row).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn body(lines: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}
