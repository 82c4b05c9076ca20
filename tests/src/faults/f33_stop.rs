//! The node is ended in order with a hundred events in flight; or by a second signal, at once.

use rustix::process::Signal;

use super::{Arena, Fault, Tally, Trial, history::open, recorder::RELEASED};
use crate::eventually;

pub(super) const FAULT: Fault = Fault {
    number: 33,
    sentence: "SIGTERM with a hundred in flight, and a second one",
    short: 2,
    full: 40,
    seconds: 120,
    run: |trial| Box::pin(run(trial)),
};

/// In flight when it is told to end.
const IN_FLIGHT: usize = 100;

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    for cycle in 0..trial.cycles {
        for name in ["work", "follow"] {
            arena.node.function_ready(name).await;
        }
        let lost = lost(&arena);
        let posts = (0..IN_FLIGHT).map(|_| arena.node.accepted("/jobs", r#"{"slow": 20000}"#));
        let accepted = futures_util::future::join_all(posts).await;
        let twice = cycle % 2 == 1;
        eventually("some of them run", || async { (arena.node.deliveries("running").await >= 2).then_some(()) }).await;
        arena.node.signal(Signal::TERM);
        arena.node.says_again("draining", cycle + 1).await;
        if twice {
            arena.node.signal(Signal::TERM);
        } else {
            arena.node.write(RELEASED, "");
        }
        let status = arena.node.ended().await;
        if twice {
            arena.tally.must(status.code() == Some(130), || format!("a second signal ended it with {status}"));
            arena.died().await;
            arena.node.write(RELEASED, "");
        } else {
            arena.tally.must(status.success(), || format!("a signal ended it with {status}"));
        }
        arena.restart().await;
        for id in &accepted {
            arena.node.event_is(id, "done").await;
        }
        if !twice {
            let more = self::lost(&arena) - lost;
            arena.tally.must(more == 0, || format!("{more} attempts were lost by an end in order"));
        }
        std::fs::remove_file(arena.node.path().join(RELEASED)).unwrap();
        arena.tally.events += accepted.len();
        trial.passed();
    }
    arena.check().await
}

fn lost(arena: &Arena) -> usize {
    let count = "SELECT count(*) FROM attempt WHERE outcome = 'lost'";
    open(&arena.node.data()).unwrap().query_row(count, [], |row| row.get(0)).unwrap()
}
