//! API Gateway's HTTP API payload 2.0.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    io::Write,
    str,
};

use percent_encoding::percent_decode_str;

use super::{
    ACCOUNT, is_text,
    json::{base64, object, raw, string},
    name_of,
};
use crate::event::{Event, HttpMeta};

pub(super) fn http_v2(event: &Event, meta: &HttpMeta, to: &mut Vec<u8>) {
    raw(to, r#"{"version":"2.0","routeKey":"#);
    string(to, &meta.route);
    raw(to, r#","rawPath":"#);
    string(to, &meta.path);
    raw(to, r#","rawQueryString":"#);
    string(to, &meta.query);
    cookies(meta, to);
    headers(meta, to);
    query(&meta.query, to);
    request_context(event, meta, to);
    if !meta.params.is_empty() {
        raw(to, r#","pathParameters":"#);
        object(to, meta.params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    body(event, to);
    to.push(b'}');
}

fn request_context(event: &Event, meta: &HttpMeta, to: &mut Vec<u8>) {
    let host = meta.header("host").unwrap_or_default();
    // a port follows the last colon, unless that colon is inside of an IPv6 address' brackets
    let domain = match host.rsplit_once(':') {
        Some((domain, port)) if !port.contains(']') => domain,
        _ => host,
    };
    raw(to, r#","requestContext":{"accountId":""#);
    raw(to, ACCOUNT);
    raw(to, r#"","apiId":"#);
    string(to, name_of(event));
    raw(to, r#","domainName":"#);
    string(to, domain);
    raw(to, r#","domainPrefix":"#);
    string(to, domain.split('.').next().unwrap_or_default());
    raw(to, r#","http":{"method":"#);
    string(to, &meta.method);
    raw(to, r#","path":"#);
    string(to, &meta.path);
    raw(to, r#","protocol":"#);
    string(to, &meta.protocol);
    raw(to, r#","sourceIp":"#);
    string(to, &meta.source_ip);
    raw(to, r#","userAgent":"#);
    string(to, meta.header("user-agent").unwrap_or_default());
    raw(to, r#"},"requestId":"#);
    string(to, &event.id.to_string());
    raw(to, r#","routeKey":"#);
    string(to, &meta.route);
    raw(to, r#","stage":"$default","time":""#);
    let time = event.time.format("%d/%b/%Y:%H:%M:%S +0000");
    let _ = write!(to, "{time}\",\"timeEpoch\":{}}}", event.time.timestamp_millis());
}

/// All cookies in a list of their own, and in no header.
fn cookies(meta: &HttpMeta, to: &mut Vec<u8>) {
    let lines = meta.headers.iter().filter(|(name, _)| name == "cookie");
    let mut first = true;
    for cookie in lines.flat_map(|(_, line)| line.split(';')).map(str::trim).filter(|cookie| !cookie.is_empty()) {
        raw(to, if first { r#","cookies":["# } else { "," });
        string(to, cookie);
        first = false;
    }
    if !first {
        to.push(b']');
    }
}

fn headers(meta: &HttpMeta, to: &mut Vec<u8>) {
    raw(to, r#","headers":"#);
    let headers = meta.headers.iter().filter(|(name, _)| name != "cookie");
    joined(to, headers.map(|(name, value)| (Cow::Borrowed(name.as_str()), Cow::Borrowed(value.as_str()))));
}

fn query(query: &str, to: &mut Vec<u8>) {
    if query.is_empty() {
        return;
    }
    raw(to, r#","queryStringParameters":"#);
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name), form_decode(value))
    });
    joined(to, pairs);
}

fn form_decode(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
    } else {
        percent_decode_str(text).decode_utf8_lossy()
    }
}

fn body(event: &Event, to: &mut Vec<u8>) {
    if event.data.is_empty() {
        raw(to, r#","isBase64Encoded":false"#);
        return;
    }
    raw(to, r#","body":"#);
    match str::from_utf8(&event.data) {
        Ok(text) if event.datacontenttype.as_deref().is_none_or(is_text) => {
            string(to, text);
            raw(to, r#","isBase64Encoded":false"#);
        }
        _ => {
            base64(to, &event.data);
            raw(to, r#","isBase64Encoded":true"#);
        }
    }
}

/// An object of pairs that may repeat a name: its values are joined by commas, where the name came first.
fn joined<'a>(to: &mut Vec<u8>, pairs: impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)>) {
    let mut merged: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(16);
    // a client chooses the names and how many: looking through the list for each would be quadratic
    let mut places = HashMap::with_capacity(16);
    for (name, value) in pairs {
        match places.entry(name.clone()) {
            Entry::Vacant(place) => {
                place.insert(merged.len());
                merged.push((name, value));
            }
            Entry::Occupied(place) => {
                let joined: &mut String = merged[*place.get()].1.to_mut();
                joined.push(',');
                joined.push_str(&value);
            }
        }
    }
    object(to, merged.iter().map(|(name, value)| (&**name, &**value)));
}
