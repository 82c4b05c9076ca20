//! `METHOD /path/{var}` as written in the config.

use std::{fmt, str::FromStr};

/// One validated route key: method (or `ANY`) and path with `{var}` segments and at most one greedy `{var+}` at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutePath {
    pub method: String,
    pub path: String,
}

/// Why a text is not a route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a route: write a method, a space and a path, such as `GET /orders/{{id}}`")]
pub struct InvalidRoute {
    given: String,
}

impl FromStr for RoutePath {
    type Err = InvalidRoute;

    fn from_str(text: &str) -> Result<Self, InvalidRoute> {
        match text.split_once(' ') {
            Some((method, path)) if path.starts_with('/') && method.bytes().all(|b| b.is_ascii_uppercase()) => {
                Ok(Self { method: method.to_owned(), path: path.to_owned() })
            }
            _ => Err(InvalidRoute { given: text.to_owned() }),
        }
    }
}

impl fmt::Display for RoutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}
