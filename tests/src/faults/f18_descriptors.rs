//! The node may open no more files: others take all the connections it could have.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::net::TcpStream;

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::{Process, eventually};

pub(super) const FAULT: Fault = Fault {
    number: 18,
    sentence: "no descriptor left, held by connections that say nothing",
    short: 1,
    full: 20,
    seconds: 25,
    run: |trial| Box::pin(run(trial)),
};

/// Descriptors the node may have beyond those it has.
const MORE: u64 = 16;
/// Connections that are held meanwhile.
const HELD: u64 = 64;

async fn run(trial: Trial) -> Tally {
    const SAID: &str = "no connection can be accepted";
    let mut arena = Arena::open(&trial).await;
    arena.produce(&Traffic { rate: Some(60), ..Traffic::default() });
    // every function has all the instances it may have
    arena.finished(100).await;
    let node = arena.node.process();
    for cycle in 0..trial.cycles {
        let open = Process::usage(node.as_raw_nonzero().get()).files as u64;
        let hard = getrlimit(Resource::Nofile).maximum;
        let before =
            prlimit(Some(node), Resource::Nofile, Rlimit { current: Some(open + MORE), maximum: hard }).unwrap();
        let mut held = Vec::new();
        for _ in 0..HELD {
            held.push(TcpStream::connect(arena.node.http()).await.unwrap());
        }
        if cycle == 0 {
            // it is said once in a while
            arena.node.says(SAID).await;
        }
        eventually("all descriptors are in use", || async {
            (Process::usage(node.as_raw_nonzero().get()).files as u64 >= open + MORE).then_some(())
        })
        .await;
        // who has a connection is served
        arena.accepted(20).await;
        arena.finished(20).await;
        drop(held);
        // who comes anew is served again, with no more descriptors than before
        let id = arena.node.accepted("/jobs", "{}").await;
        arena.node.event_is(&id, "done").await;
        prlimit(Some(node), Resource::Nofile, before).unwrap();
        trial.passed();
    }
    arena.heal().await;
    let dead = arena.node.json(&["dead", "list", "--json"]).await;
    arena.tally.must(dead.is_empty(), || format!("for want of descriptors these were given up: {dead:?}"));
    arena.check().await
}
