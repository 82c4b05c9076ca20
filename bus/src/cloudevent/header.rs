//! An attribute's text as a header's value: percent-encoded where the bindings say so.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

/// Everything but U+0021 to U+007E without `"` and `%`; what is not ASCII is always encoded.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// A text as the value of a header.
pub fn encode_header_value(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ENCODED).into()
}

/// The text behind the value of a header: quotes undone, then percent-decoded once. None where the encoding is broken
/// or is not UTF-8.
pub fn decode_header_value(value: &str) -> Option<Cow<'_, str>> {
    let text = unquote(value)?;
    if !text.contains('%') {
        return Some(text);
    }
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        rest = &rest[at + 1..];
        if !rest.get(..2)?.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
    }
    percent_decode(text.as_bytes()).decode_utf8().ok().map(|decoded| Cow::Owned(decoded.into_owned()))
}

/// Undoes a quoted string (RFC 9110); a text that does not begin with a quote is itself.
fn unquote(value: &str) -> Option<Cow<'_, str>> {
    let value = value.trim_matches([' ', '\t']);
    let Some(quoted) = value.strip_prefix('"') else { return Some(value.into()) };
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(text.into()),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a b", "a%20b")]
    #[case("100% \"x\"", "100%25%20%22x%22")]
    #[case("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80")]
    #[case("/a/b?c=d~!", "/a/b?c=d~!")]
    #[case("\u{7f}\n", "%7F%0A")]
    fn a_text_is_encoded_where_a_header_could_not_carry_it(#[case] text: &str, #[case] value: &str) {
        assert_eq!(encode_header_value(text), value);
        assert_eq!(decode_header_value(value).as_deref(), Some(text));
    }

    #[rstest]
    #[case::needless("%61%2F", Some("a/"))]
    #[case::lower_case("%e2%82%ac", Some("€"))]
    #[case::once_only("%2525", Some("%25"))]
    #[case::quoted("\"a \\\"b\\\" %20\"", Some("a \"b\"  "))]
    #[case::overlong("%C0%A0", None)]
    #[case::cut("a%2", None)]
    #[case::not_hex("a%zz", None)]
    #[case::quote_left_open("\"a", None)]
    #[case::after_the_quote("\"a\"b", None)]
    fn any_correct_encoding_is_read(#[case] value: &str, #[case] text: Option<&str>) {
        assert_eq!(decode_header_value(value).as_deref(), text);
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_travels_as_visible_ascii(text in ".*") {
            let value = encode_header_value(&text);
            prop_assert!(value.bytes().all(|b| (0x21..=0x7e).contains(&b)));
            let read = decode_header_value(&value);
            prop_assert_eq!(read.as_deref(), Some(text.as_str()));
        }
    }
}
