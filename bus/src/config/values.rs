//! How single values are read, each way of being wrong in one clear sentence.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use super::{Shape, closest, one_of};
use crate::{event::FileChange, name::Name, path::KeyPath, sink::LogMode, target::Target};

/// A value of the file.
pub type Value<'a> = toml::de::DeValue<'a>;

/// Made of one value of the file. The shape is the key's own, with its range or words.
pub trait FromValue: Sized {
    fn from_value(value: &Value<'_>, shape: &Shape) -> Result<Self, Wrong>;
}

/// Why a value is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// A sentence, or, after `must` or another verb, its end: the key is put before it.
    text: Text,
    pub advice: Option<String>,
    pub label: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    Sentence(String),
    OfKey(String),
}

impl Wrong {
    /// A sentence that names the value itself.
    pub fn sentence(text: impl Into<String>) -> Self {
        Self { text: Text::Sentence(text.into()), advice: None, label: "here".to_owned() }
    }

    /// What the key must be or is not: "must be longer than zero".
    pub fn of_key(text: impl Into<String>) -> Self {
        Self { text: Text::OfKey(text.into()), advice: None, label: "here".to_owned() }
    }

    /// Another type than expected, such as "a string".
    pub fn not_a(what: &str, value: &Value<'_>) -> Self {
        Self::of_key(format!("must be {what}")).label(format!("this is {}", kind(value)))
    }

    pub fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    pub fn label(self, label: impl Into<String>) -> Self {
        Self { label: label.into(), ..self }
    }

    pub fn message(&self, key: &str) -> String {
        match &self.text {
            Text::Sentence(text) => text.clone(),
            Text::OfKey(text) => format!("`{key}` {text}"),
        }
    }
}

/// The type of a value, for people.
pub(super) fn kind(value: &Value<'_>) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

fn text<'v>(value: &'v Value<'_>, what: &str) -> Result<&'v str, Wrong> {
    value.as_str().ok_or_else(|| {
        let wrong = Wrong::not_a(what, value);
        match value {
            Value::Integer(number) => wrong.advice(format!("write it in quotes: \"{number}\"")),
            Value::Float(number) => wrong.advice(format!("write it in quotes: \"{number}\"")),
            Value::Boolean(yes) => wrong.advice(format!("write it in quotes: \"{yes}\"")),
            _ => wrong,
        }
    })
}

/// A string that is parsed by its type; the type's error is the sentence.
pub fn parsed<T: FromStr<Err: fmt::Display>>(value: &Value<'_>) -> Result<T, Wrong> {
    text(value, "a string")?.parse().map_err(|e: T::Err| Wrong::sentence(e.to_string()))
}

impl FromValue for String {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        text(value, "a string").map(ToOwned::to_owned)
    }
}

impl FromValue for bool {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        value.as_bool().ok_or_else(|| Wrong::not_a("true or false, without quotes", value))
    }
}

impl FromValue for u32 {
    fn from_value(value: &Value<'_>, shape: &Shape) -> Result<Self, Wrong> {
        let Value::Integer(number) = value else {
            let wrong = Wrong::not_a("a whole number, without quotes", value);
            let digits = value.as_str().map(|text| text.trim().trim_end_matches('%').trim_end());
            return Err(match digits.filter(|text| text.parse::<Self>().is_ok()) {
                Some(digits) => wrong.advice(format!("write it without quotes: {digits}")),
                None => wrong,
            });
        };
        let given = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let (low, high) = match shape {
            Shape::Integer(range) => (*range.start(), *range.end()),
            _ => (0, Self::MAX),
        };
        given.and_then(|n| Self::try_from(n).ok()).filter(|n| (low..=high).contains(n)).ok_or_else(|| {
            let is_low = given.is_some_and(|n| n < i128::from(low));
            let advice = if is_low { format!("write {low} or more") } else { format!("write {high} or less") };
            Wrong::of_key(format!("must be from {low} to {high}")).advice(advice).label("out of range")
        })
    }
}

impl FromValue for u16 {
    fn from_value(value: &Value<'_>, shape: &Shape) -> Result<Self, Wrong> {
        let number = u32::from_value(value, shape)?;
        Self::try_from(number).map_err(|_| Wrong::of_key(format!("must be at most {}", Self::MAX)))
    }
}

impl FromValue for Duration {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        const ADVICE: &str = "units are ms, s, m, h and d: write \"1500ms\", \"10s\", \"5m\", \"6h\" or \"7d\"";
        if let Value::Integer(number) = value {
            let number = number.as_str();
            let advice = if number.starts_with('-') {
                ADVICE.to_owned()
            } else {
                format!("write \"{number}ms\" or \"{number}s\"")
            };
            return Err(Wrong::of_key("is a duration and needs a unit").advice(advice).label("without a unit"));
        }
        let given = value.as_str().ok_or_else(|| Wrong::not_a("a duration", value).advice(ADVICE))?;
        if given.trim_start().starts_with('-') {
            return Err(Wrong::of_key("must be longer than zero").advice(ADVICE).label("negative"));
        }
        if let Ok(number) = given.trim().parse::<u64>() {
            let advice = format!("write \"{number}ms\" or \"{number}s\"");
            return Err(Wrong::of_key("is a duration and needs a unit").advice(advice).label("without a unit"));
        }
        match humantime::parse_duration(given) {
            Ok(Self::ZERO) => Err(Wrong::of_key("must be longer than zero").advice(ADVICE).label("zero")),
            Ok(duration) => Ok(duration),
            Err(_) => {
                Err(Wrong::sentence(format!("`{given}` is not a duration")).advice(ADVICE).label("not a duration"))
            }
        }
    }
}

/// A number of bytes, such as `6MB` or `5GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromValue for Size {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        const ADVICE: &str = "units are KB, MB, GB (powers of 1000) and KiB, MiB, GiB (powers of 1024): write \"6MB\"";
        let bare = |number: &str| {
            Wrong::of_key("is a size and needs a unit")
                .advice(format!("write \"{number}MB\", or \"{number}B\" for bytes"))
                .label("without a unit")
        };
        if let Value::Integer(number) = value {
            return Err(bare(number.as_str().trim_start_matches('-')));
        }
        let given = value.as_str().ok_or_else(|| Wrong::not_a("a size", value).advice(ADVICE))?.trim();
        if !given.is_empty() && given.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bare(given));
        }
        match given.parse::<bytesize::ByteSize>() {
            Ok(size) if size.as_u64() == 0 => Err(Wrong::of_key("must be more than zero").advice(ADVICE).label("zero")),
            Ok(size) => Ok(Self(size.as_u64())),
            Err(_) => Err(Wrong::sentence(format!("`{given}` is not a size")).advice(ADVICE).label("not a size")),
        }
    }
}

impl FromValue for Name {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        parsed(value).map_err(|w| w.label("not a name"))
    }
}

impl FromValue for Target {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        parsed(value).map_err(|w| w.label("not a target"))
    }
}

impl FromValue for KeyPath {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        const ADVICE: &str =
            "write \"data.customer\", \"data.items[0].sku\", \"subject\", \"type\", \"source\" or an extension's name";
        let named =
            |wrong: Wrong| if value.as_str().is_some() { wrong.label("no such place").advice(ADVICE) } else { wrong };
        parsed(value).map_err(named)
    }
}

impl FromValue for PathBuf {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        let given = text(value, "a path, as a string")?;
        if given.is_empty() || given.contains('\0') {
            return Err(Wrong::of_key("must be a path").advice("name a path, or take the key out").label("not a path"));
        }
        Ok(given.into())
    }
}

impl FromValue for SocketAddr {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        let advice = |host: &str, port: &str| format!("write \"{host}:{port}\"");
        if let Value::Integer(port) = value {
            return Err(Wrong::not_a("an address with a port", value).advice(advice("127.0.0.1", port.as_str())));
        }
        let given = text(value, "an address with a port, as a string")?;
        given.parse().map_err(|_| {
            let port = |text: &str| text.parse::<u16>().is_ok();
            let advice = match given.rsplit_once(':') {
                Some(("", p)) if port(p) => advice("0.0.0.0", p) + " for all interfaces",
                Some(("localhost", p)) if port(p) => advice("127.0.0.1", p),
                None if port(given) => advice("127.0.0.1", given),
                None if given.parse::<std::net::Ipv4Addr>().is_ok() => advice(given, "8080"),
                _ => "write an IP address and a port, such as \"127.0.0.1:8080\"".to_owned(),
            };
            Wrong::sentence(format!("`{given}` is not an address with a port")).advice(advice).label("not an address")
        })
    }
}

/// Where a NATS server is: `nats://host:port` or `tls://host:port`. It may carry a password, so it is shown without.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(String);

impl NatsUrl {
    /// With its user and password.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not the address of a NATS server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not the address of a NATS server: {reason}")]
pub struct InvalidNatsUrl {
    given: String,
    reason: &'static str,
}

impl FromStr for NatsUrl {
    type Err = InvalidNatsUrl;

    fn from_str(given: &str) -> Result<Self, InvalidNatsUrl> {
        let wrong = |reason| Err(InvalidNatsUrl { given: without_user(given), reason });
        let Some((scheme, rest)) = given.split_once("://") else {
            return wrong("write nats://host:port");
        };
        if !matches!(scheme, "nats" | "tls") {
            return wrong("it begins with nats:// or tls://");
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', ' ', ',']) {
            return wrong("it is one host and port, nothing after");
        }
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        if host.is_empty() {
            return wrong("the host is missing");
        }
        if port.is_some_and(|p| !p.parse::<u16>().is_ok_and(|p| p > 0)) {
            return wrong("the port is a number from 1 to 65535");
        }
        Ok(Self(given.to_owned()))
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_user(&self.0))
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NatsUrl({self})")
    }
}

fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://…@{place}"),
        // the scheme was forgotten
        (None, Some((_, place))) => format!("…@{place}"),
        _ => url.to_owned(),
    }
}

impl FromValue for NatsUrl {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        parsed(value).map_err(|w| w.label("not a NATS address").advice("write \"nats://127.0.0.1:4222\""))
    }
}

/// A closed set of words, as written in the file.
pub trait Word: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
    /// What they mean, where they do not say it themselves.
    const MEANING: &'static str = "";

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

/// The words of a set.
pub fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

impl<T: Word> FromValue for T {
    fn from_value(value: &Value<'_>, _: &Shape) -> Result<Self, Wrong> {
        let known = words::<T>();
        let given = value.as_str().ok_or_else(|| Wrong::not_a(&one_of(&known), value))?;
        if let Some((_, found)) = T::WORDS.iter().find(|(word, _)| *word == given) {
            return Ok(*found);
        }
        let wrong = Wrong::of_key(format!("cannot be `{given}`")).label("unknown word");
        let mut can_be = one_of(&known);
        if !T::MEANING.is_empty() {
            can_be = format!("{can_be}: {}", T::MEANING);
        }
        Err(wrong.advice(match closest(given, known.iter().copied()) {
            Some(word) => format!("did you mean \"{word}\"? It can be {can_be}"),
            None => format!("it can be {can_be}"),
        }))
    }
}

impl Word for FileChange {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("created", Self::Created),
        ("modified", Self::Modified),
        ("removed", Self::Removed),
        ("renamed", Self::Renamed),
    ];
}

impl Word for LogMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("full", Self::Full), ("errors", Self::Errors), ("off", Self::Off)];
}

/// As one would write it: the largest unit that leaves nothing over.
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let (unit, name) = units.into_iter().find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit)).unwrap_or((1, "ms"));
    format!("{}{name}", ms / unit)
}

/// As one would write it: the largest unit that leaves nothing over.
pub fn size_text(bytes: u64) -> String {
    let units = [
        (1 << 40, "TiB"),
        (1_000_000_000_000, "TB"),
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1000, "KB"),
    ];
    let (unit, name) = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit)).unwrap_or((1, "B"));
    format!("{}{name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn read<T: FromValue>(text: &str, shape: &Shape) -> Result<T, String> {
        let value = Value::parse(text).unwrap();
        T::from_value(value.get_ref(), shape).map_err(|w| w.message("key"))
    }

    #[rstest]
    #[case::seconds("\"10s\"", Ok(10_000))]
    #[case::milliseconds("\"1500ms\"", Ok(1500))]
    #[case::days("\"7d\"", Ok(7 * 86_400_000))]
    #[case::hours_and_minutes("\"1h 30m\"", Ok(90 * 60_000))]
    #[case::a_bare_number("10", Err("`key` is a duration and needs a unit"))]
    #[case::a_bare_number_in_quotes("\"10\"", Err("`key` is a duration and needs a unit"))]
    #[case::zero("\"0s\"", Err("`key` must be longer than zero"))]
    #[case::negative("\"-5s\"", Err("`key` must be longer than zero"))]
    #[case::a_word("\"soon\"", Err("`soon` is not a duration"))]
    #[case::another_type("true", Err("`key` must be a duration"))]
    fn a_duration(#[case] given: &str, #[case] expect: Result<u64, &str>) {
        let expect = expect.map(Duration::from_millis).map_err(ToOwned::to_owned);
        assert_eq!(read(given, &Shape::Duration), expect);
    }

    #[rstest]
    #[case::megabytes("\"6MB\"", Ok(6_000_000))]
    #[case::mebibytes("\"6 MiB\"", Ok(6 << 20))]
    #[case::gigabytes("\"5GB\"", Ok(5_000_000_000))]
    #[case::a_bare_number("6", Err("`key` is a size and needs a unit"))]
    #[case::a_bare_number_in_quotes("\"600\"", Err("`key` is a size and needs a unit"))]
    #[case::zero("\"0MB\"", Err("`key` must be more than zero"))]
    #[case::a_word("\"much\"", Err("`much` is not a size"))]
    #[case::negative("\"-1MB\"", Err("`-1MB` is not a size"))]
    fn a_size(#[case] given: &str, #[case] expect: Result<u64, &str>) {
        assert_eq!(read(given, &Shape::Size), expect.map(Size).map_err(ToOwned::to_owned));
    }

    #[rstest]
    #[case("nats://127.0.0.1:4222", true)]
    #[case("tls://user:secret@nats.example", true)]
    #[case("nats://[::1]:4222", true)]
    #[case("nats://[::1]", true)]
    #[case("http://127.0.0.1:4222", false)]
    #[case("127.0.0.1:4222", false)]
    #[case("nats://:4222", false)]
    #[case("nats://host:0", false)]
    #[case("nats://host:x", false)]
    #[case("nats://host/path", false)]
    fn a_nats_address(#[case] given: &str, #[case] good: bool) {
        assert_eq!(given.parse::<NatsUrl>().is_ok(), good);
    }

    #[test]
    fn a_password_in_a_nats_address_is_never_shown() {
        let good: NatsUrl = "nats://me:hush@host:4222".parse().unwrap();
        let bad = ["ws://me:hush@host:4222", "me:hush@host:4222"].map(|bad| bad.parse::<NatsUrl>().unwrap_err());
        for shown in [format!("{good} {good:?}"), format!("{bad:?}")] {
            assert!(!shown.contains("hush") && shown.contains("…@host:4222"), "{shown}");
        }
    }

    #[test]
    fn a_number_out_of_its_range_is_told_the_range() {
        let shape = Shape::Integer(16..=64);
        assert_eq!(read("0x20", &shape), Ok(32_u32));
        for given in ["8", "65", "-1", "99999999999999999999999"] {
            assert_eq!(read::<u32>(given, &shape), Err("`key` must be from 16 to 64".to_owned()));
        }
    }

    proptest! {
        #[test]
        fn a_duration_and_a_size_read_back_as_they_are_written(ms in 1_u64..1 << 40, bytes in 1_u64..1 << 50) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(read(&format!("\"{}\"", duration_text(duration)), &Shape::Duration), Ok(duration));
            prop_assert_eq!(read(&format!("\"{}\"", size_text(bytes)), &Shape::Size), Ok(Size(bytes)));
        }
    }
}
