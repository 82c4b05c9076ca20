//! The source of queue triggers restarts, gives messages again and in another order, is deleted and made anew, and has poison in
//! it. Each message is one event all the same.

use std::{collections::HashMap, fs::File, io::Write as _, path::Path, time::Duration};

use async_nats::{HeaderMap, jetstream};
use serde_json::json;

use super::{
    Arena, Fault, Tally, Trial,
    history::{History, open},
    producer::{Accepted, JOURNAL, hash},
};
use crate::{Nats, eventually};

pub(super) const FAULT: Fault = Fault {
    number: 28,
    sentence: "the source of a queue restarts, redelivers, reorders, is made anew and has poison in it",
    short: 1,
    full: 15,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

/// Messages with ids of their sender, and messages that are known by their place.
const SOURCES: [&str; 2] = ["named", "placed"];
/// Messages that are sent at a time.
const SOME: usize = 15;
/// What no function that expects JSON can take, and what ends its process: not one of them is in anybody's way.
const POISON: [&str; 2] = ["{ no JSON", r#"{"do": "exit"}"#];

async fn run(trial: Trial) -> Tally {
    let mut nats = Nats::start(&["-js"]).await;
    let config = "[triggers.named]\nqueue = 'nats:named.*'\ndedup = 'msg-id'\npayload = 'body'\norder_by = 'data.key'\n\
                  to = 'keyed'\n[triggers.placed]\nqueue = 'nats:placed.*'\npayload = 'body'\nto = 'work'\n";
    let project = Arena::project().config(config).argument("--nats").argument(&nats.url);
    let mut arena = Arena::of(&trial, project).await;
    let mut source = Source::of(&nats, arena.node.path(), arena.dice.below(1 << 48)).await;
    for _ in 0..trial.cycles {
        source.send(SOME).await;
        // it restarts while messages are on their way
        nats.kill();
        nats.restart();
        source.send(SOME).await;
        // the node dies when a message is taken and not acknowledged: it comes again, and behind others
        arena.kill().await;
        source.send(SOME).await;
        let nth = 1 + arena.dice.below(SOME as u64);
        arena.node.set_variable("FNBUS_FAILPOINTS", &format!("accept.committed=kill@{nth}"));
        if arena.try_restart().await.is_ok() {
            arena.node.ended().await;
        }
        arena.died().await;
        arena.node.set_variable("FNBUS_FAILPOINTS", "");
        arena.restart().await;
        for poison in POISON {
            source.poison(poison).await;
        }
        source.send(SOME).await;
        source.drained().await;
        // made anew it counts from one again, and knows nothing of the ids it had
        for name in SOURCES {
            source.stream(name).await.expect("the stream is there");
            source.jetstream.delete_stream(format!("fnbus_in_{name}")).await.unwrap();
        }
        for name in SOURCES {
            eventually("the stream is made again", || async { source.stream(name).await }).await;
        }
        source.again().await;
        source.send(SOME).await;
        trial.passed();
    }
    source.drained().await;
    arena.heal().await;
    match History::read(arena.node.path(), &arena.node.data()) {
        Ok(history) => judged(&mut arena.tally, &history, &source),
        Err(error) => arena.tally.broken(format!("the log cannot be read: {error}")),
    }
    let letters = reasons(&arena);
    let [poisoned, conflicts] = [trial.cycles * POISON.len(), trial.cycles];
    arena.tally.must(letters == [poisoned, conflicts], || {
        format!(
            "of {poisoned} messages that are poison and {conflicts} that are conflicts, {letters:?} are dead letters"
        )
    });
    arena.check().await
}

/// Every message that is known by its place is one event. (Of the others the journal has the ids.)
fn judged(tally: &mut Tally, history: &History, source: &Source) {
    let mut found: HashMap<&str, usize> = HashMap::new();
    for event in history.events.iter().filter(|event| event.source == "/fnbus/placed") {
        *found.entry(event.hash.as_deref().unwrap_or_default()).or_default() += 1;
    }
    for (hash, sent) in &source.placed {
        match found.remove(&**hash).unwrap_or_default() {
            times if times < *sent => tally.lost(format!("of a message that was sent {sent} times {times} were taken")),
            times if times > *sent => tally.doubled(format!("a message that was sent {sent} times is {times} events")),
            _ => tally.events += sent,
        }
    }
    tally.must(found.is_empty(), || format!("{} events are of messages that nobody sent", found.len()));
}

/// How many dead letters there are of poison, and of ids that came again with another body.
fn reasons(arena: &Arena) -> [usize; 2] {
    let log = open(&arena.node.data()).unwrap();
    ["d.reason <> 'conflict'", "d.reason = 'conflict'"].map(|what| {
        let sql = format!("SELECT count(*) FROM delivery d WHERE d.status = 11 AND {what}");
        log.query_row(&sql, [], |row| row.get(0)).unwrap()
    })
}

/// Who sends.
struct Source {
    jetstream: jetstream::Context,
    journal: File,
    salt: u64,
    n: u64,
    /// What was sent without an id that counts: how often each body.
    placed: HashMap<String, usize>,
}

impl Source {
    async fn of(nats: &Nats, folder: &Path, salt: u64) -> Self {
        let journal = File::options().create(true).append(true).open(folder.join(JOURNAL)).unwrap();
        let source = Self { jetstream: nats.jetstream().await, journal, salt, n: 0, placed: HashMap::new() };
        for name in SOURCES {
            eventually("the stream is made", || async { source.stream(name).await }).await;
        }
        source
    }

    async fn stream(&self, name: &str) -> Option<u64> {
        let stream = self.jetstream.get_stream(format!("fnbus_in_{name}")).await.ok()?;
        Some(stream.cached_info().state.messages)
    }

    /// Some messages to each, with a key and, here and there, a failure.
    async fn send(&mut self, some: usize) {
        for _ in 0..some {
            self.n += 1;
            let fail = u64::from(self.n.is_multiple_of(10));
            let body = json!({ "n": self.n, "salt": self.salt, "key": format!("k{}", self.n % 4), "fail": fail });
            self.named(self.n, &body.to_string()).await;
            self.placed(&body.to_string()).await;
        }
    }

    async fn named(&mut self, n: u64, body: &str) {
        let id = format!("{:x}-{n}", self.salt);
        self.publish("named.a", &id, body).await;
        let line = Accepted { id, hash: hash(body.as_bytes()), path: "named".to_owned() };
        writeln!(self.journal, "{}", serde_json::to_string(&line).unwrap()).unwrap();
    }

    async fn placed(&mut self, body: &str) {
        self.n += 1;
        // the stream itself leaves out what is sent again because the answer got lost
        self.publish("placed.a", &format!("{:x}-{}", self.salt, self.n), body).await;
        *self.placed.entry(hash(body.as_bytes())).or_default() += 1;
    }

    async fn poison(&mut self, body: &str) {
        self.placed(body).await;
    }

    /// The last message with an id once more, and then another one under its id.
    async fn again(&mut self) {
        let (n, salt) = (self.n + 1, self.salt);
        self.n = n;
        let body = json!({ "n": n, "salt": salt, "key": "again" }).to_string();
        self.named(n, &body).await;
        self.drained().await;
        self.jetstream.delete_stream("fnbus_in_named").await.unwrap();
        eventually("the stream is made again", || async { self.stream("named").await }).await;
        self.named(n, &body).await;
        self.drained().await;
        self.jetstream.delete_stream("fnbus_in_named").await.unwrap();
        eventually("the stream is made again", || async { self.stream("named").await }).await;
        self.publish("named.a", &format!("{salt:x}-{n}"), "another body").await;
        self.drained().await;
    }

    /// Sends it until the stream says that it has it.
    async fn publish(&self, subject: &str, id: &str, body: &str) {
        eventually("a message is in the stream", || async {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id);
            if body.starts_with('{') {
                headers.insert("Content-Type", "application/json");
            }
            let sent = self.jetstream.publish_with_headers(subject.to_owned(), headers, body.to_owned().into());
            let stored = async { sent.await.ok()?.await.ok() };
            tokio::time::timeout(Duration::from_secs(2), stored).await.ok()?
        })
        .await;
    }

    /// Waits until everything was taken.
    async fn drained(&self) {
        for name in SOURCES {
            eventually("all messages are taken", || async { (self.stream(name).await == Some(0)).then_some(()) }).await;
        }
    }
}
