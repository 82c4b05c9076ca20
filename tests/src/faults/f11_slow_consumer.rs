//! A function that is far slower than what comes: the backlog grows in the log, and nowhere else.

use async_nats::{ConnectOptions, jetstream};

use super::{Arena, Fault, Tally, Traffic, Trial, recorder::RELEASED};
use crate::{Node, Process};

pub(super) const FAULT: Fault = Fault {
    number: 11,
    sentence: "a function far slower than what comes",
    short: 1,
    full: 1,
    seconds: 200,
    run: |trial| Box::pin(run(trial)),
};

/// What waits for the function, in thousands: in the short suite, and in all of it.
const BACKLOG: [usize; 2] = [600, 20_000];
/// More than this the node does not take for a backlog, whatever its length.
const MEMORY: f64 = 96.0;
/// Messages of one function on their way at most: the window, and what runs.
const WINDOW: u64 = 300;

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    arena.node.function_ready("work").await;
    let node = arena.node.serving().await.pid;
    let before = Process::usage(node).mib;
    let slow =
        Traffic { rate: None, connections: 4, paths: &["/jobs"], slow: 5000, largest: 2000, ..Traffic::default() };
    arena.produce(&Traffic { failing: 0, keyed: 0, ..slow });
    let backlog = if trial.is_short() { BACKLOG[0] } else { BACKLOG[1] };
    while arena.answers().accepted < backlog {
        // a wait of its own for each part: all of it may take longer than one
        arena.accepted(100).await;
    }
    arena.quiet().await;
    let waiting = arena.unended();
    arena.tally.must(waiting > backlog / 2, || format!("the function was not slow: only {waiting} of {backlog} wait"));
    let messages = messages(&arena.node).await;
    arena.tally.must(messages <= WINDOW, || format!("{messages} messages are on their way at once"));
    let grown = Process::usage(node).mib - before;
    arena.tally.must(grown < MEMORY, || format!("a backlog of {waiting} took {grown:.0} MiB"));
    arena.tally.note(format!("backlog {waiting}: {messages} messages on their way, {grown:.0} MiB more"));
    arena.node.write(RELEASED, "");
    arena.drained().await;
    trial.passed();
    arena.check().await
}

/// How many messages JetStream holds of this node's own deliveries.
async fn messages(node: &Node) -> u64 {
    let config = node.read(".fnbus/nats/server.conf");
    let after = |mark: &str| config.split(mark).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let login = ConnectOptions::new().user_and_password("fnbus".to_owned(), after("password: \""));
    let client = login.connect(after("listen: \"")).await.unwrap();
    let mut stream = jetstream::new(client).get_stream("FNBUS_DELIVER").await.unwrap();
    stream.info().await.unwrap().state.messages
}
