//! Where an event or output can go, in one grammar for triggers, destinations and pipeline steps:
//! a function (or a version of it, `name:version`) or pipeline by name, `event:type`, `nats:subject`, `https://…`, `file:path`.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::name::{InvalidName, Name};

/// One destination. Its text is its identity: in the log, in the config and on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A function or pipeline of this bus.
    Named(Name),
    /// `name:version`: a version of a function.
    Version(Name, Qualifier),
    /// `event:type`: put on the bus as an event of that type, for whichever rule it matches.
    Event(Arc<str>),
    /// `nats:subject`: published there.
    Nats(Arc<str>),
    /// `https://…` (or `http://…` where that is allowed): posted there.
    Web(Arc<str>),
    /// `file:path`: appended as a line.
    File(Arc<str>),
}

/// Which version of a function is meant: its number, `$LATEST`, or an alias.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Qualifier(Arc<str>);

impl Qualifier {
    /// The newest version.
    pub const LATEST: &'static str = "$LATEST";
    /// The alias that calls without one go to.
    pub const LIVE: &'static str = "live";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Qualifier {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text != Self::LATEST {
            text.parse::<Name>()?;
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Qualifier {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Qualifier> for String {
    fn from(qualifier: Qualifier) -> Self {
        qualifier.as_str().to_owned()
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("`event:` wants the type of an event, such as `order.confirmed`: letters, digits and `. _ -`")]
    Type,
    #[error("`nats:` wants a subject: words of visible ASCII characters separated by single dots, no wildcards")]
    Subject,
    #[error("`{given}` is not a URL with a host")]
    Url { given: String },
    #[error("`file:` wants a path")]
    Path,
    #[error(
        "`{scheme}:` is no kind of target; use a function's name, `name:version`, `event:type`, `nats:subject`, `https://…` \
         or `file:path`"
    )]
    Scheme { scheme: String },
}

impl Target {
    /// A function, or a version of it.
    pub fn of(function: Name, version: Option<Qualifier>) -> Self {
        match version {
            Some(version) => Self::Version(function, version),
            None => Self::Named(function),
        }
    }

    /// The function or pipeline; none for any other target.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::Named(name) | Self::Version(name, _) => Some(name),
            _ => None,
        }
    }

    /// Which version of the function; none: what serves.
    pub fn version(&self) -> Option<&Qualifier> {
        match self {
            Self::Version(_, version) => Some(version),
            _ => None,
        }
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        match text.split_once(':') {
            None => Ok(Self::Named(text.parse()?)),
            Some(("event", kind)) if is_type(kind) => Ok(Self::Event(kind.into())),
            Some(("event", _)) => Err(InvalidTarget::Type),
            Some(("nats", subject)) if is_subject(subject) => Ok(Self::Nats(subject.into())),
            Some(("nats", _)) => Err(InvalidTarget::Subject),
            Some(("https" | "http", _)) => match text.parse::<reqwest::Url>() {
                Ok(url) if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(Self::Web(text.into())),
                _ => Err(InvalidTarget::Url { given: text.to_owned() }),
            },
            Some(("file", "")) => Err(InvalidTarget::Path),
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some((name, version)) => match (name.parse(), version.parse()) {
                (Ok(name), Ok(version)) => Ok(Self::Version(name, version)),
                _ => Err(InvalidTarget::Scheme { scheme: name.to_owned() }),
            },
        }
    }
}

/// Whether a text can be the type of an event that is named in a config.
fn is_type(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether a text can be published to.
fn is_subject(text: &str) -> bool {
    text.split('.')
        .all(|token| !token.is_empty() && token != "*" && token != ">" && token.bytes().all(|b| b.is_ascii_graphic()))
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl From<Name> for Target {
    fn from(name: Name) -> Self {
        Self::Named(name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Version(name, version) => write!(f, "{name}:{version}"),
            Self::Event(kind) => write!(f, "event:{kind}"),
            Self::Nats(subject) => write!(f, "nats:{subject}"),
            Self::Web(url) => f.write_str(url),
            Self::File(path) => write!(f, "file:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_back_as_it_was_written() {
        for text in [
            "price",
            "price:3",
            "price:live",
            "price:$LATEST",
            "event:order.priced",
            "nats:orders.priced",
            "https://ops.example/hook?x=1",
            "file:out/failed.jsonl",
        ] {
            assert_eq!(text.parse::<Target>().map(|t| t.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_reached_is_no_target() {
        for bad in [
            "no such",
            "event:",
            "event:a b",
            "nats:",
            "nats:a..b",
            "nats:a.>",
            "nats:a b",
            "https://",
            "file:",
            "ftp://x/y",
            "price:",
            "price:a b",
            "price:$NEWEST",
            "",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?} was taken");
        }
    }
}
