//! `METHOD /path/{var}` as written in the config.

use std::{collections::BTreeSet, fmt, str::FromStr};

/// The methods a route may name; `ANY` stands for each of them.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Every method of [`METHODS`].
pub const ANY: &str = "ANY";

/// The path of the route that takes what no other route does.
pub const DEFAULT: &str = "$default";

/// One validated route key: method (or `ANY`) and path with `{var}` segments and at most one greedy `{var+}` at its end;
/// or `$default`, whose method is `ANY`. The path is written decoded: a request's path is decoded before it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutePath {
    pub method: String,
    pub path: String,
}

/// Why a text is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRoute {
    #[error("`{given}` is not a route; write a method and a path, such as `POST /orders/{{region}}`, or `$default`")]
    Shape { given: String },
    #[error("`{given}` is not a method of a route; use {} or {ANY}", METHODS.join(", "))]
    Method { given: String },
    #[error("the path `{path}` does not begin with `/`; write `/{path}`")]
    NotAbsolute { path: String },
    #[error("the path `{path}` has an empty segment; write single slashes")]
    EmptySegment { path: String },
    #[error("the path `{path}` has the segment `{segment}`, which never arrives: requests with it are refused")]
    DotSegment { path: String, segment: String },
    #[error(
        "the segment `{segment}` is neither a fixed text nor one variable; write `{{name}}` alone between two slashes"
    )]
    Variable { segment: String },
    #[error("`{segment}` takes the rest of the path and has to come last")]
    GreedyNotLast { segment: String },
    #[error("the variable `{name}` is there twice; give each its own name")]
    SameName { name: String },
    #[error(
        "the segment `{segment}` has `{found}`, which cannot be compared; write the path decoded and without a query"
    )]
    Character { segment: String, found: char },
}

impl RoutePath {
    pub fn is_default(&self) -> bool {
        self.path == DEFAULT
    }

    /// Whether the last segment takes the rest of the path.
    pub fn is_greedy(&self) -> bool {
        self.path.ends_with("+}")
    }

    /// The path without the names of its variables: two routes of one shape are for the same requests.
    pub fn shape(&self) -> String {
        let shape = self.path.split('/').map(|segment| match variable(segment) {
            Some((_, true)) => "{+}",
            Some((_, false)) => "{}",
            None => segment,
        });
        shape.collect::<Vec<_>>().join("/")
    }
}

/// Name and greediness of a variable segment.
pub(super) fn variable(segment: &str) -> Option<(&str, bool)> {
    let inner = segment.strip_prefix('{')?.strip_suffix('}')?;
    Some(inner.strip_suffix('+').map_or((inner, false), |name| (name, true)))
}

impl FromStr for RoutePath {
    type Err = InvalidRoute;

    fn from_str(text: &str) -> Result<Self, InvalidRoute> {
        let text = text.trim();
        if text == DEFAULT {
            return Ok(Self { method: ANY.to_owned(), path: DEFAULT.to_owned() });
        }
        let shape = || InvalidRoute::Shape { given: text.to_owned() };
        let (method, path) = text.split_once([' ', '\t']).ok_or_else(shape)?;
        let path = path.trim_start();
        if method != ANY && !METHODS.contains(&method) {
            return Err(InvalidRoute::Method { given: method.to_owned() });
        }
        let segments = path.strip_prefix('/').ok_or_else(|| InvalidRoute::NotAbsolute { path: path.to_owned() })?;
        check(path, segments)?;
        Ok(Self { method: method.to_owned(), path: path.to_owned() })
    }
}

fn check(path: &str, segments: &str) -> Result<(), InvalidRoute> {
    let mut names = BTreeSet::new();
    let mut rest = segments.split('/').peekable();
    while let Some(segment) = rest.next() {
        let last = rest.peek().is_none();
        let owned = || segment.to_owned();
        if segment.is_empty() && !last {
            return Err(InvalidRoute::EmptySegment { path: path.to_owned() });
        }
        if segment == "." || segment == ".." {
            return Err(InvalidRoute::DotSegment { path: path.to_owned(), segment: owned() });
        }
        if let Some((name, greedy)) = variable(segment) {
            let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            if !named {
                return Err(InvalidRoute::Variable { segment: owned() });
            }
            if greedy && !last {
                return Err(InvalidRoute::GreedyNotLast { segment: owned() });
            }
            if !names.insert(name) {
                return Err(InvalidRoute::SameName { name: name.to_owned() });
            }
        } else if segment.contains(['{', '}']) {
            return Err(InvalidRoute::Variable { segment: owned() });
        } else if let Some(found) =
            segment.chars().find(|c| c.is_control() || c.is_whitespace() || "%?#\\".contains(*c))
        {
            return Err(InvalidRoute::Character { segment: owned(), found });
        }
    }
    Ok(())
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_default() { f.write_str(DEFAULT) } else { write!(f, "{} {}", self.method, self.path) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("GET /")]
    #[case("POST /orders/{region}")]
    #[case("ANY /files/{path+}")]
    #[case("DELETE /a/")]
    #[case("GET /카페/a.b~c")]
    #[case("$default")]
    fn a_route_reads_back_as_it_was_written(#[case] text: &str) {
        assert_eq!(text.parse::<RoutePath>().map(|route| route.to_string()), Ok(text.to_owned()));
    }

    #[test]
    fn what_is_no_route_is_refused_with_advice() {
        let bad = [
            "",
            "/orders",
            "post /orders",
            "TRACE /orders",
            "GET orders",
            "GET /a//b",
            "GET /a/../b",
            "GET /{a+}/b",
            "GET /{a}/{a}",
            "GET /x-{a}",
            "GET /{}",
            "GET /{a b}",
            "GET /a%20b",
            "GET /a?b=c",
        ];
        let advice = bad.map(|text| text.parse::<RoutePath>().unwrap_err().to_string());
        insta::assert_snapshot!(advice.join("\n"));
    }
}
