//! Triggers by queue: each message once, whoever is away meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};

use async_nats::{
    ConnectOptions, HeaderMap,
    jetstream::{self, stream},
};
use fnbus_tests::{Node, Project, eventually};
use rstest::rstest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const ECHO: &str = "def handler(event, context): return event\n";

fn project(keys: &str) -> Project {
    Project::new().function("f", ECHO).config(&format!("[triggers.t]\nto = 'f'\n{keys}\n"))
}

/// Somebody else on the same NATS.
async fn other(node: &Node) -> jetstream::Context {
    let config = node.read(".fnbus/nats/server.conf");
    let after = |mark: &str| config.split(mark).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let (address, password) = (after("listen: \""), after("password: \""));
    let client = eventually("NATS is there", || async {
        ConnectOptions::new().user_and_password("fnbus".to_owned(), password.clone()).connect(&address).await.ok()
    });
    jetstream::new(client.await)
}

async fn trigger(node: &Node) -> Value {
    node.json(&["triggers", "--json"]).await.remove(0)
}

async fn reading(node: &Node, stream: &str) {
    eventually("it reads", || async { (trigger(node).await["state"] == format!("reading {stream}")).then_some(()) })
        .await;
}

/// Ids of the events so far, oldest first.
async fn ids(node: &Node) -> Vec<String> {
    let events = node.json(&["events", "--trigger", "t", "--json", "--limit", "1000"]).await;
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn events_are(node: &Node, number: usize) -> Vec<String> {
    eventually(&format!("{number} events are there"), || async {
        let ids = ids(node).await;
        (ids.len() >= number).then_some(ids)
    })
    .await
}

fn output(event: &Value) -> Value {
    serde_json::from_str(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap()).unwrap()
}

async fn publish(nats: &jetstream::Context, subject: &str, headers: &[(&str, &str)], body: &'static [u8]) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, *value);
    }
    nats.publish_with_headers(subject.to_owned(), map, body.into()).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn a_subject_that_no_stream_has_gets_one_and_its_messages_come_as_records() {
    let node = project("queue = 'nats:payments.>'").start().await;
    reading(&node, "fnbus_in_t").await;
    node.says("no stream covered `payments.>`: one was made for it").await;
    let nats = other(&node).await;
    publish(&nats, "payments.eu", &[("kind", "paid")], b"not JSON").await;
    let id = events_are(&node, 1).await.remove(0);
    assert!(id.starts_with("fnbus_in_t.") && id.ends_with(".1"), "{id}");
    let event = node.event_is(&id, "done").await;
    assert_eq!((&event["type"], &event["source"]), (&json!("queue.message"), &json!("/fnbus/t")));
    let record = output(&event)["Records"][0].clone();
    assert_eq!((&record["body"], &record["eventSource"]), (&json!("not JSON"), &json!("aws:sqs")));
    assert_eq!(record["messageAttributes"]["kind"]["stringValue"], "paid");
    assert_eq!(record["fnbus"]["subject"], "payments.eu");
    eventually("what was taken leaves the stream", || async {
        let stream = nats.get_stream("fnbus_in_t").await.unwrap();
        (stream.cached_info().state.messages == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_has_the_subject_is_read_and_kept_and_cloud_events_are_themselves() {
    let node = project("queue = 'nats:orders.>'\npayload = 'cloudevent'").start().await;
    reading(&node, "fnbus_in_t").await;
    let node = {
        let mut node = node;
        let nats = other(&node).await;
        nats.delete_stream("fnbus_in_t").await.unwrap();
        let config = stream::Config { name: "ORDERS".into(), subjects: vec!["orders.>".into()], ..Default::default() };
        nats.create_stream(config).await.unwrap();
        publish(
            &nats,
            "orders.eu",
            &[("ce-id", "7"), ("ce-source", "/shop"), ("ce-type", "order"), ("ce-specversion", "1.0")],
            b"{}",
        )
        .await;
        let structured = br#"{"specversion":"1.0","id":"8","source":"/shop","type":"order","data":[1]}"#;
        publish(&nats, "orders.eu", &[("Content-Type", "application/cloudevents+json")], structured).await;
        publish(&nats, "orders.eu", &[("ce-id", "9"), ("ce-type", "broken")], b"x").await;
        node.kill();
        node.restart().await;
        node
    };
    let ids = events_are(&node, 3).await;
    assert_eq!(ids[..2], ["7", "8"]);
    assert!(ids[2].starts_with("ORDERS.") && ids[2].ends_with(".3"), "{ids:?}");
    let event = node.event_is("8", "done").await;
    let got = output(&event);
    assert_eq!((&got["source"], &got["type"], &got["data"]), (&json!("/shop"), &json!("order"), &json!([1])));
    assert_eq!(other(&node).await.get_stream("ORDERS").await.unwrap().cached_info().state.messages, 3);
}

#[tokio::test]
async fn messages_are_taken_once_through_kills_of_the_node_and_of_nats() {
    const MESSAGES: usize = 300;
    let mut node = project("queue = 'nats:jobs.*'\npayload = 'body'").start().await;
    reading(&node, "fnbus_in_t").await;
    for part in 0..3 {
        let nats = other(&node).await;
        eventually("JetStream is there", || async { nats.query_account().await.ok() }).await;
        for _ in 0..MESSAGES / 3 {
            publish(&nats, "jobs.a", &[], b"1").await;
        }
        match part {
            0 => {
                node.kill();
                node.restart().await;
            }
            1 => {
                let server = node.nats_server().await;
                server.kill();
                eventually("another server runs", || async {
                    (node.nats_server().await.pid != server.pid).then_some(())
                })
                .await;
            }
            _ => {}
        }
        reading(&node, "fnbus_in_t").await;
    }
    node.deliveries_are("done", MESSAGES as u64).await;
    assert_eq!(ids(&node).await.len(), MESSAGES);
    eventually("nothing waits", || async { (trigger(&node).await["lag"] == 0).then_some(()) }).await;
}

#[tokio::test]
async fn ids_of_the_senders_are_kept_where_that_is_asked_for_and_a_conflict_is_kept_too() {
    let node = project("queue = 'nats:jobs.*'\ndedup = 'msg-id'").start().await;
    reading(&node, "fnbus_in_t").await;
    let nats = other(&node).await;
    let id = |id| [("Nats-Msg-Id", id)];
    publish(&nats, "jobs.a", &id("one"), b"1").await;
    events_are(&node, 1).await;
    // The server drops what it remembers the id of; another stream remembers nothing.
    nats.delete_stream("fnbus_in_t").await.unwrap();
    eventually("the stream is made again", || async { nats.get_stream("fnbus_in_t").await.ok() }).await;
    publish(&nats, "jobs.a", &id("one"), b"1").await;
    publish(&nats, "jobs.a", &id("two"), b"2").await;
    assert_eq!(events_are(&node, 2).await, ["one", "two"]);
    nats.delete_stream("fnbus_in_t").await.unwrap();
    eventually("the stream is made again", || async { nats.get_stream("fnbus_in_t").await.ok() }).await;
    publish(&nats, "jobs.a", &id("two"), b"another").await;
    let letter = eventually("the conflict is a dead letter", || async {
        node.json(&["dead", "list", "--reason", "conflict", "--json"]).await.pop()
    })
    .await;
    assert!(letter["error"]["message"].as_str().unwrap().contains("accepted as `two`"), "{letter}");
    assert_eq!(node.show(letter["event"].as_str().unwrap()).await["data"], "another");
}

#[tokio::test]
async fn a_stream_with_a_part_of_the_subject_is_said_and_a_reload_mends_it() {
    let node = project("queue = 'nats:other'").start().await;
    reading(&node, "fnbus_in_t").await;
    let nats = other(&node).await;
    let config = stream::Config { name: "EU".into(), subjects: vec!["orders.eu".into()], ..Default::default() };
    nats.create_stream(config).await.unwrap();
    publish(&nats, "orders.eu", &[], b"1").await;
    node.reconfigure(&node.project().toml().replace("nats:other", "nats:orders.*")).await;
    node.says("the stream EU has only part of `orders.*` (orders.eu)").await;
    node.reconfigure(&node.project().toml().replace("nats:other", "nats:orders.eu")).await;
    events_are(&node, 1).await;
    reading(&node, "EU").await;
    assert!(node.fnbus(&["triggers"]).await.stdout.contains("0 waiting"));
    tokio::time::timeout(Duration::from_secs(10), node.stop()).await.unwrap();
}

/// Headers and a body.
type Sent = (&'static [(&'static str, &'static str)], &'static [u8]);

/// Says what came in a record: whether it is base64, how long it is and its hash.
const WEIGH: &str = r#"
import base64, hashlib
def handler(event, context):
    [record] = event["Records"]
    encoded = record["fnbus"]["isBase64Encoded"]
    body = base64.b64decode(record["body"]) if encoded else record["body"].encode()
    return [encoded, len(body), hashlib.sha256(body).hexdigest()]
"#;

#[tokio::test]
async fn whatever_a_message_is_it_is_kept_to_the_letter_and_comes_as_a_record() {
    const STRUCTURED: (&str, &str) = ("Content-Type", "application/cloudevents+json");
    // as large as the server takes
    let huge: &'static [u8] =
        (0..(8 << 20) - 200_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect::<Vec<_>>().leak();
    let messages: [Sent; 11] = [
        (&[], b""),
        (&[], b"{\"broken\": "),
        (&[], b"\xff\xfe not UTF-8 \x00"),
        (&[("Content-Type", "application/json")], b"{\"n\": 1.10, \"n\": "),
        (&[("Content-Type", "application/json")], b""),
        (&[STRUCTURED], b"{"),
        (&[STRUCTURED], b"[]"),
        (&[STRUCTURED], b"{\"specversion\":\"0.1\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}"),
        (&[("ce-specversion", "1.0"), ("ce-id", ""), ("ce-source", "/s"), ("ce-type", "t")], b"no id"),
        (
            &[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t"), ("ce-time", "noon")],
            b"x",
        ),
        (&[("kind", "huge")], huge),
    ];
    let node =
        Project::new().function("f", WEIGH).config("[triggers.t]\nto = 'f'\nqueue = 'nats:jobs.*'\n").start().await;
    reading(&node, "fnbus_in_t").await;
    let nats = other(&node).await;
    for (headers, body) in messages {
        publish(&nats, "jobs.a", headers, body).await;
    }
    let ids = events_are(&node, messages.len()).await;
    for (id, (headers, body)) in ids.iter().zip(messages) {
        let event = node.event_is(id, "done").await;
        assert_eq!((&event["type"], &event["subject"]), (&json!("queue.message"), &json!("jobs.a")), "{headers:?}");
        let kept = match (&event["data"], &event["data_base64"]) {
            (Value::String(text), Value::Null) => text.as_bytes().to_vec(),
            (Value::Null, Value::String(base64)) => BASE64_STANDARD.decode(base64).unwrap(),
            other => panic!("{other:?}"),
        };
        assert!(kept == body, "{headers:?}: another body was kept");
        let hash = Sha256::digest(body).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        let encoded = std::str::from_utf8(body).is_err();
        assert_eq!(output(&event), json!([encoded, body.len(), hash]), "{headers:?}");
    }
    eventually("nothing waits", || async { (trigger(&node).await["lag"] == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_body_comes_as_what_it_is_and_one_that_is_not_what_it_says_is_a_dead_letter_with_its_reason() {
    let code = "def handler(event, context): return [type(event).__name__, str(event)]\n";
    let function = Project::new().function_with("f", code, "retry = { attempts = 1 }");
    let node = function.config("[triggers.t]\nto = 'f'\nqueue = 'nats:jobs.*'\npayload = 'body'\n").start().await;
    reading(&node, "fnbus_in_t").await;
    let nats = other(&node).await;
    publish(&nats, "jobs.a", &[], b"{\"n\":1}").await;
    publish(&nats, "jobs.a", &[], b"no JSON").await;
    publish(&nats, "jobs.a", &[], b"\xff").await;
    publish(&nats, "jobs.a", &[("Content-Type", "application/json")], b"no JSON").await;
    publish(&nats, "jobs.a", &[("Content-Type", "no/such/type; \"")], b"last").await;
    let ids = events_are(&node, 5).await;
    for (id, expected) in
        ids.iter().zip([json!(["dict", "{'n': 1}"]), json!(["str", "no JSON"]), json!(["bytes", "b'\\xff'"])])
    {
        assert_eq!(output(&node.event_is(id, "done").await), expected);
    }
    let event = node.event_is(&ids[3], "dead").await;
    assert_eq!(event["data"], "no JSON");
    assert_eq!(event["deliveries"][0]["attempts"][0]["error"]["kind"], "Runtime.UnmarshalError");
    node.event_is(&ids[4], "done").await;
}

/// A message that no client of NATS would send: its headers are not what headers are.
async fn publish_raw(node: &Node, subject: &str, headers: &[u8], body: &[u8]) {
    let config = node.read(".fnbus/nats/server.conf");
    let after = |mark: &str| config.split(mark).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(after("listen: \"")).await.unwrap();
    let login = json!({ "verbose": false, "headers": true, "user": "fnbus", "pass": after("password: \"") });
    let mut text =
        format!("CONNECT {login}\r\nHPUB {subject} {} {}\r\n", headers.len(), headers.len() + body.len()).into_bytes();
    text.extend_from_slice(headers);
    text.extend_from_slice(body);
    text.extend_from_slice(b"\r\nPING\r\n");
    stream.write_all(&text).await.unwrap();
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("PONG") {
        assert!(stream.read_buf(&mut said).await.unwrap() > 0, "{}", String::from_utf8_lossy(&said));
    }
}

#[rstest]
#[case::not_utf8(b"NATS/1.0\r\nkind: paid\r\nname: \xff\xfe\r\n\r\n")]
#[case::no_colon(b"NATS/1.0\r\nkind: paid\r\nno header at all\r\n\r\n")]
#[case::a_bad_name(b"NATS/1.0\r\nkind: paid\r\nmy name: x\r\n\r\n")]
#[tokio::test]
async fn a_message_with_headers_that_are_none_is_taken_to_the_letter_and_those_behind_it_too(#[case] headers: &[u8]) {
    let node = project("queue = 'nats:jobs.*'").start().await;
    reading(&node, "fnbus_in_t").await;
    let nats = other(&node).await;
    publish(&nats, "jobs.a", &[], b"before").await;
    publish_raw(&node, "jobs.b", headers, b"\xffodd").await;
    for _ in 0..100 {
        publish(&nats, "jobs.c", &[], b"behind").await;
    }
    let ids = events_are(&node, 102).await;
    node.deliveries_are("done", 102).await;
    let odd = ids.iter().find(|id| id.ends_with(".2")).unwrap();
    let event = node.event_is(odd, "done").await;
    assert_eq!(
        (&event["subject"], &event["data_base64"]),
        (&json!("jobs.b"), &json!(BASE64_STANDARD.encode(b"\xffodd")))
    );
    assert_eq!(output(&event)["Records"][0]["messageAttributes"]["kind"]["stringValue"], "paid");
    node.says("messages have headers that are none; they are taken with what is left of them").await;
    eventually("nothing waits", || async {
        let stream = nats.get_stream("fnbus_in_t").await.unwrap();
        (stream.cached_info().state.messages == 0).then_some(())
    })
    .await;
    assert_eq!(node.said().matches("the connection to NATS is lost").count(), 1, "it came again");
    assert_eq!(events_are(&node, 102).await.len(), 102);
}
