//! Two routes that would take the same requests.

use std::collections::BTreeMap;

use bus::config::{Problem, Problems};
use triggers::config::TriggerKind;

use super::{Config, place::Places};

/// Compares all routes of all triggers by method and shape: the name of a variable makes no difference.
pub(super) fn check_routes(config: &Config, places: Places<'_>, problems: &Problems) {
    let mut routes = Vec::new();
    for (name, trigger) in &config.triggers {
        let TriggerKind::Http(http) = &trigger.kind else { continue };
        let written = places.strings(&["triggers", name.as_str(), "http"]);
        routes.extend(http.routes.iter().zip(written).map(|(route, (text, span))| (span, text, name, route)));
    }
    // of two that collide the later in the file is the one to point at
    routes.sort_by_key(|(span, ..)| span.start);
    let mut taken = BTreeMap::new();
    for (span, text, name, route) in routes {
        let key = (route.method.clone(), route.shape());
        if let Some(first) = taken.get(&key) {
            let problem = Problem::new(span, format!("`{text}` takes the requests of a route of `{first}`"));
            problems.record(problem.label("taken").advice("change the method or the path of one of them"));
        } else {
            taken.insert(key, name);
        }
    }
}
