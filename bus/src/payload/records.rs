//! What comes as `Records`: S3's notifications and SQS' messages.

use std::{borrow::Cow, fmt, io::Write, str};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::SecondsFormat;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    ACCOUNT, Format, REGION,
    json::{raw, string},
    name_of,
};
use crate::event::{Event, FileChange, FileMeta, Meta, QueueMeta};

/// Appends a notification of all these events; false when any of them is no record of the format.
pub(super) fn write(events: &[&Event], format: Format, to: &mut Vec<u8>) -> bool {
    raw(to, r#"{"Records":["#);
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            to.push(b',');
        }
        match (format, &event.meta) {
            (Format::S3, Meta::File(meta)) => s3(event, meta, to),
            (Format::Sqs, Meta::Queue(meta)) => sqs(event, meta, to),
            _ => return false,
        }
    }
    raw(to, "]}");
    true
}

/// A file; beside what S3 says, `fnbus` has the path to open and what happened.
fn s3(event: &Event, meta: &FileMeta, to: &mut Vec<u8>) {
    let name = match meta.change {
        FileChange::Created | FileChange::Modified => "ObjectCreated:Put",
        FileChange::Renamed => "ObjectCreated:Copy",
        FileChange::Removed => "ObjectRemoved:Delete",
    };
    let time = event.time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let bucket = name_of(event);
    let _ = write!(to, r#"{{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"{REGION}""#);
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
    raw(to, "}}");
}

/// A key as S3 writes it into notifications: encoded as in a form, slashes untouched.
fn s3_key(key: &str) -> String {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'*').remove(b'_').remove(b'/').remove(b' ');
    utf8_percent_encode(key, ENCODED).to_string().replace(' ', "+")
}

/// A message; beside what SQS says, `fnbus` has the place of the message and how its body is written.
fn sqs(event: &Event, meta: &QueueMeta, to: &mut Vec<u8>) {
    raw(to, r#"{"messageId":"#);
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
    let _ = write!(to, r#","isBase64Encoded":{}}}}}"#, text.is_none());
}

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::LowerHex for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
