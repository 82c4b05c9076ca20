//! A function that does not do what functions should, beside the usual ones and their load.

use serde_json::{Value, json};

use super::{Arena, Trial};
use crate::{
    Project,
    crowd::{CODE, NOTES},
    eventually,
};

/// The usual project with a function `strange`: what it does is said by `do` in its event. Asked for nothing it is well.
pub(super) fn project(cases: &[(&str, &str)], keys: &str) -> Project {
    let project = Arena::project();
    let notes = project.path().join(NOTES).display().to_string();
    let cases = cases.iter().map(|(name, body)| {
        let body = body.replace('\n', "\n        ");
        format!("    if do == '{name}':\n        {body}\n")
    });
    let cases: String = cases.collect();
    let code = format!("{CODE}def handler(event, context):\n    do = event.get('do')\n{cases}    return event['n']\n");
    let keys = format!("env = {{ NOTES = '{notes}' }}\nretry = {{ attempts = 1 }}\n{keys}");
    project
        .function_with("strange", &code, &keys)
        .config("[triggers.strange]\nhttp = 'POST /strange'\nmode = 'async'\npayload = 'body'\nto = 'strange'\n")
}

/// Does each of these as often as the trial says, with a load beside it: all attempts must end so, and the next event must
/// find a function that is well.
pub(super) async fn endure(arena: &mut Arena, trial: &Trial, ends: &[(&str, &str)]) {
    arena.produce(&super::Traffic { rate: Some(40), ..super::Traffic::default() });
    for cycle in 0..trial.cycles {
        for (name, outcome) in ends {
            let event = asked(arena, json!({ "do": name })).await;
            for attempt in attempts(&event) {
                let ended = &attempt["outcome"];
                arena
                    .tally
                    .must(ended == outcome, || format!("`{name}` ended as {ended} and not as {outcome}: {attempt}"));
            }
            let event = asked(arena, json!({ "n": cycle })).await;
            let last = attempts(&event).pop().unwrap_or_default();
            arena
                .tally
                .must(last["output"] == *cycle.to_string(), || format!("after `{name}` another was not well: {last}"));
        }
        trial.passed();
    }
}

/// Sends an event, and gives what became of it when it has ended.
async fn asked(arena: &Arena, event: Value) -> Value {
    let id = arena.node.accepted("/strange", event.to_string()).await;
    eventually(&format!("{event} has ended"), || async {
        let shown = arena.node.show(&id).await;
        ["done", "dead", "expired"].contains(&shown["status"].as_str()?).then_some(shown)
    })
    .await
}

fn attempts(event: &Value) -> Vec<Value> {
    event["deliveries"][0]["attempts"].as_array().cloned().unwrap_or_default()
}
