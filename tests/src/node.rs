//! A running `fnbus up`.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::Mutex,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    eventually,
    following::Following,
    http::{Answer, open, send},
    process::{Process, children},
    project::Project,
};

/// A node that runs, until it is dropped. What it says is shown when the test fails.
pub struct Node {
    project: Project,
    child: Mutex<Child>,
    http: String,
}

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Stdout as one JSON value a line.
    pub fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Both streams, for what a person would read.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Node {
    pub(crate) async fn start(project: Project) -> Self {
        project.write_config();
        let child = spawn(&project);
        let mut node = Self { project, child: Mutex::new(child), http: String::new() };
        node.is_ready().await;
        node
    }

    async fn is_ready(&mut self) {
        if let Err(status) = self.ready().await {
            panic!("fnbus ended at once ({status}):\n{}", self.said());
        }
    }

    /// Waits until the node answers and knows where, or has ended.
    async fn ready(&mut self) -> Result<(), ExitStatus> {
        let node = eventually("the node is ready", || async {
            if let Ok(Some(status)) = self.child.lock().unwrap().try_wait() {
                return Some(Err(status));
            }
            let output = self.fnbus(&["node", "--json"]).await;
            (output.code() == 0).then(|| Ok(output.lines().remove(0)))
        });
        let node = node.await?;
        node["http"].as_str().unwrap().trim_start_matches("http://").clone_into(&mut self.http);
        Ok(())
    }

    /// Kills the node with SIGKILL and waits until it is gone, with all it left.
    pub fn kill(&self) {
        kill(&mut self.child.lock().unwrap());
    }

    /// Kills the process above the node with SIGKILL, and waits until that one is gone.
    pub fn kill_warden(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again with another `fnbus.toml`.
    pub async fn restart_with(&mut self, toml: &str) {
        self.configure(toml);
        self.restart().await;
    }

    /// Starts it again after it ended, on what is in its folders.
    pub async fn restart(&mut self) {
        self.launch();
        self.is_ready().await;
    }

    /// The same for a node that may end before it is ready; then how it ended.
    pub async fn try_restart(&mut self) -> Result<(), ExitStatus> {
        self.launch();
        self.ready().await
    }

    /// Starts it again and waits for nothing.
    pub fn launch(&mut self) {
        *self.child.lock().unwrap() = spawn(&self.project);
    }

    /// Sets a variable in the environment of the next start.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.project.set_variable(name, value);
    }

    /// Sends a signal to what was started, as a shell or a service manager does: to the warden. What stops a process and
    /// lets it go on cannot be handed on, so it is for the node.
    pub fn signal(&self, signal: Signal) {
        let stops = [Signal::STOP, Signal::CONT].contains(&signal);
        kill_process(if stops { self.process() } else { self.warden() }, signal).unwrap();
    }

    /// Ends it in order and waits.
    pub async fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&self) -> ExitStatus {
        eventually("the node ends", || async { self.child.lock().unwrap().try_wait().unwrap() }).await
    }

    /// What was started: the process above the node.
    pub fn warden(&self) -> Pid {
        Pid::from_child(&self.child.lock().unwrap())
    }

    /// The process that serves, which need not be the one that was started.
    pub async fn serving(&self) -> Process {
        let pid = self.json(&["node", "--json"]).await[0]["pid"].as_i64().unwrap();
        Process { pid: i32::try_from(pid).unwrap(), command: "fnbus".to_owned() }
    }

    /// The node itself, the first child of its warden.
    pub fn process(&self) -> Pid {
        let children = children(self.warden());
        *children.first().expect("the node runs")
    }

    /// `127.0.0.1:PORT`.
    pub fn http(&self) -> &str {
        &self.http
    }

    pub fn project(&self) -> &Project {
        &self.project
    }

    pub fn path(&self) -> &Path {
        self.project.path()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.path().join(".fnbus")
    }

    /// What it has printed so far, both streams.
    pub fn said(&self) -> String {
        let mut text = String::new();
        let _ = File::open(self.path().join("up.log")).and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    /// Waits until it has printed `text`.
    pub async fn says(&self, text: &str) {
        eventually(&format!("the node says {text:?}"), || async { self.said().contains(text).then_some(()) }).await;
    }

    /// The same for the `times`-th time.
    pub async fn says_again(&self, text: &str, times: usize) {
        eventually(&format!("the node says {text:?} for the {times}. time"), || async {
            (self.said().matches(text).count() >= times).then_some(())
        })
        .await;
    }

    /// Runs a `fnbus` command on this node.
    pub async fn fnbus(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.project.command(arguments));
        command.stdin(Stdio::null()).output().await.unwrap().into()
    }

    /// The same with something on its stdin.
    pub async fn fnbus_with(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        use tokio::io::AsyncWriteExt;
        let mut command = tokio::process::Command::from(self.project.command(arguments));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).await.unwrap();
        child.wait_with_output().await.unwrap().into()
    }

    /// Starts a command that goes on, such as `events --follow`.
    pub fn follow(&self, arguments: &[&str]) -> Following {
        Following::start(self.project.command(arguments))
    }

    /// `fnbus logs -f`, when it hears all that is printed from now on.
    pub async fn follow_logs(&self, arguments: &[&str]) -> Following {
        let mut following = self.follow(&[&["logs", "-f"], arguments].concat());
        following.says("from now on").await;
        following
    }

    /// Writes another `fnbus.toml`; see [`Project::toml`] for the one it began with.
    pub fn configure(&self, toml: &str) {
        self.write("fnbus.toml", toml);
    }

    /// The same, and waits until it is in force.
    pub async fn reconfigure(&self, toml: &str) {
        const DONE: &str = "the config file was read again";
        let times = || self.said().matches(DONE).count();
        let before = times();
        self.configure(toml);
        eventually("the config is in force", || async { (times() > before).then_some(()) }).await;
    }

    /// Writes a file of the project.
    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path().join(path), text).unwrap();
    }

    /// A file of the project as text; empty when there is none.
    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path().join(path)).unwrap_or_default()
    }

    /// Waits until a file of the project has a line, and gives all of them.
    pub async fn lines_of(&self, path: &str, at_least: usize) -> Vec<String> {
        eventually(&format!("{path} has {at_least} lines"), || async {
            let lines: Vec<String> = self.read(path).lines().map(str::to_owned).collect();
            (lines.len() >= at_least).then_some(lines)
        })
        .await
    }

    /// What `fnbus functions` says of one.
    pub async fn function(&self, name: &str) -> Value {
        let all = self.json(&["functions", "--json"]).await;
        all.into_iter().find(|function| function["name"] == name).expect("the function is configured")
    }

    /// Waits until a function's code is loaded.
    pub async fn function_ready(&self, name: &str) -> Value {
        eventually(&format!("{name} is ready"), || async {
            let function = self.function(name).await;
            (function["state"] == "ready").then_some(function)
        })
        .await
    }

    /// How many deliveries have this status.
    pub async fn deliveries(&self, status: &str) -> u64 {
        self.json(&["node", "--json"]).await[0]["deliveries"][status].as_u64().unwrap_or_default()
    }

    /// Waits until so many deliveries have this status.
    pub async fn deliveries_are(&self, status: &str, number: u64) {
        eventually(&format!("{number} deliveries are {status}"), || async {
            (self.deliveries(status).await == number).then_some(())
        })
        .await;
    }

    /// Waits until a queue trigger reads its stream: what was published before there is one is nobody's.
    pub async fn reads(&self, trigger: &str, stream: &str) {
        eventually(&format!("`{trigger}` reads {stream}"), || async {
            let triggers = self.json(&["triggers", "--json"]).await;
            let trigger = triggers.iter().find(|known| known["name"] == trigger)?;
            (trigger["state"] == format!("reading {stream}")).then_some(())
        })
        .await;
    }

    /// Whether this machine holds functions back from all that begins with these words; a test that needs it is skipped, which
    /// is said.
    pub async fn enforces(&self, what: &str) -> bool {
        let found = self.json(&["doctor", "--json"]).await.remove(0);
        let parts = found["isolation"]["parts"].as_array().cloned().unwrap_or_default();
        let mut meant =
            parts.iter().filter(|part| part["what"].as_str().is_some_and(|is| is.starts_with(what))).peekable();
        let enforced = meant.peek().is_some() && meant.all(|part| part["enforced"] == true);
        if !enforced {
            println!("skipped: this machine does not enforce it: {parts:?}");
        }
        enforced
    }

    /// Everything that runs of this project besides the node itself: its nats-server, its functions, what they left.
    pub fn processes(&self) -> Vec<Process> {
        Process::of(self.path())
    }

    /// The nats-server of this node.
    pub async fn nats_server(&self) -> Process {
        eventually("nats-server runs", || async {
            self.processes().into_iter().find(|process| process.command.contains("server.conf"))
        })
        .await
    }

    /// Waits until nothing of it runs any more.
    pub async fn nothing_runs(&self) {
        eventually("all processes are gone", || async { self.processes().is_empty().then_some(()) }).await;
    }

    /// Runs a command, which must succeed; its lines of JSON.
    pub async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.fnbus(arguments).await;
        assert_eq!(output.code(), 0, "fnbus {arguments:?} failed: {}", output.all());
        output.lines()
    }

    /// Everything the log knows of an event.
    pub async fn show(&self, id: &str) -> Value {
        self.json(&["show", id, "--json"]).await.remove(0)
    }

    /// Waits until an event has this status, and gives everything about it.
    pub async fn event_is(&self, id: &str, status: &str) -> Value {
        eventually(&format!("event {id} is {status}"), || async {
            let event = self.show(id).await;
            (event["status"] == status).then_some(event)
        })
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Request::post(path).header("content-type", "application/json"), body).await
    }

    /// Sends any request.
    pub async fn send(&self, request: hyper::http::request::Builder, body: impl Into<Bytes>) -> Answer {
        self.try_send(request, body).await.unwrap()
    }

    /// The same when there may be no answer.
    pub async fn try_send(
        &self,
        request: hyper::http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let request = request.header("host", &self.http).body(Full::new(body.into())).unwrap();
        send(&self.http, request).await
    }

    /// Sends a request and leaves the body of the answer to be read.
    pub async fn open(
        &self,
        request: hyper::http::request::Builder,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, String> {
        let request = request.header("host", &self.http).body(Full::new(body.into())).unwrap();
        open(&self.http, request).await
    }

    /// The address of its Lambda API, `127.0.0.1:PORT`.
    pub async fn api(&self) -> String {
        let node = self.json(&["node", "--json"]).await.remove(0);
        node["api"].as_str().expect("the API is served").trim_start_matches("http://").to_owned()
    }

    /// Sends a request to its Lambda API; by its own name, unless another `host` is given.
    pub async fn ask_api(&self, mut request: hyper::http::request::Builder, body: impl Into<Bytes>) -> Answer {
        let address = self.api().await;
        if request.headers_ref().is_some_and(|headers| !headers.contains_key("host")) {
            request = request.header("host", &address);
        }
        send(&address, request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    /// Posts and gives the id of the 202.
    pub async fn accepted(&self, path: &str, body: impl Into<Bytes>) -> String {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        answer.json::<Value>()["id"].as_str().unwrap().to_owned()
    }
}

fn spawn(project: &Project) -> Child {
    let log = File::options().create(true).append(true).open(project.prints()).unwrap();
    let mut command = project.up();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// Kills the node below a warden, and waits for that one: it ends when everything below it has.
fn kill(warden: &mut Child) {
    if !matches!(warden.try_wait(), Ok(None)) {
        return;
    }
    match children(Pid::from_child(warden)).first() {
        Some(node) => drop(kill_process(*node, Signal::KILL)),
        // it has only just been started
        None => drop(warden.kill()),
    }
    let _ = warden.wait();
}

impl Drop for Node {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        kill(child);
        if std::thread::panicking() {
            eprintln!("--- fnbus said:\n{}---", self.said());
        }
    }
}
