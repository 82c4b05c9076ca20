//! Functions whose outputs come back to themselves, and outputs that become more at each step.

use super::{Arena, Fault, Tally, Trial};
use crate::{Project, eventually};

pub(super) const FAULT: Fault = Fault {
    number: 32,
    sentence: "a cycle of functions, and an output that becomes an avalanche",
    short: 1,
    full: 3,
    seconds: 60,
    run: |trial| Box::pin(run(trial)),
};

/// Events away from the first that a flow may go.
const HOPS: u64 = 16;

async fn run(trial: Trial) -> Tally {
    let wide = if trial.is_short() { 20 } else { 100 };
    let echo = "def handler(event, context): return event\n";
    let spread = format!("def handler(event, context): return [event] * {wide}\n");
    let burst = "def handler(event, context): return [0] * 100001\n";
    let trigger = |name: &str| {
        format!("[triggers.{name}]\nhttp = 'POST /{name}'\nmode = 'async'\npayload = 'body'\nto = '{name}'\n")
    };
    let config = ["around", "avalanche", "burst"].map(trigger).concat();
    let project = Project::new()
        .function_with("around", echo, "then = 'back'")
        .function_with("back", echo, "then = 'around'")
        .function_with("avalanche", &spread, "then = 'more'\neach = true")
        .function_with("more", &spread, "then = 'end'\neach = true\nconcurrency = 4")
        .function_with("end", "def handler(event, context): pass\n", "concurrency = 4")
        .function_with("burst", burst, "then = 'end'\neach = true")
        .config(&config);
    let mut arena = Arena::of(&trial, project).await;
    arena.shape =
        super::checker::Shape { recorded: vec![], chained: vec![], pipelines: vec![], ordered: vec![], ..arena.shape };
    for cycle in 1..=trial.cycles as u64 {
        for path in ["/around", "/avalanche", "/burst"] {
            arena.node.accepted(path, "1").await;
        }
        let (dead, done) = (2 * cycle, (HOPS + 1 + 1 + wide + wide * wide) * cycle);
        let end = || async { (arena.node.deliveries("dead").await >= dead && arena.unended() == 0).then_some(()) };
        eventually("both have come to an end", end).await;
        let found = (arena.node.deliveries("dead").await, arena.node.deliveries("done").await);
        arena.tally.must(found == (dead, done), || format!("{found:?} are dead and done, not {:?}", (dead, done)));
        arena.tally.events += 3;
        trial.passed();
    }
    let mut reasons: Vec<String> =
        arena.node.json(&["dead", "list", "--json"]).await.iter().map(|letter| letter["reason"].to_string()).collect();
    reasons.sort();
    reasons.dedup();
    arena.tally.must(reasons == ["\"branch_limit\"", "\"hop_limit\""], || format!("they ended as {reasons:?}"));
    arena.check().await
}
