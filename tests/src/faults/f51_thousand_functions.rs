//! A message for each of a thousand functions at once, with memory for ten.

use std::time::Duration;

use tokio::time::sleep;

use super::{Arena, Fault, Tally, Trial, recorder::executions};
use crate::{Process, Project, eventually};

pub(super) const FAULT: Fault = Fault {
    number: 51,
    sentence: "a message for each of a thousand functions",
    short: 1,
    full: 1,
    run: |trial| Box::pin(run(trial)),
};

/// Memory the node may take for it, in MiB.
const MEMORY: f64 = 256.0;

/// Notes its execution like the recorder does, in one write.
const CODE: &str = "#!/bin/sh\nprintf 'start %s %s %s %s %s000\\n' \"$AWS_LAMBDA_FUNCTION_NAME\" \"$FNBUS_EVENT_ID\" \
                    \"$AWS_LAMBDA_REQUEST_ID\" $$ \"$(date +%s%3N)\" >> \"$RECORD\"\n";

async fn run(trial: Trial) -> Tally {
    let functions = if trial.is_short() { 100 } else { 1000 };
    let names: Vec<String> = (0..functions).map(|n| format!("c{n}")).collect();
    let project = Project::new().program("commands/note", CODE);
    let record = project.path().join(super::recorder::RECORD).display().to_string();
    let each = names.iter().map(|name| {
        format!(
            "[functions.{name}]\nruntime = 'command'\ncode = 'commands'\nhandler = './note'\nmemory = 64\n\
             env = {{ RECORD = '{record}' }}\n"
        )
    });
    let all = format!("[triggers.many]\nhttp = 'POST /many'\nmode = 'async'\nto = {names:?}\n");
    let config = each.collect::<String>() + &all;
    let mut arena = Arena::of(&trial, project.config(&config)).await;
    let node = arena.node.serving().await.pid;
    let id = arena.node.accepted("/many", "{}").await;
    let mut most = 0.0_f64;
    while arena.unended() > 0 {
        let before = arena.unended();
        eventually("the thousand become fewer", || async { (arena.unended() < before).then_some(()) }).await;
        most = most.max(Process::usage(node).mib);
        sleep(Duration::from_millis(50)).await;
    }
    arena.node.event_is(&id, "done").await;
    let ran = executions(&arena.node.read(super::recorder::RECORD)).len();
    arena.tally.must(ran == functions, || format!("{functions} functions ran {ran} times"));
    arena.tally.must(most < MEMORY, || format!("the node took {most:.0} MiB for it"));
    arena.tally.note(format!("{functions} functions, at most {most:.0} MiB"));
    arena.tally.events += 1;
    trial.passed();
    arena.check().await
}
