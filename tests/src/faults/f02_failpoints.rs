//! The node dies exactly where it hurts: between two things that belong together.

use std::time::Duration;

use tokio::time::timeout;

use super::{Arena, Dice, Fault, Tally, Traffic, Trial};
use crate::Node;

pub(super) const FAULT: Fault = Fault {
    number: 2,
    sentence: "kill -9 of the node at each named point",
    short: 1,
    full: 10,
    seconds: 200,
    run: |trial| Box::pin(run(trial)),
};

/// Where it dies, and at which of how many times.
const POINTS: [(&str, u64); 14] = [
    ("accept.committed", 20),
    ("publish.sent", 20),
    ("publish.acked", 20),
    ("begin.answered", 20),
    ("invoke.ended", 20),
    ("end.committed", 10),
    ("follow.committed", 10),
    ("retry.committed", 3),
    ("due.committed", 2),
    ("outside.sent", 5),
    ("replay.committed", 1),
    ("recover.committed", 1),
    ("version.copied", 1),
    ("version.named", 1),
];

/// So long a point may take to be reached.
const REACHED: Duration = Duration::from_secs(30);

async fn run(trial: Trial) -> Tally {
    let mut tally = Tally::default();
    let mut arena = Arena::open(&trial).await;
    arena.produce(&Traffic { failing: 20, ..Traffic::default() });
    arena.accepted(5).await;
    arena.kill().await;
    for cycle in 0..trial.cycles {
        for (point, times) in POINTS {
            let nth = 1 + arena.dice.below(times);
            arena.node.set_variable("FNBUS_FAILPOINTS", &format!("{point}=kill@{nth}"));
            let dies = async {
                if arena.try_restart().await.is_ok() {
                    provoke(point, cycle, &arena).await;
                    arena.node.ended().await;
                }
            };
            if timeout(REACHED, dies).await.is_err() {
                arena.tally.broken(format!("{point} was not reached for the {nth}. time"));
                arena.node.kill();
            }
            arena.died().await;
        }
        tally.add(migrated(&mut arena.dice).await);
        trial.passed();
    }
    arena.node.set_variable("FNBUS_FAILPOINTS", "");
    arena.restart().await;
    tally.add(arena.check().await);
    tally
}

/// Does what the load does not lead to by itself.
async fn provoke(point: &str, cycle: usize, arena: &Arena) {
    match point {
        "replay.committed" => {
            // it dies before it can answer
            arena.node.fnbus(&["replay", "--trigger", "jobs", "--status", "done", "--yes"]).await;
        }
        "version.copied" | "version.named" => {
            let code = arena.node.read("recorder/app.py");
            arena.node.write("recorder/app.py", &format!("{code}# {point} {cycle}\n"));
        }
        _ => {}
    }
}

/// A log whose making was interrupted between two migrations is finished by the next start.
async fn migrated(dice: &mut Dice) -> Tally {
    let mut tally = Tally::default();
    let point = format!("schema.migrated=kill@{}", 1 + dice.below(2));
    let project = Arena::project().variable("FNBUS_FAILPOINTS", &point);
    let died = project.fails_to_start().await;
    tally.must(died.status.code() != Some(0), || format!("{point} was not reached"));
    let node: Node = project.variable("FNBUS_FAILPOINTS", "").start().await;
    let id = node.accepted("/jobs", "{}").await;
    node.event_is(&id, "done").await;
    tally
}
