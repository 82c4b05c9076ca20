//! Which trigger a request is for.
//!
//! A full match comes before a greedy one, a fixed segment before a variable, a method by its name before `ANY`, and
//! `$default` is last. A table never changes: a reload makes another.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use bus::{Name, Target, payload::Format, sink::LogMode};
use hyper::Method;
use matchit::Router;

use super::route::{METHODS, RoutePath, variable};
use crate::config::{HttpConfig, HttpTrigger, Mode, TriggerConfig, TriggerKind};

/// A trigger as requests need it.
#[derive(Debug, PartialEq)]
pub(super) struct Bound {
    pub(super) trigger: Name,
    /// `/<namespace>/<trigger>`.
    pub(super) source: Arc<str>,
    pub(super) mode: Mode,
    /// The one function or pipeline that answers; none in asynchronous mode.
    pub(super) to: Option<Target>,
    pub(super) format: Format,
    pub(super) timeout: Option<Duration>,
    pub(super) max_body: u64,
    pub(super) log: LogMode,
    /// Nothing is taken for now.
    pub(super) paused: bool,
}

/// One route of a trigger.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Route {
    pub(super) bound: Arc<Bound>,
    /// As written in the config.
    pub(super) text: Arc<str>,
}

/// All routes of a config.
#[derive(Default)]
pub struct Table {
    /// By the place of the method in [`METHODS`], `ANY` after them.
    by_method: [Paths; METHODS.len() + 1],
    default: Option<Route>,
    /// `/<namespace>/`: what only sources of ours begin with.
    pub(super) namespace: Arc<str>,
    /// Largest body of a request that is for no trigger.
    pub(super) max_body: u64,
}

#[derive(Default)]
struct Paths {
    full: Router<Route>,
    greedy: Router<Route>,
}

/// Two routes for the same requests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{route}` of {trigger} is taken: {Other}; change one of them", Other = Other(.with_trigger, .with_route, .trigger))]
pub struct Collision {
    pub trigger: Name,
    pub route: RoutePath,
    pub with_trigger: Name,
    pub with_route: RoutePath,
}

/// What a route collides with, in words.
struct Other<'a>(&'a Name, &'a RoutePath, &'a Name);

impl fmt::Display for Other<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(trigger, route, of) = self;
        if trigger == of { write!(f, "it also has `{route}`") } else { write!(f, "{trigger} has `{route}`") }
    }
}

/// Routes with the same method and the same shape of path. `ANY` beside a method of its own is no collision: the
/// method comes first.
pub fn collisions<'a>(routes: impl IntoIterator<Item = (&'a Name, &'a RoutePath)>) -> Vec<Collision> {
    let mut seen: HashMap<(&str, String), (&Name, &RoutePath)> = HashMap::new();
    let mut found = Vec::new();
    for (trigger, route) in routes {
        if let Some((with_trigger, with_route)) = seen.get(&(route.method.as_str(), route.shape())) {
            found.push(Collision {
                trigger: trigger.clone(),
                route: route.clone(),
                with_trigger: (*with_trigger).clone(),
                with_route: (*with_route).clone(),
            });
        } else {
            seen.insert((&route.method, route.shape()), (trigger, route));
        }
    }
    found
}

/// What the table says of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    Route {
        route: Route,
        params: Vec<(String, String)>,
        /// The whole path is the route's, none of it swallowed by a greedy variable or `$default`.
        full: bool,
    },
    /// The path is there, for these methods.
    OtherMethods(Vec<&'static str>),
    Nothing,
}

impl Table {
    /// The routes of all HTTP triggers; of two that collide neither is served: the error names them all.
    pub fn new<'a>(
        namespace: &Name,
        http: &HttpConfig,
        triggers: impl IntoIterator<Item = (&'a Name, &'a TriggerConfig)>,
        paused: &BTreeSet<Name>,
    ) -> Result<Self, Vec<Collision>> {
        let triggers: Vec<_> = triggers
            .into_iter()
            .filter_map(|(name, config)| match &config.kind {
                TriggerKind::Http(kind) => Some((name, config, kind)),
                _ => None,
            })
            .collect();
        let collisions =
            collisions(triggers.iter().flat_map(|(name, _, kind)| kind.routes.iter().map(|route| (*name, route))));
        if !collisions.is_empty() {
            return Err(collisions);
        }
        let mut table = Self { namespace: format!("/{namespace}/").into(), max_body: http.max_body, ..Self::default() };
        for (name, config, kind) in triggers {
            let bound = Bound { paused: paused.contains(name), ..bind(namespace, http, name, config, kind) };
            let bound = Arc::new(bound);
            for path in &kind.routes {
                table.insert(path, Route { bound: bound.clone(), text: path.to_string().into() });
            }
        }
        Ok(table)
    }

    fn insert(&mut self, path: &RoutePath, route: Route) {
        if path.is_default() {
            self.default = Some(route);
            return;
        }
        let place = METHODS.iter().position(|method| *method == path.method).unwrap_or(METHODS.len());
        let paths = &mut self.by_method[place];
        let router = if path.is_greedy() { &mut paths.greedy } else { &mut paths.full };
        if let Err(error) = router.insert(pattern(&path.path), route) {
            // validated routes without collisions are all accepted; should they not be, one is lost and not the node
            tracing::error!(route = %path, %error, "a route cannot be served");
        }
    }

    /// Finds the route for a decoded path.
    pub(super) fn find(&self, method: &Method, path: &str) -> Found {
        let exact = METHODS.iter().position(|name| *name == method.as_str());
        // CONNECT, TRACE and invented methods are nobody's, not even `ANY`'s
        if let Some(exact) = exact {
            let (exact, any) = (&self.by_method[exact], &self.by_method[METHODS.len()]);
            for (router, full) in [(&exact.full, true), (&any.full, true), (&exact.greedy, false), (&any.greedy, false)]
            {
                if let Ok(found) = router.at(path) {
                    let params = found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
                    return Found::Route { route: found.value.clone(), params: params.collect(), full };
                }
            }
            if let Some(route) = &self.default {
                return Found::Route { route: route.clone(), params: Vec::new(), full: false };
            }
        }
        let methods = self.methods_of(path);
        if methods.is_empty() { Found::Nothing } else { Found::OtherMethods(methods) }
    }

    fn methods_of(&self, path: &str) -> Vec<&'static str> {
        let has = |paths: &Paths| paths.full.at(path).is_ok() || paths.greedy.at(path).is_ok();
        if self.default.is_some() || has(&self.by_method[METHODS.len()]) {
            return METHODS.to_vec();
        }
        METHODS.iter().zip(&self.by_method).filter(|(_, paths)| has(paths)).map(|(method, _)| *method).collect()
    }
}

fn bind(namespace: &Name, http: &HttpConfig, name: &Name, config: &TriggerConfig, kind: &HttpTrigger) -> Bound {
    Bound {
        trigger: name.clone(),
        source: format!("/{namespace}/{name}").into(),
        mode: kind.mode,
        to: match kind.mode {
            Mode::Sync => config.to.first().cloned(),
            Mode::Async => None,
        },
        format: config.payload.format(&config.kind),
        timeout: kind.timeout,
        max_body: kind.max_body.unwrap_or(http.max_body),
        log: kind.log,
        paused: false,
    }
}

/// The path as the router writes it: `{name+}` is `{*name}` there.
fn pattern(path: &str) -> String {
    let segments = path.split('/').map(|segment| match variable(segment) {
        Some((name, true)) => format!("{{*{name}}}"),
        _ => segment.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::PayloadKey;

    fn table(routes: &[&str]) -> Result<Table, Vec<Collision>> {
        let http = HttpConfig { listen: ([127, 0, 0, 1], 0).into(), max_body: 10 };
        let triggers: Vec<(Name, TriggerConfig)> = routes
            .iter()
            .enumerate()
            .map(|(n, route)| {
                let kind = TriggerKind::Http(HttpTrigger {
                    routes: vec![route.parse().unwrap()],
                    mode: Mode::Sync,
                    timeout: None,
                    max_body: None,
                    log: LogMode::Full,
                });
                let to = vec![Target::Named("f".parse().unwrap())];
                (
                    format!("t{n}").parse().unwrap(),
                    TriggerConfig { kind, to, payload: PayloadKey::Lambda, order_by: None, example: None },
                )
            })
            .collect();
        Table::new(
            &"shop".parse().unwrap(),
            &http,
            triggers.iter().map(|(name, config)| (name, config)),
            &BTreeSet::new(),
        )
    }

    const ROUTES: [&str; 12] = [
        "GET /pets/dog/1",
        "GET /pets/dog/{id}",
        "GET /pets/{rest+}",
        "ANY /pets/{rest+}",
        "ANY /pets/cat",
        "POST /orders/{region}/items/{item}",
        "GET /orders/{region}",
        "PUT /orders/special",
        "GET /",
        "GET /dir/",
        "DELETE /{x}/y",
        "DELETE /orders/{region}/z",
    ];

    #[rstest]
    #[case::fixed_before_variable("GET", "/pets/dog/1", "GET /pets/dog/1")]
    #[case::variable_before_greedy("GET", "/pets/dog/2", "GET /pets/dog/{id}")]
    #[case::greedy_takes_the_rest("GET", "/pets/dog/2/tail", "GET /pets/{rest+}")]
    #[case::any_for_other_methods("POST", "/pets/dog/1", "ANY /pets/{rest+}")]
    #[case::full_before_greedy_even_for_any("GET", "/pets/cat", "ANY /pets/cat")]
    #[case::root("GET", "/", "GET /")]
    #[case::trailing_slash_is_another_path("GET", "/dir/", "GET /dir/")]
    #[case::back_from_a_fixed_segment("DELETE", "/orders/y", "DELETE /{x}/y")]
    fn the_most_specific_route_takes_a_request(#[case] method: &str, #[case] path: &str, #[case] expect: &str) {
        let Found::Route { route, .. } = table(&ROUTES).unwrap().find(&method.parse().unwrap(), path) else {
            panic!("nothing found")
        };
        assert_eq!(&*route.text, expect);
    }

    #[rstest]
    #[case("GET", "/none", Found::Nothing)]
    #[case("GET", "/dir", Found::Nothing)]
    #[case("GET", "/pets/", Found::Nothing)]
    #[case("GET", "/orders//items/1", Found::Nothing)]
    #[case("PATCH", "/orders/special", Found::OtherMethods(vec!["GET", "PUT"]))]
    #[case("TRACE", "/pets/cat", Found::OtherMethods(METHODS.to_vec()))]
    fn what_no_route_takes_is_told_apart(#[case] method: &str, #[case] path: &str, #[case] expect: Found) {
        assert_eq!(table(&ROUTES).unwrap().find(&method.parse().unwrap(), path), expect);
    }

    #[test]
    fn variables_come_in_the_order_of_the_route_and_default_takes_the_rest() {
        let mut routes = ROUTES.to_vec();
        routes.push("$default");
        let table = table(&routes).unwrap();
        let Found::Route { params, .. } = table.find(&Method::POST, "/orders/kr/items/a b") else { panic!() };
        assert_eq!(params, [("region".into(), "kr".into()), ("item".into(), "a b".into())]);
        let Found::Route { route, full, .. } = table.find(&Method::GET, "/none") else { panic!() };
        assert_eq!((&*route.text, full), ("$default", false));
        assert_eq!(table.find(&Method::CONNECT, "/none"), Found::OtherMethods(METHODS.to_vec()));
    }

    #[test]
    fn routes_for_the_same_requests_collide_and_any_beside_a_method_does_not() {
        let found = table(&["GET /a/{x}", "ANY /a/{x}", "GET /a/{y}", "GET /a/{y+}", "$default", "$default"]);
        let words: Vec<String> = found.err().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "`GET /a/{y}` of t2 is taken: t0 has `GET /a/{x}`; change one of them",
                "`$default` of t5 is taken: t4 has `$default`; change one of them",
            ]
        );
    }
}
