//! A bus that is killed again and again, at any moment: nothing accepted is lost, nothing recorded as done runs again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fnbus_tests::{Node, Project, eventually};
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use rusqlite::{Connection, OpenFlags};
use tokio::{net::TcpStream, sync::watch, time::sleep_until};
use uuid::Uuid;

const CYCLES: usize = 20;

/// Appends the ids of the event and of the attempt, in one write.
const CODE: &str = "import os\ndef handler(event, context):\n    \
                    os.write(LOG, f'{context.event_id} {context.aws_request_id}\\n'.encode())\n\
                    LOG = os.open(os.environ['LOG'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n";

/// Numbers of which the same seed gives the same (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// Posts numbered events one after another, and writes down each that was accepted, surely, before the next.
async fn produce(mut address: watch::Receiver<String>, journal: std::path::PathBuf, enough: Arc<AtomicBool>) -> usize {
    let mut journal = File::create(journal).unwrap();
    let mut accepted = 0;
    while !enough.load(Ordering::Relaxed) {
        let to = address.borrow_and_update().clone();
        let Ok(stream) = TcpStream::connect(&to).await else {
            let _ = address.changed().await;
            continue;
        };
        let Ok((mut sender, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
            continue;
        };
        tokio::spawn(connection);
        // One connection lives as long as the bus does.
        while !enough.load(Ordering::Relaxed) && sender.ready().await.is_ok() {
            let request =
                Request::post("/jobs").header("host", &to).body(Full::<bytes::Bytes>::new(accepted.to_string().into()));
            let Ok(response) = sender.send_request(request.unwrap()).await else { break };
            let status = response.status();
            let Ok(body) = http_body_util::BodyExt::collect(response.into_body()).await else { break };
            assert_eq!(status, 202);
            let answer: serde_json::Value = serde_json::from_slice(&body.to_bytes()).unwrap();
            writeln!(journal, "{}", answer["id"].as_str().unwrap()).unwrap();
            journal.sync_data().unwrap();
            accepted += 1;
        }
    }
    accepted
}

/// The events the log of a node that is down calls done.
fn recorded_as_done(data: &Path) -> BTreeSet<String> {
    let log = Connection::open_with_flags(data.join("log.db"), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let mut rows =
        log.prepare("SELECT e.id FROM delivery d JOIN event e ON e.seq = d.event WHERE d.status = 10").unwrap();
    let ids = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    ids.map(|id| Uuid::from_slice(&id.unwrap()).unwrap().to_string()).collect()
}

/// Event and attempt of every execution so far.
fn executions(node: &Node) -> Vec<(String, String)> {
    let ran = node.read("ran");
    ran.lines()
        .map(|line| line.split_once(' ').map(|(event, attempt)| (event.into(), attempt.into())).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_lose_no_accepted_event_and_repeat_no_ended_one() {
    let seed = std::env::var("FNBUS_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = seed.unwrap_or(now.as_nanos() as u64);
    // Shown when the test fails: FNBUS_SEED=… repeats its moments.
    println!("seed {seed}");
    let mut dice = Dice(seed);

    let project = Project::new();
    let keys = format!("concurrency = 2\nenv = {{ LOG = '{}' }}", project.path().join("ran").display());
    let mut node = project
        .function_with("f", CODE, &keys)
        .config("[triggers.jobs]\nhttp = 'POST /jobs'\nmode = 'async'\nto = 'f'\n")
        .start()
        .await;
    let (address, addresses) = watch::channel(node.http().to_owned());
    let enough = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(addresses, node.path().join("journal"), enough.clone()));

    // What was done at the kill, and how many executions there were then.
    let mut kills: Vec<(BTreeSet<String>, usize)> = Vec::new();
    for _ in 0..CYCLES {
        // The moment is what is tested here, so time is what it waits for.
        sleep_until((Instant::now() + Duration::from_millis(5 + dice.below(496))).into()).await;
        node.kill();
        node.nothing_runs().await;
        kills.push((recorded_as_done(&node.data()), executions(&node).len()));
        node.restart().await;
        address.send_replace(node.http().to_owned());
    }
    enough.store(true, Ordering::Relaxed);
    let accepted = producer.await.unwrap();
    assert!(accepted > CYCLES, "only {accepted} events were accepted");

    let unended = || async {
        let totals = node.json(&["node", "--json"]).await.remove(0)["deliveries"].take();
        let open = |status: &str| totals[status].as_u64().unwrap_or_default();
        let open = ["held", "pending", "running", "retrying"].map(open).iter().sum::<u64>();
        (open == 0).then_some(totals)
    };
    let totals = eventually("nothing is left to run", unended).await;
    let log: HashMap<String, String> = node
        .json(&["events", "-n", "1000000", "--json"])
        .await
        .iter()
        .map(|event| (event["id"].as_str().unwrap().to_owned(), event["status"].as_str().unwrap().to_owned()))
        .collect();
    for id in node.read("journal").lines() {
        assert_eq!(log.get(id).map(String::as_str), Some("done"), "seed {seed}: {id} got its 202");
    }
    assert_eq!(totals["done"], log.len(), "seed {seed}: nothing but done: {totals}");

    let ran = executions(&node);
    for (cycle, (done, until)) in kills.iter().enumerate() {
        for (event, attempt) in &ran[*until..] {
            assert!(!done.contains(event), "seed {seed}: {event} was done at kill {cycle} and ran again as {attempt}");
        }
    }
    println!("{accepted} accepted, {} executions of {} events", ran.len(), log.len());
    let attempts: BTreeSet<&str> = ran.iter().map(|(_, attempt)| attempt.as_str()).collect();
    assert_eq!(attempts.len(), ran.len(), "seed {seed}: an attempt ran twice");
    let events: BTreeSet<&str> = ran.iter().map(|(event, _)| event.as_str()).collect();
    assert!(log.keys().all(|id| events.contains(id.as_str())), "seed {seed}: something is done and did not run");

    assert!(node.stop().await.success());
    node.nothing_runs().await;
}
