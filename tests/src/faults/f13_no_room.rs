//! The disk is full for everything besides the event log: for new code, for what functions write, for what the node says.

use super::{Arena, Fault, Tally, Traffic, Trial};
use crate::{Disk, eventually};

pub(super) const FAULT: Fault = Fault {
    number: 13,
    sentence: "no room on the disk for new code, for what functions write and for what the node prints",
    short: 1,
    full: 25,
    seconds: 20,
    run: |trial| Box::pin(run(trial)),
};

/// Says which code it is, and what becomes of a file of its own.
fn code(version: usize) -> String {
    format!(
        "import os\n\ndef handler(event, context):\n    print('x' * 1000)\n    try:\n        \
         with open(os.environ['TMPDIR'] + '/own', 'w') as file: file.write('x')\n    except OSError as error:\n        \
         return f'{version}: {{error.strerror}}'\n    return '{version}: written'\n"
    )
}

async fn run(trial: Trial) -> Tally {
    let disk = Disk::new();
    let route = "[triggers.write]\nhttp = 'GET /write'\nto = 'write'\n";
    let project = Arena::project();
    let own = disk.variables(&project.path().canonicalize().unwrap().join(".fnbus/tmp"));
    let own: Vec<String> = own.iter().map(|(name, value)| format!("{name} = '{value}'")).collect();
    // it loads the library that spoils its disk
    let env = format!("isolation = 'process'\nenv = {{ {} }}", own.join(", "));
    let project = project.function_with("write", &code(0), &env).config(route);
    let mut arena = Arena::of(&trial, project.on_disk(&disk).printing_to("/dev/full")).await;
    arena.node.function_ready("write").await;
    arena.produce(&Traffic { rate: Some(60), ..Traffic::default() });
    let mut serving = 0;
    for cycle in 1..=trial.cycles {
        arena.accepted(10).await;
        let refused = arena.answers().refused;
        disk.is_full();
        arena.node.write("write/app.py", &code(2 * cycle - 1));
        let told = eventually("new code is refused", || async {
            arena.node.function("write").await["refused"].as_str().map(str::to_owned)
        });
        let told = told.await;
        arena.tally.must(told.contains("No space left on device"), || format!("the refusal of code says {told}"));
        eventually("an event is refused", || async { (arena.answers().refused > refused).then_some(()) }).await;
        let answer = arena.node.get("/write").await;
        let expected = format!("{serving}: No space left on device");
        arena.tally.must(answer.text() == expected, || format!("beside a full disk a call got {}", answer.text()));
        disk.is_fine();
        serving = 2 * cycle;
        arena.node.write("write/app.py", &code(serving));
        eventually("the next code serves", || async {
            arena.node.get("/write").await.text().eq(&format!("{serving}: written")).then_some(())
        })
        .await;
        trial.passed();
    }
    arena.accepted(10).await;
    arena.check().await
}
