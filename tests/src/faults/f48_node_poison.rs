//! An event that ends the whole node each time it runs. Everything else gets done in between, and after enough deaths it is put
//! aside; or its function is mended before that.

use rusqlite::Connection;

use super::{Arena, Fault, Tally, Traffic, Trial};

pub(super) const FAULT: Fault = Fault {
    number: 48,
    sentence: "an event that ends the node each time it runs",
    short: 3,
    full: 10,
    seconds: 90,
    run: |trial| Box::pin(run(trial)),
};

/// Deaths after which it is put aside.
const ENOUGH: usize = 10;
/// Deaths after which the waits are too long to be waited for.
const UNHURRIED: usize = 3;
/// What is left of each wait, so that nobody has to wait minutes here.
const SOON: i64 = 3_000_000;

/// Ends the process whose lock lies in the data folder: the first time when its beginning is on disk, later at once.
const POISON: &str = "import os, time\ndef handler(event, context):\n    lock = os.environ['LOCK']\n    \
                      if not os.path.exists(lock + '.met'):\n        open(lock + '.met', 'w')\n        \
                      time.sleep(0.2)\n    os.kill(int(open(lock).read()), 9)\n    time.sleep(60)\n";
const MENDED: &str = "def handler(event, context): return 'mended'\n";

async fn run(trial: Trial) -> Tally {
    let project = Arena::project();
    let lock = format!("isolation = 'process'\nenv = {{ LOCK = '{}' }}", project.path().join(".fnbus/lock").display());
    let route = "[triggers.poison]\nhttp = 'POST /poison'\nmode = 'async'\nto = 'poison'\n";
    let mut arena = Arena::of(&trial, project.function_with("poison", POISON, &lock).config(route)).await;
    arena.node.function_ready("poison").await;
    arena.produce(&Traffic { rate: Some(40), ..Traffic::default() });
    arena.finished(5).await;
    let id = arena.node.accepted("/poison", "").await;
    for death in 1..=trial.cycles {
        arena.node.ended().await;
        arena.died().await;
        if death < trial.cycles {
            if death > UNHURRIED {
                // the start writes how long it waits, and the next one finds it shorter
                arena.restart().await;
                arena.kill().await;
                hasten(&arena);
            }
            // the first loss is made good at once, perhaps before the node is ready
            if arena.try_restart().await.is_ok() && death > 1 {
                let ended = arena.node.ended();
                tokio::pin!(ended);
                let good = tokio::select! {
                    () = arena.finished(5) => true,
                    _ = &mut ended => false,
                };
                arena.tally.must(good, || format!("nothing else got done after death {death}"));
            }
        }
        trial.passed();
    }
    if trial.cycles < ENOUGH {
        arena.node.write("poison/app.py", MENDED);
    }
    arena.restart().await;
    let last = if trial.cycles < ENOUGH { "done" } else { "dead" };
    let delivery = arena.node.event_is(&id, last).await["deliveries"][0].take();
    let lost =
        delivery["attempts"].as_array().into_iter().flatten().filter(|attempt| attempt["outcome"] == "lost").count();
    arena.tally.must(lost == trial.cycles, || format!("{} deaths are {lost} losses: {delivery}", trial.cycles));
    let reason = delivery["reason"].as_str();
    arena.tally.must(last == "done" || reason == Some("quarantined"), || format!("it ended as {delivery}"));
    let others = arena.node.json(&["dead", "list", "--json"]).await;
    arena
        .tally
        .must(others.iter().all(|letter| letter["target"] == "poison"), || format!("others are dead too: {others:?}"));
    arena.check().await
}

/// Shortens what is left of the waits in the log of a node that is down.
fn hasten(arena: &Arena) {
    let soon = chrono::Utc::now().timestamp_micros() + SOON;
    let log = Connection::open(arena.node.data().join("log.db")).unwrap();
    log.execute("UPDATE delivery SET retry_at = min(retry_at, ?1) WHERE status = 3", [soon]).unwrap();
}
