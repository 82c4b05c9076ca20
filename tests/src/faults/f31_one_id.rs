//! A hundred requests at once with one id: to be taken for later, to be answered now, and with another body.

use futures_util::future::join_all;
use hyper::Request;

use super::{Arena, Fault, Tally, Trial, history::History, recorder::executions};

pub(super) const FAULT: Fault = Fault {
    number: 31,
    sentence: "a hundred requests at once with one id",
    short: 2,
    full: 100,
    seconds: 10,
    run: |trial| Box::pin(run(trial)),
};

const AT_ONCE: usize = 100;

/// Notes that it was asked.
const ASK: &str = "import os, time\ndef handler(event, context):\n    \
                   open(os.environ['ASKED'], 'a').write(context.event_id + '\\n')\n    return str(time.time())\n";

async fn run(trial: Trial) -> Tally {
    let now = "[triggers.now]\nhttp = 'POST /now'\npayload = 'body'\nto = 'ask'\n";
    let project = Arena::project();
    let asked = format!("env = {{ ASKED = '{}' }}", project.path().join("notes/asked").display());
    let mut arena = Arena::of(&trial, project.function_with("ask", ASK, &asked).config(now)).await;
    arena.node.function_ready("work").await;
    arena.node.function_ready("ask").await;
    for cycle in 0..trial.cycles {
        let later = answers(&arena, "/jobs", &format!("later-{cycle}")).await;
        let taken = later.iter().filter(|(status, _)| *status == 202).count();
        let refused = later.iter().filter(|(status, _)| *status == 409).count();
        arena.tally.must(taken > 0 && taken + refused == AT_ONCE, || format!("{taken} were accepted, {refused} not"));
        let now = answers(&arena, "/now", &format!("now-{cycle}")).await;
        let first = now.iter().find(|(status, _)| *status == 200).map(|(_, body)| body.clone());
        let alike = now.iter().all(|(status, body)| *status == 409 || (*status == 200 && Some(body) == first.as_ref()));
        arena.tally.must(first.is_some() && alike, || format!("calls of one id were answered {now:?}"));
        arena.tally.events += 2;
        trial.passed();
    }
    arena.heal().await;
    let ran = executions(&arena.node.read(super::recorder::RECORD));
    let asked = arena.node.read("notes/asked");
    match History::read(arena.node.path(), &arena.node.data()) {
        Ok(history) => {
            for cycle in 0..trial.cycles {
                for id in [format!("later-{cycle}"), format!("now-{cycle}")] {
                    let events = history.events.iter().filter(|event| event.id == id).count();
                    let worked = ran.iter().filter(|ran| ran.event == id && ran.function == "work").count();
                    let times = worked + asked.lines().filter(|line| *line == id).count();
                    arena
                        .tally
                        .must((events, times) == (1, 1), || format!("{id} is {events} events and ran {times} times"));
                }
            }
        }
        Err(error) => arena.tally.broken(format!("the log cannot be read: {error}")),
    }
    arena.check().await
}

/// Status and body of each; every tenth request has another body.
async fn answers(arena: &Arena, path: &str, id: &str) -> Vec<(u16, String)> {
    let post = |n: usize| async move {
        let request = Request::post(path).header("content-type", "application/json").header("idempotency-key", id);
        let answer = arena.node.send(request, if n % 10 == 9 { r#"{"n": 2}"# } else { r#"{"n": 1}"# }).await;
        (answer.status.as_u16(), answer.text().to_owned())
    };
    join_all((0..AT_ONCE).map(post)).await
}
