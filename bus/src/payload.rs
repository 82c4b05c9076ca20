//! What a function gets: pure rendering of events into the bytes of an invocation, done by the worker just before it.
//! So one stored event can be given to any code in any format.
//!
//! JSON is written straight into a buffer: this runs for every invocation, and no value tree is worth its time here.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
    fmt,
    io::Write,
    str,
};

use base64::{Engine, display::Base64Display, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::SecondsFormat;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::{
    cloudevent,
    event::{Event, FileChange, FileMeta, HttpMeta, Meta, QueueMeta, is_json},
};

/// The shape of a payload, as decided when the event was matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The data as received.
    #[default]
    Body,
    /// API Gateway's HTTP API payload 2.0, from an event with HTTP facts.
    HttpV2,
    /// The event in CloudEvents' JSON format.
    CloudEvent,
    /// EventBridge's scheduled event, from an event of a schedule.
    Scheduled,
    /// S3's notification, from an event of a file.
    S3,
    /// A record of SQS, from an event of a queue.
    Sqs,
}

impl Format {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::HttpV2 => "http_v2",
            Self::CloudEvent => "cloudevent",
            Self::Scheduled => "scheduled",
            Self::S3 => "s3",
            Self::Sqs => "sqs",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        const ALL: [Format; 6] =
            [Format::Body, Format::HttpV2, Format::CloudEvent, Format::Scheduled, Format::S3, Format::Sqs];
        ALL.into_iter().find(|format| format.as_str() == text)
    }
}

/// What the bytes are, so that a runtime knows whether to parse them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// JSON: said so by its media type, or rendered here.
    Json,
    /// Text that says it is something else, such as `text/csv`.
    Text,
    /// Bytes that say they are something else, such as `image/png`.
    Bytes,
    /// Nothing is said: a runtime takes JSON if it is JSON, else text if it is UTF-8, else bytes.
    Unknown,
}

/// A rendered invocation payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    pub bytes: Bytes,
    pub form: Form,
}

/// Renders one event. Never fails: an event without the facts of a shape has no such shape and is given as its data.
pub fn render(event: &Event, format: Format) -> Payload {
    match (format, &event.meta) {
        (Format::HttpV2, Meta::Http(meta)) => {
            let mut json = Vec::with_capacity(1024 + event.data.len() + event.data.len() / 8);
            http_v2(event, meta, &mut json);
            Payload { bytes: json.into(), form: Form::Json }
        }
        (Format::CloudEvent, _) => {
            let mut json = Vec::with_capacity(512 + event.data.len() + event.data.len() / 8);
            cloudevent::json::write(event, &mut json);
            Payload { bytes: json.into(), form: Form::Json }
        }
        (Format::Scheduled, Meta::Cron(_)) => {
            let mut json = Vec::with_capacity(384);
            scheduled(event, &mut json);
            Payload { bytes: json.into(), form: Form::Json }
        }
        (Format::S3, Meta::File(meta)) => {
            let mut json = Vec::with_capacity(1024);
            s3(event, meta, &mut json);
            Payload { bytes: json.into(), form: Form::Json }
        }
        (Format::Sqs, Meta::Queue(meta)) => {
            let mut json = Vec::with_capacity(1024 + event.data.len() + event.data.len() / 8);
            sqs(event, meta, &mut json);
            Payload { bytes: json.into(), form: Form::Json }
        }
        (Format::Body | Format::HttpV2 | Format::Scheduled | Format::S3 | Format::Sqs, _) => {
            // Nothing is no JSON, whatever its media type says: an event may well have no data.
            let media_type = event.datacontenttype.as_deref().filter(|_| !event.data.is_empty());
            Payload { bytes: event.data.clone(), form: form_of(media_type) }
        }
    }
}

fn form_of(media_type: Option<&str>) -> Form {
    match media_type {
        None => Form::Unknown,
        Some(media_type) if is_json(media_type) => Form::Json,
        Some(media_type) if is_text(media_type) => Form::Text,
        Some(_) => Form::Bytes,
    }
}

/// Whether a media type means text, JSON included.
pub fn is_text(media_type: &str) -> bool {
    const TEXTS: [&str; 9] =
        ["json", "xml", "javascript", "ecmascript", "x-www-form-urlencoded", "yaml", "x-yaml", "toml", "graphql"];
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let Some((kind, sub)) = essence.split_once('/') else { return false };
    let last = sub.rsplit('+').next().unwrap_or_default();
    kind.eq_ignore_ascii_case("text") || TEXTS.iter().any(|text| last.eq_ignore_ascii_case(text))
}

/// The account of every request: there is one bus and nobody to bill.
const ACCOUNT: &str = "000000000000";
/// The region of every event, as functions read it in `AWS_REGION`.
const REGION: &str = "us-east-1";

fn scheduled(event: &Event, to: &mut Vec<u8>) {
    raw(to, r#"{"version":"0","id":"#);
    string(to, &event.id.to_string());
    raw(to, r#","detail-type":"Scheduled Event","source":"aws.events","account":""#);
    raw(to, ACCOUNT);
    let time = event.time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let _ = write!(to, "\",\"time\":\"{time}\",\"region\":\"{REGION}\",\"resources\":[\"");
    let _ = write!(to, "arn:aws:events:{REGION}:{ACCOUNT}:rule/{}\"],\"detail\":{{}}}}", name_of(event));
}

/// A notification of one record; beside what S3 says, `fnbus` has the path to open and what happened.
fn s3(event: &Event, meta: &FileMeta, to: &mut Vec<u8>) {
    let name = match meta.change {
        FileChange::Created | FileChange::Modified => "ObjectCreated:Put",
        FileChange::Renamed => "ObjectCreated:Copy",
        FileChange::Removed => "ObjectRemoved:Delete",
    };
    let time = event.time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let bucket = name_of(event);
    let _ = write!(to, r#"{{"Records":[{{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"{REGION}""#);
    let _ = write!(to, r#","eventTime":"{time}","eventName":"{name}","userIdentity":{{"principalId":"fnbus"}}"#);
    raw(to, r#","requestParameters":{"sourceIPAddress":"127.0.0.1"},"responseElements":{"x-amz-request-id":"#);
    string(to, &event.id.to_string());
    raw(to, r#","x-amz-id-2":"#);
    string(to, &event.id.to_string());
    let _ =
        write!(to, r#"}},"s3":{{"s3SchemaVersion":"1.0","configurationId":"{bucket}","bucket":{{"name":"{bucket}""#);
    let _ = write!(to, r#","ownerIdentity":{{"principalId":"fnbus"}},"arn":"arn:aws:s3:::{bucket}"}},"object":{{"#);
    let _ = write!(to, r#""key":"{}""#, s3_key(&meta.key));
    if meta.change != FileChange::Removed {
        let _ = write!(to, r#","size":{},"eTag":"{}""#, meta.size, meta.etag);
    }
    let _ =
        write!(to, r#","sequencer":"{}"}}}},"fnbus":{{"change":"{}","path":"#, meta.sequencer, meta.change.as_str());
    string(to, &meta.path);
    if let Some(from) = &meta.from {
        raw(to, r#","from":"#);
        string(to, from);
    }
    raw(to, "}}]}");
}

/// A key as S3 writes it into notifications: encoded as in a form, slashes untouched.
fn s3_key(key: &str) -> String {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'*').remove(b'_').remove(b'/').remove(b' ');
    utf8_percent_encode(key, ENCODED).to_string().replace(' ', "+")
}

/// One record; beside what SQS says, `fnbus` has the place of the message and how its body is written.
fn sqs(event: &Event, meta: &QueueMeta, to: &mut Vec<u8>) {
    raw(to, r#"{"Records":[{"messageId":"#);
    string(to, &event.id.to_string());
    let _ = write!(to, r#","receiptHandle":"{}.{}","body":"#, meta.stream, meta.sequence);
    let text = str::from_utf8(&event.data).ok();
    let body = text.map_or_else(|| Cow::Owned(BASE64_STANDARD.encode(&event.data)), Cow::Borrowed);
    string(to, &body);
    let sent = meta.published.timestamp_millis();
    let _ = write!(to, r#","attributes":{{"ApproximateReceiveCount":"{}","SentTimestamp":"{sent}""#, meta.deliveries);
    let _ = write!(to, r#","SenderId":"{ACCOUNT}","ApproximateFirstReceiveTimestamp":"{sent}"}}"#);
    raw(to, r#","messageAttributes":{"#);
    for (at, (name, value)) in meta.headers.iter().enumerate() {
        // the first of a name stands; SQS has no duplicates
        if meta.headers[..at].iter().any(|(before, _)| before == name) {
            continue;
        }
        if at > 0 {
            to.push(b',');
        }
        string(to, name);
        raw(to, r#":{"stringValue":"#);
        string(to, value);
        raw(to, r#","stringListValues":[],"binaryListValues":[],"dataType":"String"}"#);
    }
    let _ = write!(to, r#"}},"md5OfBody":"{:x}""#, Hex(&Md5::digest(body.as_bytes())));
    let _ =
        write!(to, r#","eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:{REGION}:{ACCOUNT}:{}""#, name_of(event));
    let _ = write!(to, r#","awsRegion":"{REGION}","fnbus":{{"subject":"#);
    string(to, &meta.subject);
    let _ = write!(to, r#","stream":"{}","sequence":{}"#, meta.stream, meta.sequence);
    let _ = write!(to, r#","isBase64Encoded":{}}}}}]}}"#, text.is_none());
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What AWS would call the source: our trigger. A name needs no escapes.
fn name_of(event: &Event) -> &str {
    event.trigger.as_ref().map_or("fnbus", |trigger| trigger.as_str())
}

fn http_v2(event: &Event, meta: &HttpMeta, to: &mut Vec<u8>) {
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

fn object<'a>(to: &mut Vec<u8>, members: impl Iterator<Item = (&'a str, &'a str)>) {
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

fn raw(to: &mut Vec<u8>, json: &str) {
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

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn request() -> Event {
        let mut event = Event::new("/shop/orders", "http.request", r#"{"a":"é\n"}"#);
        event.id = crate::EventId::foreign("r-1");
        event.time = DateTime::from_timestamp_millis(1_583_348_638_390).unwrap();
        event.trigger = "orders".parse().ok();
        event.datacontenttype = Some("application/json".into());
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        event.meta = Meta::Http(Box::new(HttpMeta {
            method: "POST".to_owned(),
            path: "/orders/k%20r".to_owned(),
            query: "a=1&b=x+y%26&a=2&flag".to_owned(),
            route: "POST /orders/{region}".to_owned(),
            params: vec![pair(("region", "k r"))],
            headers: [
                ("host", "shop.example:8080"),
                ("cookie", "a=1; b=2"),
                ("x-m", "1"),
                ("cookie", "c=3"),
                ("x-m", "2"),
            ]
            .map(pair)
            .to_vec(),
            protocol: "HTTP/1.1".to_owned(),
            source_ip: "192.0.2.1".to_owned(),
        }));
        event
    }

    fn rendered(event: &Event, format: Format) -> Value {
        let payload = render(event, format);
        assert_eq!(payload.form, Form::Json);
        serde_json::from_slice(&payload.bytes).unwrap()
    }

    #[test]
    fn a_request_is_rendered_as_an_http_api_payload_2_0() {
        assert_eq!(
            rendered(&request(), Format::HttpV2),
            json!({
                "version": "2.0",
                "routeKey": "POST /orders/{region}",
                "rawPath": "/orders/k%20r",
                "rawQueryString": "a=1&b=x+y%26&a=2&flag",
                "cookies": ["a=1", "b=2", "c=3"],
                "headers": { "host": "shop.example:8080", "x-m": "1,2" },
                "queryStringParameters": { "a": "1,2", "b": "x y&", "flag": "" },
                "requestContext": {
                    "accountId": "000000000000",
                    "apiId": "orders",
                    "domainName": "shop.example",
                    "domainPrefix": "shop",
                    "http": {
                        "method": "POST",
                        "path": "/orders/k%20r",
                        "protocol": "HTTP/1.1",
                        "sourceIp": "192.0.2.1",
                        "userAgent": "",
                    },
                    "requestId": "r-1",
                    "routeKey": "POST /orders/{region}",
                    "stage": "$default",
                    "time": "04/Mar/2020:19:03:58 +0000",
                    "timeEpoch": 1_583_348_638_390_i64,
                },
                "pathParameters": { "region": "k r" },
                "body": "{\"a\":\"é\\n\"}",
                "isBase64Encoded": false,
            })
        );
    }

    #[test]
    fn sections_without_content_are_left_out() {
        let mut event = request();
        event.data = Bytes::new();
        let Meta::Http(meta) = &mut event.meta else { panic!() };
        meta.query.clear();
        meta.params.clear();
        meta.headers.clear();
        let value = rendered(&event, Format::HttpV2);
        for absent in ["cookies", "queryStringParameters", "pathParameters", "body", "stageVariables"] {
            assert_eq!(value.get(absent), None, "{absent}");
        }
        assert_eq!(value["headers"], json!({}));
    }

    #[rstest]
    #[case::json("application/json", b"{}", false)]
    #[case::form("application/x-www-form-urlencoded", b"a=b", false)]
    #[case::xml("application/soap+xml; charset=utf-8", b"<a/>", false)]
    #[case::image("image/png", b"abc", true)]
    #[case::text_that_is_not_utf8("text/plain", b"\xff", true)]
    fn bodies_that_are_not_text_are_base64(
        #[case] media_type: &str,
        #[case] data: &'static [u8],
        #[case] expect: bool,
    ) {
        let mut event = request();
        event.datacontenttype = Some(media_type.into());
        event.data = Bytes::from_static(data);
        let value = rendered(&event, Format::HttpV2);
        assert_eq!(value["isBase64Encoded"], json!(expect));
    }

    #[rstest]
    #[case(Some("application/json; charset=utf-8"), Form::Json)]
    #[case(Some("application/vnd.acme+json"), Form::Json)]
    #[case(Some("text/csv"), Form::Text)]
    #[case(Some("application/xml"), Form::Text)]
    #[case(Some("image/png"), Form::Bytes)]
    #[case(None, Form::Unknown)]
    fn a_body_is_what_its_media_type_says(#[case] media_type: Option<&str>, #[case] form: Form) {
        let mut event = request();
        event.datacontenttype = media_type.map(Into::into);
        assert_eq!(render(&event, Format::Body), Payload { bytes: event.data.clone(), form });
    }

    #[test]
    fn an_event_without_http_facts_is_given_as_its_data() {
        let event = Event::new("/a", "b", "c");
        assert_eq!(render(&event, Format::HttpV2).bytes, "c");
    }

    #[test]
    fn no_data_is_no_json_whatever_its_media_type() {
        let mut event = Event::new("/shop", "ping", "");
        event.datacontenttype = Some("application/json".into());
        assert_eq!(render(&event, Format::Body).form, Form::Unknown);
    }

    #[test]
    fn a_slot_is_rendered_as_a_scheduled_event() {
        let mut event = Event::new("/shop/nightly", "cron.tick", "");
        event.time = "2026-03-08T07:00:00Z".parse().unwrap();
        event.id = crate::EventId::foreign("2026-03-08T07:00:00Z");
        event.trigger = "nightly".parse().ok();
        let (local, zone) = ("2026-03-08T03:00:00-04:00".to_owned(), "America/New_York".to_owned());
        event.meta = Meta::Cron(Box::new(crate::event::CronMeta { slot: event.time, local, zone }));
        assert_eq!(
            rendered(&event, Format::Scheduled),
            json!({
                "version": "0", "id": "2026-03-08T07:00:00Z", "detail-type": "Scheduled Event", "source": "aws.events",
                "account": "000000000000", "time": "2026-03-08T07:00:00Z", "region": "us-east-1",
                "resources": ["arn:aws:events:us-east-1:000000000000:rule/nightly"], "detail": {},
            })
        );
    }

    fn file(change: FileChange) -> Event {
        let mut event = Event::new("/shop/inbox", format!("file.{}", change.as_str()), "");
        event.time = "2026-03-08T07:00:00.5Z".parse().unwrap();
        event.id = crate::EventId::foreign("in/a b+ü.csv@1.2.3");
        event.trigger = "inbox".parse().ok();
        event.meta = Meta::File(Box::new(FileMeta {
            change,
            path: "/srv/in/a b+ü.csv".to_owned(),
            key: "in/a b+ü.csv".to_owned(),
            from: None,
            size: 2,
            modified: event.time,
            etag: "1-2-3".to_owned(),
            sequencer: "0F".to_owned(),
        }));
        event
    }

    #[test]
    fn a_file_is_rendered_as_an_s3_notification() {
        let record = &rendered(&file(FileChange::Created), Format::S3)["Records"][0];
        assert_eq!(record["eventName"], "ObjectCreated:Put");
        assert_eq!(
            (&record["eventSource"], &record["eventTime"]),
            (&json!("aws:s3"), &json!("2026-03-08T07:00:00.500Z"))
        );
        assert_eq!(record["s3"]["bucket"]["name"], "inbox");
        let object = json!({ "key": "in/a+b%2B%C3%BC.csv", "size": 2, "eTag": "1-2-3", "sequencer": "0F" });
        assert_eq!(record["s3"]["object"], object);
        assert_eq!(record["fnbus"], json!({ "change": "created", "path": "/srv/in/a b+ü.csv" }));
        let removed = &rendered(&file(FileChange::Removed), Format::S3)["Records"][0];
        assert_eq!(removed["s3"]["object"], json!({ "key": "in/a+b%2B%C3%BC.csv", "sequencer": "0F" }));
    }

    #[test]
    fn a_message_is_rendered_as_a_record_of_sqs() {
        let mut event = Event::new("/shop/payments", "queue.message", "hello");
        event.id = crate::EventId::foreign("PAY.1.7");
        event.trigger = "payments".parse().ok();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        event.meta = Meta::Queue(Box::new(QueueMeta {
            subject: "payments.eu".to_owned(),
            stream: "PAY".to_owned(),
            sequence: 7,
            deliveries: 2,
            published: DateTime::from_timestamp_millis(1_583_348_638_390).unwrap(),
            headers: vec![header("kind", "paid"), header("kind", "again"), header("n", "1")],
        }));
        let attribute = |value: &str| json!({ "stringValue": value, "stringListValues": [], "binaryListValues": [], "dataType": "String" });
        assert_eq!(
            rendered(&event, Format::Sqs),
            json!({ "Records": [{
                "messageId": "PAY.1.7",
                "receiptHandle": "PAY.7",
                "body": "hello",
                "attributes": {
                    "ApproximateReceiveCount": "2",
                    "SentTimestamp": "1583348638390",
                    "SenderId": "000000000000",
                    "ApproximateFirstReceiveTimestamp": "1583348638390",
                },
                "messageAttributes": { "kind": attribute("paid"), "n": attribute("1") },
                "md5OfBody": "5d41402abc4b2a76b9719d911017c592",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:payments",
                "awsRegion": "us-east-1",
                "fnbus": { "subject": "payments.eu", "stream": "PAY", "sequence": 7, "isBase64Encoded": false },
            }] })
        );
        event.data = Bytes::from_static(b"\xff");
        let record = &rendered(&event, Format::Sqs)["Records"][0];
        assert_eq!((&record["body"], &record["fnbus"]["isBase64Encoded"]), (&json!("/w=="), &json!(true)));
    }

    #[test]
    fn a_cloud_event_is_rendered_in_the_json_format() {
        let mut event = request();
        event.hop = 2;
        event.correlation = Some(crate::EventId::foreign("first"));
        event.extensions.insert("traceparent".to_owned(), "00-1".to_owned());
        assert_eq!(
            rendered(&event, Format::CloudEvent),
            json!({
                "specversion": "1.0", "id": "r-1", "source": "/shop/orders", "type": "http.request",
                "time": "2020-03-04T19:03:58.390Z", "datacontenttype": "application/json", "traceparent": "00-1",
                "correlationid": "first", "hop": 2, "data": { "a": "é\n" },
            })
        );
    }
}
