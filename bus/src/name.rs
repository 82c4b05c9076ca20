//! Names that cannot be wrong: parsing is the only constructor.
//!
//! A name becomes a NATS subject token, a folder and a word on a command line, so the narrowest of the three
//! decides: `[A-Za-z0-9_-]`, 1 to 64 of them, beginning with a letter or digit. After a [`Name`] exists no code
//! checks it again.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
pub const MAX_NAME: usize = 64;

/// The name of a function, trigger or pipeline, or a namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a name: use 1 to {MAX_NAME} of A-Z a-z 0-9 _ -, beginning with a letter or digit")]
pub struct InvalidName {
    pub given: String,
}

impl Name {
    /// The namespace of a bus that was given none.
    pub fn fnbus() -> Self {
        Self("fnbus".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if first && rest && text.len() <= MAX_NAME {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName { given: text.chars().take(80).collect() })
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.to_string()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_subject_token_a_folder_and_a_word() {
        for good in ["a", "price", "A-1_b", "9lives", &"x".repeat(64)] {
            assert_eq!(good.parse::<Name>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "_a", "a.b", "a b", "*", ">", "a/b", "..", "é", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was taken as a name");
        }
    }
}
