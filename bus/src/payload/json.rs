//! JSON, written straight into a buffer.

use std::io::Write;

use base64::{display::Base64Display, prelude::BASE64_STANDARD};

/// Appends an object of strings.
pub(super) fn object<'a>(to: &mut Vec<u8>, members: impl Iterator<Item = (&'a str, &'a str)>) {
    to.push(b'{');
    for (at, (name, value)) in members.enumerate() {
        if at > 0 {
            to.push(b',');
        }
        string(to, name);
        to.push(b':');
        string(to, value);
    }
    to.push(b'}');
}

pub(super) fn raw(to: &mut Vec<u8>, json: &str) {
    to.extend_from_slice(json.as_bytes());
}

/// Appends a text as a JSON string.
pub(crate) fn string(to: &mut Vec<u8>, text: &str) {
    // writing a string into memory cannot fail
    let _ = serde_json::to_writer(to, text);
}

/// Appends bytes as a JSON string of base64.
pub(crate) fn base64(to: &mut Vec<u8>, bytes: &[u8]) {
    let _ = write!(to, "\"{}\"", Base64Display::new(bytes, &BASE64_STANDARD));
}
