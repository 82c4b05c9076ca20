//! A request as an event.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use bus::{
    Event, EventId,
    cloudevent::{header, http as binding, json},
    event::{HttpMeta, Meta},
};
use bytes::Bytes;
use hyper::{
    HeaderMap, Version,
    header::{CONTENT_TYPE, HOST, HeaderValue},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;

use super::{problem::Refusal, table::Route};

/// CloudEvents type of a request that is not one itself.
const KIND: &str = "http.request";

/// Longest id a client may give to a request.
const MAX_ID: usize = 256;

/// About the connection between client and us only (RFC 9110): no business of a function.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The path as routes are compared with: decoded once. What could mean another path to somebody who decodes it again,
/// or to a file system, is refused.
pub(super) fn decoded_path(path: &str) -> Result<Cow<'_, str>, Refusal> {
    let path = if path.contains('%') {
        percent_encoded(path)?;
        let slashes = path.bytes().filter(|b| *b == b'/').count();
        let decoded =
            percent_decode_str(path).decode_utf8().map_err(|_| Refusal::Malformed("has a path that is not UTF-8"))?;
        if decoded.bytes().filter(|b| *b == b'/').count() != slashes {
            return Err(Refusal::Malformed("has an encoded slash in its path"));
        }
        decoded
    } else {
        Cow::Borrowed(path)
    };
    if path.bytes().any(|b| b.is_ascii_control() || b == b'\\') {
        return Err(Refusal::Malformed("has a control character or a backslash in its path"));
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(Refusal::Malformed("has a dot segment in its path"));
    }
    if !path.starts_with('/') {
        return Err(Refusal::Malformed("has a target that is no path"));
    }
    Ok(path)
}

fn percent_encoded(path: &str) -> Result<(), Refusal> {
    let broken = path.split('%').skip(1).any(|rest| {
        let hex = rest.as_bytes().get(..2);
        !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit))
    });
    if broken { Err(Refusal::Malformed("has a broken percent-encoding in its path")) } else { Ok(()) }
}

/// One host, the same wherever it is said: what stands before us may have decided by another one than we would.
pub(super) fn check_host(head: &Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Malformed("has several Host headers"));
    }
    match (host, head.uri.authority()) {
        (Some(host), Some(authority)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err(Refusal::Malformed("has a Host header that differs from its target"))
        }
        (None, None) if head.version == Version::HTTP_11 => Err(Refusal::Malformed("has no Host header")),
        _ => Ok(()),
    }
}

/// The event of a request, under the id its client gave it.
pub(super) fn called(
    head: &Parts,
    peer: IpAddr,
    route: &Route,
    params: Vec<(String, String)>,
    body: Bytes,
) -> Result<Event, Refusal> {
    let id = given_id(&head.headers)?.unwrap_or_default();
    let mut event = Event::with_id(id, route.bound.source.clone(), KIND, body);
    event.datacontenttype = head.headers.get(CONTENT_TYPE).map(|value| text(value).into());
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = head.headers.get(name).and_then(|value| value.to_str().ok()) {
            event.extensions.insert(name.to_owned(), value.to_owned());
        }
    }
    event.trigger = Some(route.bound.trigger.clone());
    event.meta = Meta::Http(Box::new(facts(head, peer, route, params)));
    Ok(event)
}

/// The event of a request that is taken for later: the CloudEvent it carries, or the request itself.
pub(super) fn taken(
    head: &Parts,
    peer: IpAddr,
    route: &Route,
    params: Vec<(String, String)>,
    body: Bytes,
    namespace: &str,
) -> Result<Event, Refusal> {
    let mode = binding::mode(pairs(&head.headers))?;
    let mut event = match mode {
        Some(binding::Mode::Binary) => binding::read_binary(pairs(&head.headers), &body)?,
        Some(binding::Mode::Structured) => json::read(&body)?,
        Some(binding::Mode::Batch) | None => return called(head, peer, route, params, body),
    };
    check_source(&event, namespace)?;
    let mut facts = facts(head, peer, route, params);
    if mode == Some(binding::Mode::Structured) {
        describe_data(&mut facts, event.datacontenttype.as_ref());
    }
    event.trigger = Some(route.bound.trigger.clone());
    event.meta = Meta::Http(Box::new(facts));
    Ok(event)
}

/// Sources below `/<namespace>/` are ours: nobody else's events may look like those of our triggers and functions.
pub(super) fn check_source(event: &Event, namespace: &str) -> Result<(), Refusal> {
    if event.source.starts_with(namespace) {
        return Err(Refusal::SourceTaken { given: event.source.chars().take(80).collect() });
    }
    Ok(())
}

/// In structured mode the request's body was the envelope; what is kept is the data, so the headers speak of that.
fn describe_data(facts: &mut HttpMeta, media_type: Option<&Arc<str>>) {
    facts.headers.retain(|(name, _)| name != "content-type" && name != "content-length");
    if let Some(media_type) = media_type {
        facts.headers.push(("content-type".to_owned(), media_type.to_string()));
    }
}

fn given_id(headers: &HeaderMap) -> Result<Option<EventId>, Refusal> {
    let unreadable = Refusal::Malformed("has an id that is empty, too long or not text");
    let id = if let Some(key) = headers.get("idempotency-key") {
        Cow::Borrowed(key.to_str().map_err(|_| unreadable.clone())?)
    } else if let Some(id) = headers.get("ce-id") {
        let id = id.to_str().map_err(|_| unreadable.clone())?;
        header::decode_header_value(id).ok_or_else(|| unreadable.clone())?
    } else {
        return Ok(None);
    };
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        return Err(unreadable);
    }
    Ok(Some(EventId::foreign(&id)))
}

fn facts(head: &Parts, peer: IpAddr, route: &Route, params: Vec<(String, String)>) -> HttpMeta {
    let mut headers = Vec::with_capacity(head.headers.len() + 1);
    if let (None, Some(authority)) = (head.headers.get(HOST), head.uri.authority()) {
        // HTTP/2 says it in the target only
        headers.push(("host".to_owned(), authority.to_string()));
    }
    let end_to_end = head.headers.iter().filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()));
    headers.extend(end_to_end.map(|(name, value)| (name.as_str().to_owned(), text(value).into_owned())));
    HttpMeta {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        route: route.text.to_string(),
        params,
        headers,
        protocol: format!("{:?}", head.version),
        source_ip: peer.to_canonical().to_string(),
    }
}

/// Headers as the CloudEvents bindings read them. A value that is not ASCII text is none of theirs: attributes are
/// percent-encoded.
pub(super) fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or("%")))
}

/// A header's value as text: UTF-8 if it is that, else each byte a character, as HTTP once had it.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => text.into(),
        Err(_) => value.as_bytes().iter().copied().map(char::from).collect::<String>().into(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/a/b", "/a/b")]
    #[case("/a%20b/%e2%82%ac", "/a b/€")]
    #[case("/a.b/..c/...", "/a.b/..c/...")]
    #[case("/%2525", "/%25")]
    fn a_path_is_decoded_once(#[case] path: &str, #[case] decoded: &str) {
        assert_eq!(decoded_path(path).as_deref(), Ok(decoded));
    }

    #[rstest]
    #[case("/fn/%2e%2e/admin")]
    #[case("/fn/..%2f")]
    #[case("/fn/%2Fa")]
    #[case("/fn/%00")]
    #[case("/fn/../a")]
    #[case("/.")]
    #[case("/a%5cb")]
    #[case("/a%0d%0ab")]
    #[case("/a%zz")]
    #[case("/a%f")]
    #[case("/%ff")]
    #[case("*")]
    #[case("")]
    fn a_path_that_could_mean_another_is_refused(#[case] path: &str) {
        assert!(matches!(decoded_path(path), Err(Refusal::Malformed(_))));
    }
}
