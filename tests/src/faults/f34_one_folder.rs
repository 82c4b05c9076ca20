//! Other nodes are started on the data folder of one that works, or that was killed and starts again.

use futures_util::future::join_all;

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 34,
    sentence: "three more nodes started on one data folder at once",
    short: 1,
    full: 20,
    seconds: 30,
    run: |trial| Box::pin(run(trial)),
};

async fn run(trial: Trial) -> Tally {
    let mut arena = Arena::open(&trial).await;
    arena.produce(&Traffic::default());
    for _ in 0..trial.cycles {
        arena.accepted(20).await;
        let holder = format!("is in use by another fnbus (process {})", arena.node.process().as_raw_nonzero());
        let others = (0..3).map(|_| arena.node.project().fails_to_start());
        for output in join_all(others).await {
            let said = output.stderr.contains(&holder) && output.stderr.contains("--data DIR");
            arena
                .tally
                .must(output.code() == 1 && said, || format!("another node on the folder said {}", output.all()));
        }
        arena.finished(20).await;
        // a lock of the dead holds nobody up
        arena.kill().await;
        arena.restart().await;
        trial.passed();
    }
    arena.check().await
}
