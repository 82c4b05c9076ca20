//! A client that posts numbered events and writes down each one that was accepted, surely, before it goes on. It
//! survives whatever happens to the node: what was not answered is sent again where it has a key of its own, and given
//! up where it has not.

use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::Dice;

/// The file of a project that the producer writes to.
pub const JOURNAL: &str = "journal";

/// An unanswered request is waited for so long when the load ends.
const GRACE: Duration = Duration::from_secs(5);

/// What is sent.
#[derive(Debug, Clone)]
pub struct Traffic {
    pub connections: u64,
    /// Events a second over all connections; none: one as soon as the one before is accepted.
    pub rate: Option<u64>,
    /// Where to, at random.
    pub paths: &'static [&'static str],
    /// Different `key`s.
    pub keys: u64,
    /// Percent of the events whose first executions fail.
    pub failing: u64,
    /// Percent of the events with an `Idempotency-Key`. Of these a third is sent again, and some with another body.
    pub keyed: u64,
    /// Milliseconds each execution takes at most.
    pub slow: u64,
    /// Bytes of the largest bodies.
    pub largest: u64,
}

impl Default for Traffic {
    /// Some of everything, about as much as a small machine carries away.
    fn default() -> Self {
        Self {
            connections: 2,
            rate: Some(120),
            paths: &["/jobs", "/runs", "/keyed"],
            keys: 5,
            failing: 5,
            keyed: 20,
            slow: 0,
            largest: 300_000,
        }
    }
}

/// One line of the journal: an event that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its id in the log.
    pub id: String,
    /// SHA-256 of its body, in hexadecimal.
    pub hash: String,
    pub path: String,
}

/// What was answered besides 202.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    pub accepted: usize,
    /// Refused for now: 429, 503, 507.
    pub refused: usize,
    /// Answers that should not have been.
    pub wrong: Vec<String>,
}

/// A load that goes on until it is stopped.
pub struct Producer {
    address: watch::Sender<String>,
    enough: Arc<AtomicBool>,
    answers: Arc<Mutex<Answers>>,
    connections: JoinSet<()>,
}

impl Producer {
    /// Begins to send to the node at `address`; what is accepted goes to the journal in `folder`.
    pub fn start(address: &str, folder: &Path, traffic: &Traffic, dice: &mut Dice) -> Self {
        let journal = Arc::new(Journal::open(&folder.join(JOURNAL)));
        let (sender, address) = watch::channel(address.to_owned());
        let (enough, answers) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let mut connections = JoinSet::new();
        for _ in 0..traffic.connections {
            let mut dice = dice.split();
            let connection = Connection {
                address: address.clone(),
                enough: enough.clone(),
                journal: journal.clone(),
                answers: Arc::clone(&answers),
                traffic: traffic.clone(),
                // keys of several connections, and of several loads on one log, never meet
                salt: dice.below(1 << 48),
                dice,
            };
            connections.spawn(connection.run());
        }
        Self { address: sender, enough, answers, connections }
    }

    /// The node has moved.
    pub fn address(&self, address: &str) {
        self.address.send_replace(address.to_owned());
    }

    pub fn answers(&self) -> Answers {
        self.answers.lock().unwrap().clone()
    }

    /// Ends the load.
    pub async fn stop(mut self) -> Answers {
        self.enough.store(true, Ordering::Relaxed);
        let ended = async { while self.connections.join_next().await.is_some() {} };
        let _ = timeout(GRACE, ended).await;
        self.answers()
    }
}

/// What is synced before anybody goes on; those who come together share a sync.
struct Journal {
    file: File,
    /// Lines that were written.
    written: AtomicU64,
    /// Lines that are surely there.
    synced: tokio::sync::Mutex<u64>,
}

impl Journal {
    fn open(path: &Path) -> Self {
        let file = File::options().create(true).append(true).open(path).unwrap();
        Self { file, written: AtomicU64::new(0), synced: tokio::sync::Mutex::new(0) }
    }

    async fn keep(self: &Arc<Self>, line: &Accepted) {
        let line = format!("{}\n", serde_json::to_string(line).unwrap());
        (&self.file).write_all(line.as_bytes()).unwrap();
        let mine = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        let mut synced = self.synced.lock().await;
        if *synced < mine {
            let upto = self.written.load(Ordering::SeqCst);
            let journal = Arc::clone(self);
            tokio::task::spawn_blocking(move || journal.file.sync_data().unwrap()).await.unwrap();
            *synced = upto;
        }
    }
}

struct Connection {
    address: watch::Receiver<String>,
    enough: Arc<AtomicBool>,
    journal: Arc<Journal>,
    answers: Arc<Mutex<Answers>>,
    traffic: Traffic,
    salt: u64,
    dice: Dice,
}

/// An event to be sent.
struct Post {
    path: &'static str,
    body: Bytes,
    json: bool,
    key: Option<String>,
}

impl Connection {
    async fn run(mut self) {
        let mut n = 0;
        let mut unanswered: Option<Post> = None;
        while !self.is_enough() {
            let to = self.address.borrow_and_update().clone();
            let Ok(stream) = TcpStream::connect(&to).await else {
                // Nobody listens: until the node is there again, at this address or another.
                let _ = timeout(Duration::from_millis(50), self.address.changed()).await;
                continue;
            };
            let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else { continue };
            tokio::spawn(connection);
            while !self.is_enough() {
                let post = unanswered.take().unwrap_or_else(|| self.post(&mut n));
                if self.exchange(&mut sender, &to, &post).await.is_none() {
                    unanswered = Some(post).filter(|post| post.key.is_some());
                    break;
                }
                if let Some(rate) = self.traffic.rate {
                    sleep(Duration::from_secs_f64(self.traffic.connections as f64 / rate as f64)).await;
                }
            }
        }
    }

    fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// The next event.
    fn post(&mut self, n: &mut u64) -> Post {
        *n += 1;
        let (traffic, dice) = (&self.traffic, &mut self.dice);
        let path = *dice.pick(traffic.paths);
        let key = dice.percent(traffic.keyed).then(|| format!("{:x}-{n}", self.salt));
        if path == "/jobs" && dice.percent(3) {
            return Post { path, body: Bytes::new(), json: false, key };
        }
        let length = match dice.below(100) {
            0..=1 => dice.below(traffic.largest.max(1)),
            2..=9 => dice.below((traffic.largest / 10).max(1)),
            _ => dice.below(200.min(traffic.largest.max(1))),
        };
        let fail = if dice.percent(traffic.failing) { 1 + dice.below(2) } else { 0 };
        let slow = if traffic.slow > 0 { dice.below(traffic.slow) } else { 0 };
        let pad: String = (0..length).map(|_| char::from(b'a' + dice.below(26) as u8)).collect();
        let key_of = format!("k{}", dice.below(traffic.keys.max(1)));
        let body = json!({ "n": n, "salt": self.salt, "key": key_of, "fail": fail, "slow": slow, "pad": pad });
        Post { path, body: body.to_string().into(), json: true, key }
    }

    /// Sends it and what belongs to it; none when the connection is lost.
    async fn exchange(&mut self, sender: &mut http1::SendRequest<Full<Bytes>>, to: &str, post: &Post) -> Option<()> {
        let Answer { status, said: answer, patient } = send(sender, to, post).await?;
        match status {
            StatusCode::ACCEPTED => self.accepted(post, &answer).await,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
                self.answers.lock().unwrap().refused += 1;
                if !patient {
                    self.wrong(format!("a {status} does not say when to come again: {answer}"));
                }
                sleep(Duration::from_millis(20)).await;
                return Some(());
            }
            other => self.wrong(format!("{} was answered {other}: {answer}", post.path)),
        }
        if post.key.is_some() && self.dice.percent(30) {
            let again = send(sender, to, post).await?;
            if again.status == StatusCode::ACCEPTED && again.said["id"] != answer["id"] {
                self.wrong(format!("the same key again got another event: {answer} and {}", again.said));
            }
            let other = Post { path: post.path, body: "{\"other\":1}".into(), json: true, key: post.key.clone() };
            let Answer { status, said: answer, .. } = send(sender, to, &other).await?;
            let refused = [StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
            if !refused && !status.is_server_error() {
                self.wrong(format!("another body under the same key was answered {status}: {answer}"));
            }
        }
        Some(())
    }

    async fn accepted(&self, post: &Post, answer: &Value) {
        let Some(id) = answer["id"].as_str() else { return self.wrong(format!("a 202 without an id: {answer}")) };
        let line = Accepted { id: id.to_owned(), hash: hash(&post.body), path: post.path.to_owned() };
        self.journal.keep(&line).await;
        self.answers.lock().unwrap().accepted += 1;
    }

    fn wrong(&self, note: String) {
        self.answers.lock().unwrap().wrong.push(note);
    }
}

struct Answer {
    status: StatusCode,
    said: Value,
    /// It says when to come again.
    patient: bool,
}

async fn send(sender: &mut http1::SendRequest<Full<Bytes>>, to: &str, post: &Post) -> Option<Answer> {
    sender.ready().await.ok()?;
    let mut request = Request::post(post.path).header("host", to);
    if post.json {
        request = request.header("content-type", "application/json");
    }
    if let Some(key) = &post.key {
        request = request.header("idempotency-key", key);
    }
    let response = sender.send_request(request.body(Full::new(post.body.clone())).unwrap()).await.ok()?;
    let (status, patient) = (response.status(), response.headers().contains_key("retry-after"));
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some(Answer { status, said: serde_json::from_slice(&body).unwrap_or_default(), patient })
}

/// SHA-256 in hexadecimal.
pub fn hash(data: &[u8]) -> String {
    Sha256::digest(data).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
