//! A place in an event: `data.customer.id`, `data.items[0].sku`, `subject`, `type`, `source` or an extension.

use std::{fmt, str::FromStr};

use serde_json::Value;

use crate::event::Event;

/// Keys that are longer are kept as a hash: they stand in an index.
const MAX_KEY: usize = 64;

/// The way to one value of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath {
    /// As written.
    text: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A JSON pointer into the data; empty for all of it.
    Data(String),
    Attribute(String),
}

/// Why a text is not a place in an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a place in an event")]
pub struct InvalidPath {
    given: String,
}

impl KeyPath {
    /// The value there as a key; none when there is nothing, or null.
    pub fn key(&self, event: &Event) -> Option<String> {
        let key = match &self.place {
            Place::Data(pointer) => match serde_json::from_slice::<Value>(&event.data).ok()?.pointer(pointer)? {
                Value::Null => return None,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
            Place::Attribute(name) => event.attribute(name)?.to_owned(),
        };
        if key.len() <= MAX_KEY {
            return Some(key);
        }
        Some(uuid::Uuid::from_bytes(crate::log::event::hash(key.as_bytes())).simple().to_string())
    }
}

impl FromStr for KeyPath {
    type Err = InvalidPath;

    fn from_str(given: &str) -> Result<Self, InvalidPath> {
        let invalid = || InvalidPath { given: given.to_owned() };
        let text = given.strip_prefix("$.").unwrap_or(given);
        let (first, rest) = text.split_at(text.find(['.', '[']).unwrap_or(text.len()));
        let attribute = !first.is_empty() && first.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let place = match first {
            "data" => Place::Data(pointer(rest).ok_or_else(invalid)?),
            _ if attribute && rest.is_empty() => Place::Attribute(first.to_owned()),
            _ => return Err(invalid()),
        };
        Ok(Self { text: given.to_owned(), place })
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `.a.b[0]` as a JSON pointer.
fn pointer(mut rest: &str) -> Option<String> {
    let mut pointer = String::new();
    while !rest.is_empty() {
        let (step, tail) = if let Some(index) = rest.strip_prefix('[') {
            let (index, tail) = index.split_once(']')?;
            (index.parse::<usize>().is_ok().then_some(index)?, tail)
        } else {
            let name = rest.strip_prefix('.')?;
            name.split_at(name.find(['.', '[']).unwrap_or(name.len()))
        };
        if step.is_empty() {
            return None;
        }
        pointer.push('/');
        pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        rest = tail;
    }
    Some(pointer)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn event() -> Event {
        let data = r#"{"customer":{"id":"c-1"},"items":[{"sku":7.50}],"a/b":true,"gone":null}"#;
        let mut event = Event::new("/shop/orders", "order", data);
        event.subject = Some("kr".into());
        event.extensions.insert("tenant".to_owned(), "t1".to_owned());
        event
    }

    #[rstest]
    #[case("data.customer.id", Some("c-1"))]
    #[case("$.data.customer.id", Some("c-1"))]
    #[case("data.items[0].sku", Some("7.5"))]
    #[case("data.a/b", Some("true"))]
    #[case("subject", Some("kr"))]
    #[case("type", Some("order"))]
    #[case("tenant", Some("t1"))]
    #[case("data.gone", None)]
    #[case("data.none.at.all", None)]
    #[case("other", None)]
    fn a_key_is_what_stands_at_a_place(#[case] path: &str, #[case] key: Option<&str>) {
        assert_eq!(path.parse::<KeyPath>().unwrap().key(&event()).as_deref(), key);
    }

    #[test]
    fn a_long_key_is_told_from_another_and_stays_short() {
        let path: KeyPath = "subject".parse().unwrap();
        let key = |text: String| path.key(&Event { subject: Some(text.into()), ..event() }).unwrap();
        let (one, other) = (key("x".repeat(1000)), key("x".repeat(1001)));
        assert!(one != other && one.len() == 32, "{one}");
    }

    #[rstest]
    #[case("")]
    #[case("data.")]
    #[case("data..a")]
    #[case("data[x]")]
    #[case("data[0")]
    #[case("Data.a")]
    #[case("subject.a")]
    #[case("a b")]
    fn what_is_no_place_is_refused(#[case] path: &str) {
        assert!(path.parse::<KeyPath>().is_err(), "{path:?} was taken");
    }
}
