//! EventBridge's scheduled event.

use std::io::Write;

use chrono::SecondsFormat;

use super::{
    ACCOUNT, REGION,
    json::{raw, string},
    name_of,
};
use crate::event::Event;

pub(super) fn scheduled(event: &Event, to: &mut Vec<u8>) {
    raw(to, r#"{"version":"0","id":"#);
    string(to, &event.id.to_string());
    raw(to, r#","detail-type":"Scheduled Event","source":"aws.events","account":""#);
    raw(to, ACCOUNT);
    let time = event.time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let _ = write!(to, "\",\"time\":\"{time}\",\"region\":\"{REGION}\",\"resources\":[\"");
    let _ = write!(to, "arn:aws:events:{REGION}:{ACCOUNT}:rule/{}\"],\"detail\":{{}}}}", name_of(event));
}
