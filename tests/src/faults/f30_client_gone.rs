//! Clients that go away: in the middle of a body, and before they have their answer.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Arena, Fault, Tally, Traffic, Trial, history::History, producer::hash};
use crate::eventually;

pub(super) const FAULT: Fault = Fault {
    number: 30,
    sentence: "clients that leave in the middle of a request, or before the answer",
    short: 5,
    full: 200,
    seconds: 20,
    run: |trial| Box::pin(run(trial)),
};

/// Notes the requests that it has seen to the end.
const ASKED: &str = "import os, time\ndef handler(event, context):\n    time.sleep(0.2)\n    \
    os.write(LOG, (event['queryStringParameters']['n'] + '\\n').encode())\n    return 'too late'\n\
    LOG = os.open(os.environ['LOG'], os.O_APPEND | os.O_CREAT | os.O_WRONLY)\n";

const BODY: &str = r#"{"n": 1, "of": "a client that leaves"}"#;

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    // as many as are asked on a machine that is quick: none is told that all are busy
    let log = project.path().join("notes/asked");
    let asked = format!("concurrency = 16\nenv = {{ LOG = '{}' }}", log.display());
    let project = project.function_with("ask", ASKED, &asked).config("[triggers.ask]\nhttp = 'GET /ask'\nto = 'ask'\n");
    let mut arena = Arena::of(&trial, project).await;
    arena.node.function_ready("ask").await;
    arena.produce(&Traffic::default());
    for cycle in 0..trial.cycles {
        let to = arena.node.http().to_owned();
        let head = |key: &str| {
            format!(
                "POST /jobs HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\nidempotency-key: {key}-{cycle}\r\n\
                 content-length: {}\r\n\r\n",
                BODY.len()
            )
        };
        let half = 1 + arena.dice.below(BODY.len() as u64 - 1) as usize;
        leave(&to, &format!("{}{}", head("half"), &BODY[..half])).await;
        leave(&to, &format!("{}{BODY}", head("whole"))).await;
        leave(&to, &format!("GET /ask?n={cycle} HTTP/1.1\r\nhost: {to}\r\n\r\n")).await;
        trial.passed();
    }
    let cycles = trial.cycles;
    let asked = eventually("every call is finished, though nobody waits", || async {
        let asked = arena.node.read("notes/asked").lines().count();
        (asked >= cycles).then_some(asked)
    });
    let asked = asked.await;
    arena.tally.must(asked == cycles, || format!("{cycles} calls ran {asked} times"));
    arena.heal().await;
    match History::read(arena.node.path(), &arena.node.data()) {
        Ok(history) => {
            let of = |word: &str| history.events.iter().filter(|event| event.id.starts_with(word)).collect::<Vec<_>>();
            let (half, whole) = (of("half-"), of("whole-"));
            arena.tally.must(half.is_empty(), || format!("{} halves of events were accepted", half.len()));
            let bytes = hash(BODY.as_bytes());
            let torn = whole.iter().filter(|event| event.hash.as_ref() != Some(&bytes)).count();
            arena.tally.must(torn == 0, || format!("{torn} events have other bytes than were sent"));
            arena.tally.must(whole.len() <= cycles, || format!("{cycles} requests became {} events", whole.len()));
        }
        Err(error) => arena.tally.broken(format!("the log cannot be read: {error}")),
    }
    arena.check().await
}

/// Sends these bytes and is gone, at once or when the node has taken notice.
async fn leave(to: &str, bytes: &str) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    // read what is there already, which is nothing yet; the rest meets a closed door
    let _ = tokio::time::timeout(std::time::Duration::from_millis(20), stream.read(&mut [0; 1])).await;
}
