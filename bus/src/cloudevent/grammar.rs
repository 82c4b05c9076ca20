//! The little grammars behind attributes' types: media type (RFC 2046), URI and URI-reference (RFC 3986), timestamp
//! (RFC 3339), and the characters a CloudEvents string may have.

use chrono::{DateTime, SubsecRound, Utc};

/// Neither control characters nor the code points Unicode sets aside as non-characters.
pub(super) fn is_string(text: &str) -> bool {
    !text.chars().any(|c| {
        let code = c as u32;
        c.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
    })
}

/// `type/subtype`, with parameters.
pub(super) fn is_media_type(text: &str) -> bool {
    let mut parts = text.splitn(2, ';');
    let essence = parts.next().unwrap_or_default().trim_end();
    let named = essence.split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub));
    named && parts.next().is_none_or(are_parameters)
}

/// `a=b; c="d;e"`: what follows a media type's first semicolon.
fn are_parameters(text: &str) -> bool {
    let mut rest = text.trim_matches([' ', '\t']);
    loop {
        // RFC 9110 allows empty parameters, such as a semicolon at the end
        if rest.is_empty() {
            return true;
        }
        if let Some(after) = rest.strip_prefix(';') {
            rest = after.trim_start_matches([' ', '\t']);
            continue;
        }
        let Some((name, value)) = rest.split_once('=') else { return false };
        if !is_token(name) {
            return false;
        }
        let after = if let Some(quoted) = value.strip_prefix('"') {
            let Some(end) = quoted_end(quoted) else { return false };
            &quoted[end..]
        } else {
            let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
            if !is_token(&value[..end]) {
                return false;
            }
            &value[end..]
        };
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(';') {
            return false;
        }
    }
}

/// Where a quoted string ends, after its closing quote.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// An absolute URI, with a scheme.
pub(super) fn is_uri(text: &str) -> bool {
    scheme(text).is_some_and(|scheme| is_uri_reference(text) && !scheme.is_empty())
}

/// A URI or a relative reference; never empty.
pub(super) fn is_uri_reference(text: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hierarchy = match scheme(rest) {
        Some(scheme) => &rest[scheme.len() + 1..],
        // without a scheme, a colon before the first slash would be taken for one
        None if rest.split('/').next().is_some_and(|first| first.contains(':')) => return false,
        None => rest,
    };
    let (authority, path) = match hierarchy.strip_prefix("//") {
        Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
        None => ("", hierarchy),
    };
    has_only(authority, b":@[]") && has_only(path, b":@/") && has_only(query, b":@/?") && has_only(fragment, b":@/?")
}

fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    (first && bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))).then_some(scheme)
}

/// Unreserved characters, sub-delimiters, percent-encoded bytes, and the given ones.
fn has_only(text: &str, also: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        if b == b'%' {
            if !bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                return false;
            }
            at += 3;
            continue;
        }
        if !(b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&b) || also.contains(&b)) {
            return false;
        }
        at += 1;
    }
    true
}

/// RFC 3339, with `T` and seconds; to the microsecond.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    let dated = text.is_ascii() && text.as_bytes().get(10).is_some_and(|b| b.eq_ignore_ascii_case(&b'T'));
    let time = dated.then(|| DateTime::parse_from_rfc3339(text).ok())??;
    Some(time.with_timezone(&Utc).trunc_subsecs(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_from_other_words() {
        for good in
            ["a/b", "application/vnd.acme+json", "text/plain; charset=utf-8", "a/b;c=\"d;\\\"e\"", "a/b ; c=d;", "a/b;"]
        {
            assert!(is_media_type(good), "{good}");
        }
        for bad in ["", "xyz", "a/", "/b", "a/b/c", "a b/c", "a/b; c", "a/b; c=", "a/b; c=\"d", "a/b; c=d e", "a/é"] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }

    #[test]
    fn references_are_told_from_other_words() {
        for good in ["#f", "/a/b?c=d#e", "https://x:1@[::1]:80/p", "urn:a:b", "//h/p", "a", "?q", "%20", "mailto:a@b.c"]
        {
            assert!(is_uri_reference(good), "{good}");
        }
        for bad in ["", "a b", ":a", "1a:b", "/%zz", "/%2", "a#b#c", "/é", "/a\\b", "<a>", "/[x]"] {
            assert!(!is_uri_reference(bad), "{bad}");
        }
        assert!(is_uri("https://x/y") && is_uri("urn:x") && !is_uri("/y") && !is_uri("#y"));
    }

    #[test]
    fn times_are_rfc_3339_to_the_second_at_least() {
        assert_eq!(time("2018-04-05T18:31:00+01:00"), time("2018-04-05T17:31:00Z"));
        for bad in ["lunch", "2018-04-05", "2018-04-05 17:31:00Z", "2018-04-05T17:31Z", "2018-04-05T17:31:00", "é"] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
