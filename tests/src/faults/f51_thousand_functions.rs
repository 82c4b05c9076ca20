//! A message for each of a thousand functions at once, with memory for ten.

use std::time::Duration;

use rustix::process::Pid;
use tokio::time::sleep;

use super::{Arena, Fault, Tally, Trial, history::open, recorder::executions};
use crate::{Disk, Process, Project, process::children};

pub(super) const FAULT: Fault = Fault {
    number: 51,
    sentence: "a message for each of a thousand functions, and memory for ten processes",
    short: 1,
    full: 1,
    seconds: 15,
    run: |trial| Box::pin(run(trial)),
};

/// Memory the node may take for it, in MiB.
const MEMORY: f64 = 256.0;

/// Processes of functions there is memory for. The machine says so only when one more is to be made.
const PROCESSES: i64 = 10;

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
            "[functions.{name}]\nruntime = 'command'\ncode = 'commands'\nhandler = './note'\nmemory = 64\nfolders = {{ write = 'notes' }}\n\
             env = {{ RECORD = '{record}' }}\n"
        )
    });
    let all = format!("[triggers.many]\nhttp = 'POST /many'\nmode = 'async'\nto = {names:?}\n");
    let config = each.collect::<String>() + &all;
    let machine = Disk::new();
    let mut arena = Arena::of(&trial, project.config(&config).on_disk(&machine)).await;
    // beside the nats-server
    machine.has_memory_for(PROCESSES + 1);
    let node = arena.node.serving().await.pid;
    let id = arena.node.accepted("/many", "{}").await;
    let (mut most, mut at_once) = (0.0_f64, 0);
    let watched = async {
        loop {
            most = most.max(Process::usage(node).mib);
            let all = arena.node.processes().into_iter().filter(|each| each.command.contains("note"));
            let all: Vec<Pid> = all.filter_map(|each| Pid::from_raw(each.pid)).collect();
            // a shell that is about to begin `date` is two by their arguments
            let below: Vec<Pid> = all.iter().flat_map(|each| children(*each)).collect();
            at_once = at_once.max(all.iter().filter(|each| !below.contains(each)).count());
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = watched => {}
        () = arena.drained() => {}
    }
    arena.node.event_is(&id, "done").await;
    let ran = executions(&arena.node.read(super::recorder::RECORD)).len();
    let attempts = "SELECT count(*) FROM attempt";
    let attempts: usize = open(&arena.node.data()).unwrap().query_row(attempts, [], |row| row.get(0)).unwrap();
    arena.tally.must(attempts == functions, || format!("{functions} functions took {attempts} attempts"));
    arena.tally.must(ran == functions, || format!("{functions} functions ran {ran} times"));
    arena.tally.must(most < MEMORY, || format!("the node took {most:.0} MiB for it"));
    arena.tally.must(at_once <= PROCESSES as usize, || format!("{at_once} processes ran at once"));
    arena.tally.note(format!(
        "{functions} functions, at most {at_once} processes at once and {most:.0} MiB; {} starts found no memory",
        machine.failed()
    ));
    arena.tally.events += 1;
    trial.passed();
    arena.check().await
}
