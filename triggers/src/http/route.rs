//! `METHOD /path/{var}` as written in the config.

use std::{fmt, str::FromStr};

/// One validated route key: method (or `ANY`) and path with `{var}` segments and at most one greedy `{var+}` at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoutePath {
    pub method: String,
    pub path: String,
}
