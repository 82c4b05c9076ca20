//! Where an event or output can go, in one grammar for triggers, destinations and pipeline steps:
//! a function or pipeline by name, `nats:subject`, `https://…`, `file:path`.

use std::{fmt, str::FromStr};

use crate::name::{InvalidName, Name};

/// One destination. So far functions by name; the other forms are recognised and refused with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A function (or, later, a pipeline) of this bus.
    Named(Name),
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("`{scheme}` targets are not supported by this version; name a function")]
    Scheme { scheme: &'static str },
}

impl Target {
    pub fn name(&self) -> &Name {
        let Self::Named(name) = self;
        name
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        for scheme in ["nats:", "https:", "http:", "file:"] {
            if text.starts_with(scheme) {
                return Err(InvalidTarget::Scheme { scheme });
            }
        }
        Ok(Self::Named(text.parse()?))
    }
}

impl From<Name> for Target {
    fn from(name: Name) -> Self {
        Self::Named(name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Named(name) = self;
        name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_back_and_an_unsupported_scheme_says_so() {
        assert_eq!("price".parse::<Target>().map(|t| t.to_string()), Ok("price".to_owned()));
        assert_eq!("nats:a.b".parse::<Target>(), Err(InvalidTarget::Scheme { scheme: "nats:" }));
        assert!("no such".parse::<Target>().is_err());
    }
}
