//! Files come faster than the kernel tells of them: half written, renamed into place, and more than its queue holds.

use std::{collections::HashMap, fs, io::Write as _};

use rustix::process::Signal;

use super::{
    Arena, Fault, Tally, Trial,
    history::{History, open},
    producer::hash,
};
use crate::eventually;

pub(super) const FAULT: Fault = Fault {
    number: 27,
    sentence: "a storm of files, and more changes than the kernel's queue holds",
    short: 1,
    full: 10,
    seconds: 70,
    run: |trial| Box::pin(run(trial)),
};

const TRIGGER: &str =
    "[triggers.inbox]\nfile = 'inbox/*.dat'\non = ['created', 'modified']\npayload = 'body'\nto = 'step'\n";

async fn run(trial: Trial) -> Tally {
    let project = Arena::project().config(TRIGGER).file("inbox/.keep", "").file("outside/.keep", "");
    let mut arena = Arena::of(&trial, project).await;
    eventually("it watches", || async {
        let triggers = arena.node.json(&["triggers", "--json"]).await;
        let watches =
            |trigger: &serde_json::Value| trigger["state"].as_str().unwrap_or_default().starts_with("watching");
        triggers.iter().any(watches).then_some(())
    })
    .await;
    let files = if trial.is_short() { 150 } else { 2000 };
    // the last content of each
    let mut contents: HashMap<String, String> = HashMap::new();
    for cycle in 0..trial.cycles {
        for n in 0..files {
            let name = format!("{cycle}-{n}.dat");
            let content = write(&mut arena, &name);
            contents.insert(name, content);
        }
        overflow(&mut arena, cycle, &mut contents).await;
        told(&arena, &contents).await;
        trial.passed();
    }
    let (folder, data) = (arena.node.path().to_owned(), arena.node.data());
    arena.heal().await;
    if let Ok(history) = History::read(&folder, &data) {
        let whole: Vec<String> = contents.values().map(|content| hash(content.as_bytes())).collect();
        let torn = history.events.iter().filter(|event| event.kind == "file.created");
        let torn = torn.filter(|event| event.hash.as_ref().is_none_or(|found| !whole.contains(found))).count();
        arena.tally.must(torn == 0, || format!("{torn} files were told before they were whole"));
    }
    arena.tally.events += contents.len();
    arena.check().await
}

/// A file in one of the ways files are written.
fn write(arena: &mut Arena, name: &str) -> String {
    let folder = arena.node.path().to_owned();
    let content = format!("{name} {}\n", "x".repeat(arena.dice.below(4000) as usize));
    let place = folder.join("inbox").join(name);
    match arena.dice.below(4) {
        0 => fs::write(&place, &content).unwrap(),
        1 => {
            let (half, rest) = content.split_at(content.len() / 2);
            let mut file = fs::File::create(&place).unwrap();
            file.write_all(half.as_bytes()).unwrap();
            file.sync_all().unwrap();
            file.write_all(rest.as_bytes()).unwrap();
        }
        2 => {
            fs::write(folder.join("outside").join(name), &content).unwrap();
            fs::rename(folder.join("outside").join(name), &place).unwrap();
        }
        _ => {
            // within the folder, under a name that is not meant
            let part = place.with_extension("part");
            fs::write(&part, &content).unwrap();
            fs::rename(&part, &place).unwrap();
        }
    }
    content
}

/// The node is stopped while the kernel has more to tell than it keeps; what came last was never told.
async fn overflow(arena: &mut Arena, cycle: usize, contents: &mut HashMap<String, String>) {
    let node = arena.node.serving().await;
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap_or_default();
    let queue: usize = queue.trim().parse().unwrap_or(16384);
    node.signal(Signal::STOP);
    let noise = ["a", "b"].map(|name| arena.node.path().join("inbox").join(name));
    for n in 0..queue {
        // in turns: the same change twice in a row is told once
        fs::write(&noise[n % 2], "x").unwrap();
    }
    for n in 0..20 {
        let name = format!("{cycle}-late-{n}.dat");
        let content = write(arena, &name);
        contents.insert(name, content);
    }
    node.signal(Signal::CONT);
}

/// Waits until there is an event of every file.
async fn told(arena: &Arena, contents: &HashMap<String, String>) {
    let all = || {
        let log = open(&arena.node.data()).ok()?;
        let count = "SELECT count(DISTINCT subject) FROM event WHERE trigger = 'inbox'";
        let found: usize = log.query_row(count, [], |row| row.get(0)).ok()?;
        (found == contents.len()).then_some(())
    };
    eventually("every file is told", || async { all() }).await;
}
