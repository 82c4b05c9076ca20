//! Pools of instances that run several invocations at once.

use std::time::Duration;

use bus::{outcome::Ending, payload::Form};
use runtimes::{LeaseError, RuntimeKind};

use crate::harness::*;

const PID: &str = "exports.handler = async () => process.pid;\n";
const SOON: Duration = Duration::from_millis(20);

/// A function of so many instances, each of two slots.
async fn node(concurrency: u32) -> Node {
    let node = Node::new().of_with(RuntimeKind::Node, "index.js", PID, |f| (f.concurrency, f.slots) = (concurrency, 2));
    node.until(|s| s.warm == 1).await;
    node
}

#[tokio::test]
async fn another_instance_is_started_when_no_slot_is_free() {
    let node = node(2).await;
    let first = [node.lease().await.unwrap(), node.lease().await.unwrap()];
    assert!(first.iter().all(|lease| !lease.is_cold()), "both are on the one that was there");
    assert_eq!((node.status().busy, node.status().warm, node.functions.free(&name())), (2, 0, Some(2)));
    let (third, fourth) = tokio::join!(node.lease(), node.lease());
    let colds = [third.as_ref().unwrap().is_cold(), fourth.as_ref().unwrap().is_cold()];
    assert_eq!(colds.iter().filter(|cold| **cold).count(), 1, "one was started for both");
    assert_eq!(node.functions.free(&name()), Some(0));
    assert!(matches!(node.functions.lease(&name(), SOON).await, Err(LeaseError::Busy)), "no third may start");
    drop((first, third, fourth));
    let status = node.status();
    assert_eq!((status.busy, status.warm, status.cold_starts), (0, 2, 1), "{status:?}");
}

#[tokio::test]
async fn a_slot_of_one_in_use_comes_before_one_that_rests() {
    let node = node(2).await;
    let leases = [node.lease().await.unwrap(), node.lease().await.unwrap(), node.lease().await.unwrap()];
    drop(leases);
    assert_eq!(node.status().warm, 2);
    let lease = node.lease().await.unwrap();
    let beside = node.lease().await.unwrap();
    assert_eq!((node.status().busy, node.status().warm), (2, 1));
    let one = lease.invoke(invocation(Form::Json, b"1")).await.unwrap();
    let two = beside.invoke(invocation(Form::Json, b"1")).await.unwrap();
    assert_eq!((one.ending, &one.output), (Ending::Ok, &two.output));
}

#[tokio::test]
async fn a_lowered_limit_ends_one_when_what_runs_on_it_has_ended_and_keeps_the_other() {
    let mut node = node(2).await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(node.lease().await.unwrap());
    }
    node.reconfigure(|f| f.concurrency = 1);
    // the instance of the first two takes no further one
    drop(leases.remove(0));
    assert!(matches!(node.functions.lease(&name(), SOON).await, Err(LeaseError::Busy)), "its slot is not for others");
    drop(leases.pop());
    let kept = node.lease().await.expect("the other one goes on");
    drop(leases.remove(0));
    drop((kept, leases));
    node.until(|s| (s.busy, s.warm) == (0, 1)).await;
    assert_eq!(node.invoke("1").await.ending, Ending::Ok);
}
