//! A function's outcome as a response: API Gateway's rules for results of format 2.0.
//!
//! * an object with `statusCode` says status, headers, cookies and body itself;
//! * any other JSON is the body of a 200, compact, as `application/json`;
//! * a string is the body as it is, with the same type;
//! * what is no JSON (a program's plain output) is the body as it is, as text or bytes.

use std::{borrow::Cow, fmt};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bus::{Outcome, outcome::Ending};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
        UPGRADE,
    },
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::problem::Refusal;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Padding may be left out, as several languages do by default.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The response of an outcome; anything but a good end is refused, with no word of what the function said.
pub(super) fn respond(outcome: Outcome) -> Result<Response<Full<Bytes>>, Refusal> {
    if outcome.ending != Ending::Ok {
        return Err(Refusal::Function(outcome.ending));
    }
    let output = outcome.output;
    let Ok(json) = serde_json::from_slice::<&RawValue>(&output) else {
        let media_type = match str::from_utf8(&output) {
            Ok("") => JSON,
            Ok(_) => TEXT,
            Err(_) => BYTES,
        };
        return Ok(with_type(output, media_type));
    };
    match json.get().as_bytes().first() {
        Some(b'{') => {
            let members = Members::of(json)?;
            // without a `statusCode` the object is itself the body
            if let Some(status) = members.status_code {
                return Shape::read(&members, status_of(status)?)?.response();
            }
        }
        Some(b'"') => return Ok(with_type(string(json)?.into_owned().into(), JSON)),
        _ => {}
    }
    let body = compact(json.get()).map_or_else(|| output.slice_ref(json.get().as_bytes()), Bytes::from);
    Ok(with_type(body, JSON))
}

/// A response without its body, of the head that a streamed answer begins with.
pub(super) fn streamed(head: &[u8]) -> Result<Response<()>, Refusal> {
    let json = serde_json::from_slice::<&RawValue>(head).ok().filter(|json| json.get().starts_with('{'));
    let members = Members::of(json.ok_or(Refusal::Response("its head is no JSON object"))?)?;
    let shape = Shape::read(&members, members.status_code.map_or(Ok(StatusCode::OK), status_of)?)?;
    let mut response = Response::new(());
    (*response.status_mut(), *response.headers_mut()) = (shape.status, shape.headers);
    Ok(response)
}

fn with_type(body: Bytes, media_type: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// Valid JSON without the spaces between its tokens; none where there are none. Numbers and strings stay as they are.
fn compact(json: &str) -> Option<String> {
    let mut quoted = false;
    let mut escaped = false;
    let mut is_token = |c: char| {
        if escaped {
            escaped = false;
        } else if c == '"' {
            quoted = !quoted;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if !quoted && matches!(c, ' ' | '\t' | '\r' | '\n') {
            return false;
        }
        true
    };
    let first = json.find(|c| !is_token(c))?;
    let mut compact = String::with_capacity(json.len());
    compact.push_str(&json[..first]);
    compact.extend(json[first + 1..].chars().filter(|c| is_token(*c)));
    Some(compact)
}

/// An object that describes its response.
struct Shape<'a> {
    status: StatusCode,
    headers: HeaderMap,
    body: Option<&'a RawValue>,
    base64: bool,
}

impl<'a> Shape<'a> {
    fn read(members: &Members<'a>, status: StatusCode) -> Result<Self, Refusal> {
        let mut headers = HeaderMap::new();
        if let Some(json) = members.headers {
            add_headers(json, &mut headers)?;
        }
        if let Some(json) = members.cookies {
            let cookies: Vec<Text<'_>> = serde_json::from_str(json.get())
                .map_err(|_| Refusal::Response("`cookies` is not a list of strings"))?;
            for Text(cookie) in cookies {
                headers.append(SET_COOKIE, value(&cookie)?);
            }
        }
        let base64 = match members.is_base64.map(RawValue::get) {
            None | Some("null" | "false" | "\"false\"") => false,
            Some("true" | "\"true\"") => true,
            Some(_) => return Err(Refusal::Response("`isBase64Encoded` is not a boolean")),
        };
        Ok(Self { status, headers, body: members.body, base64 })
    }

    fn response(mut self) -> Result<Response<Full<Bytes>>, Refusal> {
        let text: Cow<'_, str> = match self.body {
            None => "".into(),
            Some(json) if json.get() == "null" => "".into(),
            Some(json) if json.get().starts_with('"') => string(json)?,
            Some(json) => compact(json.get()).map_or(json.get().into(), Into::into),
        };
        let body: Bytes = if self.base64 {
            BASE64.decode(text.as_bytes()).map_err(|_| Refusal::Response("`body` is not base64"))?.into()
        } else {
            text.into_owned().into()
        };
        // these have no body, whatever the function says
        let bodiless = matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if !bodiless {
            self.headers.entry(CONTENT_TYPE).or_insert(JSON);
        }
        let mut response = Response::new(Full::new(if bodiless { Bytes::new() } else { body }));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        Ok(response)
    }
}

fn status_of(json: &RawValue) -> Result<StatusCode, Refusal> {
    let text = json.get().trim_matches('"');
    let status = text.parse::<u16>().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        (number.fract() == 0.0 && (0.0..1000.0).contains(&number)).then_some(number as u16)
    });
    status
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or(Refusal::Response("`statusCode` is not a status from 200 to 599"))
}

fn add_headers(json: &RawValue, to: &mut HeaderMap) -> Result<(), Refusal> {
    if json.get() == "null" {
        return Ok(());
    }
    let Pairs(pairs) = serde_json::from_str(json.get()).map_err(|_| Refusal::Response("`headers` is not an object"))?;
    for (name, json) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Refusal::Response("`headers` has a name that is none"))?;
        // how the response is framed is not the function's to say
        let ours = [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, TRAILER, UPGRADE];
        if ours.contains(&name) || matches!(name.as_str(), "keep-alive" | "proxy-connection") {
            continue;
        }
        let text: Cow<'_, str> = match json.get().as_bytes().first() {
            Some(b'"') => string(json)?,
            Some(b'n') => continue,
            Some(b'{' | b'[') => return Err(Refusal::Response("`headers` has a value that is not text")),
            _ => json.get().into(),
        };
        to.append(name, value(&text)?);
    }
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text)
        .or_else(|_| HeaderValue::from_bytes(text.as_bytes()))
        .map_err(|_| Refusal::Response("a header or cookie has a control character"))
}

fn string(json: &RawValue) -> Result<Cow<'_, str>, Refusal> {
    let Text(text) =
        serde_json::from_str(json.get()).map_err(|_| Refusal::Response("a string has half of a character"))?;
    Ok(text)
}

/// A JSON string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object's members, in their order.
struct Pairs<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// The members that make an object a response. Of doubles the last one counts, as in most languages.
#[derive(Default)]
struct Members<'a> {
    status_code: Option<&'a RawValue>,
    headers: Option<&'a RawValue>,
    cookies: Option<&'a RawValue>,
    body: Option<&'a RawValue>,
    is_base64: Option<&'a RawValue>,
}

impl<'a> Members<'a> {
    fn of(json: &'a RawValue) -> Result<Self, Refusal> {
        serde_json::from_str(json.get()).map_err(|_| Refusal::Response("it is nested too deeply"))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut members = Self::default();
        from.deserialize_map(Each(|name: Cow<'de, str>, value: &'de RawValue| match &*name {
            "statusCode" => members.status_code = Some(value),
            "headers" => members.headers = Some(value),
            "cookies" => members.cookies = Some(value).filter(|value| value.get() != "null"),
            "body" => members.body = Some(value),
            "isBase64Encoded" => members.is_base64 = Some(value),
            _ => {}
        }))?;
        Ok(members)
    }
}

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut pairs = Vec::new();
        from.deserialize_map(Each(|name, value| pairs.push((name, value))))?;
        Ok(Self(pairs))
    }
}

/// Visits an object's members without a value tree.
struct Each<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for Each<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((Text(name), value)) = map.next_entry()? {
            self.0(name, value);
        }
        Ok(())
    }
}
