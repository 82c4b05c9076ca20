//! The CloudEvents conformance cases, where they are at hand, and a few vectors of our own that always are.

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{InvalidEvent, each_attribute, header, http, json as format, nats};
use crate::event::Event;

/// The cases of a family; none where there is no folder of them and nobody promised one.
fn cases(family: &str) -> Vec<Value> {
    let folder = env::var_os("FNBUS_CASES")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/cases")), PathBuf::from);
    let file = folder.join(format!("{family}.json"));
    let Ok(text) = fs::read(&file) else {
        assert!(env::var("CI").as_deref() != Ok("true"), "no cases at {}", file.display());
        eprintln!("skipped: no cases at {}; set FNBUS_CASES", file.display());
        return Vec::new();
    };
    let family: Value = serde_json::from_slice(&text).unwrap();
    family["cases"].as_array().unwrap().clone()
}

fn strict(event: &Value) -> Result<Event, InvalidEvent> {
    format::read(&event.to_string().into())
}

fn written(event: &Event) -> Event {
    let mut json = Vec::new();
    format::write(event, &mut json);
    format::read(&json.into()).unwrap()
}

#[test]
fn json_format_cases() {
    for case in cases("cloudevents_json") {
        let event = strict(&case["event"]);
        assert_eq!(event.is_ok(), case["valid"] == true, "{}: {event:?}", case["id"]);
        if let Ok(event) = event {
            assert_eq!(written(&event).data, event.data, "{}", case["id"]);
        }
    }
}

fn headers(case: &Value) -> Vec<(&str, &str)> {
    let headers = case["headers"].as_object().unwrap();
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
}

fn body(case: &Value) -> Bytes {
    match &case["body"] {
        Value::String(text) => text.clone().into(),
        body => BASE64_STANDARD.decode(body["base64"].as_str().unwrap()).unwrap().into(),
    }
}

/// What a case expects, said of what was read.
fn said(read: Result<Option<Vec<Event>>, InvalidEvent>, expect: &Value) -> Value {
    let events = match read {
        Err(_) => return json!({ "error": true }),
        Ok(None) => return json!({ "not_a_cloudevent": true }),
        Ok(Some(events)) => events,
    };
    if expect.get("batch_ids").is_some() {
        return json!({ "batch_ids": events.iter().map(|e| e.id.to_string()).collect::<Vec<_>>() });
    }
    let event = &events[0];
    let mut attributes = BTreeMap::new();
    each_attribute(event, |name, value| {
        attributes.insert(name.to_owned(), value.to_owned());
    });
    // an event without a time gets that of its arrival
    if expect["attributes"].get("time").is_none() {
        attributes.remove("time");
    }
    let mut said = json!({ "attributes": attributes });
    if expect.get("data_json").is_some() {
        said["data_json"] = serde_json::from_slice(&event.data).unwrap();
    }
    if expect.get("data_base64").is_some() {
        said["data_base64"] = BASE64_STANDARD.encode(&event.data).into();
    }
    if expect.get("data_text").is_some() {
        said["data_text"] = str::from_utf8(&event.data).unwrap().into();
    }
    said
}

fn over_http(headers: &[(&str, &str)], body: &Bytes) -> Result<Option<Vec<Event>>, InvalidEvent> {
    match http::mode(headers.iter().copied())? {
        None => Ok(None),
        Some(http::Mode::Binary) => http::read_binary(headers.iter().copied(), body).map(|e| Some(vec![e])),
        Some(http::Mode::Structured) => format::read(body).map(|e| Some(vec![e])),
        Some(http::Mode::Batch) => {
            format::split_batch(body)?.iter().map(format::read).collect::<Result<_, _>>().map(Some)
        }
    }
}

#[test]
fn binding_cases() {
    for case in cases("cloudevents_bindings") {
        let expect = &case["expect"];
        let said = match case["protocol"].as_str().unwrap() {
            "http" => said(over_http(&headers(&case), &body(&case)), expect),
            "nats" => said(nats::read(headers(&case).into_iter(), &body(&case)).map(|e| e.map(|e| vec![e])), expect),
            _ => {
                let text = expect["attribute_value"].as_str().unwrap();
                json!({ "attribute_value": text, "header_value": header::encode_header_value(text) })
            }
        };
        assert_eq!(said, *expect, "{}", case["id"]);
    }
}

fn minimal() -> Value {
    json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t" })
}

#[test]
fn an_event_without_its_required_attributes_is_none() {
    assert!(strict(&minimal()).is_ok());
    for attribute in ["specversion", "id", "source", "type"] {
        for wrong in [Value::Null, json!(""), json!(1), json!("\u{1}")] {
            let mut event = minimal();
            event[attribute] = wrong.clone();
            assert!(strict(&event).is_err(), "{attribute} {wrong}");
        }
    }
}

#[test]
fn a_name_given_twice_is_no_event() {
    let json = r#"{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t"}"#;
    assert_eq!(format::read(&json.into()), Err(InvalidEvent::Twice { attribute: "id".to_owned() }));
    let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("CE-ID", "2"), ("ce-source", "/s"), ("ce-type", "t")];
    assert!(matches!(over_http(&headers, &Bytes::new()), Err(InvalidEvent::Twice { .. })));
}

#[test]
fn what_is_ours_cannot_be_set_from_outside_and_foreign_ids_stay_foreign() {
    let mut event = minimal();
    event["hop"] = json!(3);
    event["causationid"] = json!("0190a5d4-7bd9-7000-8000-000000000000");
    let event = strict(&event).unwrap();
    assert_eq!(event.hop, 0);
    assert_eq!(event.causation, Some(crate::EventId::foreign("0190a5d4-7bd9-7000-8000-000000000000")));
    assert!(event.extensions.is_empty());
}

#[test]
fn data_comes_back_byte_for_byte_whatever_it_is() {
    let json_with_its_spaces = b"{ \"a\" : [1.0, 1e2] }".as_slice();
    for (media_type, data) in [
        (None, json_with_its_spaces),
        (None, b"plain words"),
        (Some("application/json"), json_with_its_spaces),
        (Some("application/json"), b"{not json"),
        (Some("application/json"), b"null"),
        (Some("text/plain"), "é\n\"".as_bytes()),
        (Some("text/plain"), b"\xff"),
        (Some("application/octet-stream"), b"\x00\x01"),
        (Some("image/png"), b""),
    ] {
        let mut event = Event::new("/s", "t", Bytes::from_static(data));
        event.datacontenttype = media_type.map(Into::into);
        assert_eq!(written(&event).data, data, "{media_type:?}");
    }
}

#[test]
fn an_event_over_nats_comes_back() {
    let mut event = Event::new("/s", "t", "x");
    event.id = crate::EventId::foreign("a b%");
    event.subject = Some("Euro € 😀 \"q\"".into());
    event.datacontenttype = Some("text/plain; charset=utf-8".into());
    event.extensions.insert("tenant".to_owned(), "é".to_owned());
    let mut headers = Vec::new();
    nats::each_header(&event, |name, value| headers.push((name.to_owned(), value.to_owned())));
    assert!(headers.iter().all(|(name, _)| name.starts_with("ce-")));
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    assert_eq!(nats::read(headers, &event.data), Ok(Some(event.clone())));
    assert_eq!(nats::read([("content-type", "text/plain")].into_iter(), &event.data), Ok(None));
}

#[test]
fn nats_has_no_batches_and_http_says_which_formats_it_reads() {
    let batch = [("content-type", "application/cloudevents-batch+json")];
    assert!(nats::read(batch.into_iter(), &"[]".into()).is_err());
    assert_eq!(http::mode(batch.into_iter()), Ok(Some(http::Mode::Batch)));
    assert!(http::mode([("content-type", "application/cloudevents+avro")].into_iter()).is_err());
    assert_eq!(http::mode([("content-type", "application/json"), ("ce-id", "1")].into_iter()), Ok(None));
}

#[test]
fn an_event_written_by_hand_needs_its_type_only() {
    let source = "/shop/events".into();
    let event = format::read_loose(&r#"{"type":"t","data":{"a":1}}"#.into(), &source).unwrap();
    assert_eq!((&*event.source, &*event.data), ("/shop/events", br#"{"a":1}"#.as_slice()));
    assert!(matches!(event.id, crate::EventId::Ours(_)));
    assert!(format::read_loose(&r#"{"data":1}"#.into(), &source).is_err());
    assert!(format::read_loose(&r#"{"specversion":"1.0","type":"t"}"#.into(), &source).is_err());
}
