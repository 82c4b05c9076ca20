//! Requests that should not be: each gets the status and the sentence that say what is wrong, nothing of it is
//! logged, and the node goes on serving others.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use fnbus_tests::{Answer, Node, Project};
use hyper::Request;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const JSON: &str = "application/json";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// `/echo` answers, `/later` takes, and every event of type `taken…` or `wild` is delivered.
async fn node() -> Node {
    Project::new()
        .function("echo", "def handler(event, context):\n    return 'here'\n")
        .function("keep", "def handler(event, context):\n    return event\n")
        .config(
            "[triggers.echo]\nhttp = ['GET /echo', 'POST /echo']\nmax_body = '1KB'\nto = 'echo'\n\
             [triggers.later]\nhttp = 'POST /later'\nmode = 'async'\nmax_body = '1KB'\nto = 'keep'\n\
             [triggers.taken]\nevent = { type = ['taken', 'a.>', 'x.*.>'] }\npayload = 'cloudevent'\nto = 'keep'\n",
        )
        .start()
        .await
}

/// The problem document of a refusal.
fn problem(answer: &Answer, status: u16, urn: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: Value = answer.json();
    assert_eq!((&problem["type"], &problem["status"]), (&json!(format!("urn:fnbus:{urn}")), &json!(status)));
    problem
}

fn detail(answer: &Answer, status: u16, urn: &str) -> String {
    problem(answer, status, urn)["detail"].as_str().unwrap().to_owned()
}

/// Nothing that was refused is in the log, and the next good request is answered.
async fn nothing_happened(node: &Node) {
    let events = node.json(&["events", "--json"]).await;
    assert!(events.is_empty(), "logged although refused: {events:?}");
    assert_eq!(node.get("/echo").await.text(), "here");
}

/// Sends bytes as they are and reads the head of the answer.
async fn raw(node: &Node, bytes: &[u8]) -> String {
    let (mut read, mut write) = TcpStream::connect(node.http()).await.unwrap().into_split();
    // The server may answer and close before it has read everything.
    let _ = write.write_all(bytes).await;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") && read.read_buf(&mut answer).await.is_ok_and(|n| n > 0) {}
    String::from_utf8_lossy(&answer).into_owned()
}

async fn post(node: &Node, media_type: &str, body: impl Into<bytes::Bytes>) -> Answer {
    node.send(Request::post("/events").header("content-type", media_type), body).await
}

#[rstest]
#[case("/echo")]
#[case("/later")]
#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not_and_one_at_the_limit_is_not(#[case] path: &str) {
    let node = node().await;
    let said = detail(&node.post(path, vec![b'x'; 1001]).await, 413, "body-too-large");
    assert_eq!(said, "the body is over the limit of 1000 bytes");
    let announced = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n");
    assert!(raw(&node, announced.as_bytes()).await.starts_with("HTTP/1.1 413 "), "refused before it is sent");
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let chunked =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(3));
    assert!(raw(&node, chunked.as_bytes()).await.starts_with("HTTP/1.1 413 "));
    nothing_happened(&node).await;
    assert!(node.post(path, vec![b'x'; 1000]).await.status.is_success());
}

#[tokio::test]
async fn an_event_over_the_limit_of_the_bus_is_refused() {
    let node = node().await;
    let event = format!(r#"{{"type":"taken","data":"{}"}}"#, "x".repeat(6 << 20));
    assert!(detail(&post(&node, JSON, event).await, 413, "body-too-large").contains("over the limit of 6291456 bytes"));
    nothing_happened(&node).await;
}

#[tokio::test]
async fn a_path_without_a_route_and_a_method_it_does_not_take_are_told_apart() {
    let node = node().await;
    let said = problem(&node.get("/nowhere").await, 404, "no-route");
    assert_eq!(said["detail"], "no route is configured for this path");
    assert_eq!(said["message"], "Not Found", "as clients of API Gateway read it");
    let answer = node.send(Request::delete("/echo"), "").await;
    assert_eq!(detail(&answer, 405, "method-not-allowed"), "this path does not take this method");
    assert_eq!(answer.header("allow"), Some("GET, POST"));
    let answer = node.get("/later").await;
    problem(&answer, 405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    nothing_happened(&node).await;
}

#[rstest]
#[case::no_json(JSON, "{", 400, "invalid-event", "it is not JSON as expected here")]
#[case::no_type(JSON, r#"{"data":1}"#, 400, "invalid-event", "the attribute `type` is missing")]
#[case::no_id(
    STRUCTURED,
    r#"{"specversion":"1.0","source":"/s","type":"taken"}"#,
    400,
    "invalid-event",
    "the attribute `id` is missing"
)]
#[case::version(
    STRUCTURED,
    r#"{"specversion":"0.3","id":"1","source":"/s","type":"taken"}"#,
    400,
    "invalid-event",
    "`specversion` is not 1.0"
)]
#[case::empty_id(JSON, r#"{"id":"","type":"taken"}"#, 400, "invalid-event", "the attribute `id` is empty")]
#[case::line_break(
    JSON,
    r#"{"id":"a\r\nb","type":"taken"}"#,
    400,
    "invalid-event",
    "the attribute `id` has control characters"
)]
#[case::nul(JSON, r#"{"type":"taken\u0000"}"#, 400, "invalid-event", "the attribute `type` has control characters")]
#[case::source(
    JSON,
    r#"{"type":"taken","source":"not a uri"}"#,
    400,
    "invalid-event",
    "`source` is not a URI-reference"
)]
#[case::time(
    JSON,
    r#"{"type":"taken","time":"lunchtime"}"#,
    400,
    "invalid-event",
    "`time` is not a time such as 2026-"
)]
#[case::name(
    JSON,
    r#"{"type":"taken","Foo":1}"#,
    400,
    "invalid-event",
    "`Foo` is not an attribute's name: use a-z and 0-9"
)]
#[case::twice(JSON, r#"{"type":"taken","type":"taken"}"#, 400, "invalid-event", "the attribute `type` is given twice")]
#[case::two_data(JSON, r#"{"type":"taken","data":1,"data_base64":"eA=="}"#, 400, "invalid-event", "keep one of them")]
#[case::our_source(
    JSON,
    r#"{"type":"taken","source":"/fnbus/price"}"#,
    400,
    "source-taken",
    "belongs to this bus; name the sender's own"
)]
#[case::avro("application/cloudevents+avro", "x", 415, "not-an-event", "send application/cloudevents+json")]
#[case::a_form("application/x-www-form-urlencoded", "type=taken", 415, "not-an-event", "send application/json")]
#[tokio::test]
async fn what_is_no_event_is_refused_with_the_reason(
    #[case] media_type: &str,
    #[case] body: &str,
    #[case] status: u16,
    #[case] urn: &str,
    #[case] reason: &str,
) {
    let node = node().await;
    let said = detail(&post(&node, media_type, body.to_owned()).await, status, urn);
    assert!(said.contains(reason), "{said}");
    nothing_happened(&node).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_no_event_but_may_be_its_data() {
    let node = node().await;
    let said =
        detail(&post(&node, JSON, &b"{\"type\":\"taken\",\"subject\":\"\xff\"}"[..]).await, 400, "invalid-event");
    assert!(said.starts_with("it is not JSON"), "{said}");
    nothing_happened(&node).await;
    let binary = Request::post("/events")
        .header("ce-specversion", "1.0")
        .header("ce-id", "b")
        .header("ce-source", "/s")
        .header("ce-type", "taken")
        .header("content-type", "application/octet-stream");
    assert_eq!(node.send(binary, &b"\xff\x00\xfe"[..]).await.status, 202);
    let event = node.event_is("b", "done").await;
    assert_eq!(event["data_base64"], "/wD+");
    let output: Value =
        serde_json::from_str(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap()).unwrap();
    assert_eq!(output["data_base64"], "/wD+", "the function got the same bytes");
}

#[tokio::test]
async fn of_a_batch_with_one_bad_event_the_others_are_taken() {
    let node = node().await;
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "taken", "data": id });
    let mut bad = event("2");
    bad["time"] = "lunchtime".into();
    let answer = post(&node, BATCH, json!([event("1"), bad, event("3")]).to_string()).await;
    assert_eq!(answer.status, 207, "{}", answer.text());
    let results: Value = answer.json();
    assert_eq!(results[0], json!({ "id": "1", "status": "accepted" }));
    assert_eq!((&results[1]["status"], &results[1]["error"]["status"]), (&json!("refused"), &json!(400)));
    assert!(results[1]["error"]["detail"].as_str().unwrap().contains("`time` is not a time"), "{results}");
    assert_eq!(results[2], json!({ "id": "3", "status": "accepted" }));
    for id in ["1", "3"] {
        node.event_is(id, "done").await;
    }
    assert_eq!(node.fnbus(&["show", "2"]).await.code(), 1);
    let all_bad = post(&node, BATCH, "[1, {}]").await;
    assert_eq!(all_bad.status, 400, "nothing of it was taken");
}

#[rstest]
#[case::wildcards("a.>", "x.*.>")]
#[case::like_our_subjects("fnbus.deliver.python.keep", "a.>")]
#[case::spaces("two words", "taken")]
#[case::percent("100%25", "taken")]
#[case::letters("grüß 한국 😀", "taken")]
#[case::path("../../etc/passwd", "taken")]
#[case::sql("' OR 1=1 --", "taken")]
#[case::quote("\"}\\", "taken")]
#[tokio::test]
async fn an_id_or_type_as_strange_as_may_be_is_only_an_id_or_type(#[case] id: &str, #[case] kind: &str) {
    let node = node().await;
    let sent = json!({ "specversion": "1.0", "id": id, "source": "/s", "type": kind, "data": { "n": 1 } });
    let answer = post(&node, STRUCTURED, sent.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.json::<Value>()), (202, json!({ "id": id })));
    let event = node.event_is(id, "done").await;
    assert_eq!((&event["id"], &event["type"]), (&json!(id), &json!(kind)));
    let got: Value = serde_json::from_str(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap()).unwrap();
    assert_eq!((&got["id"], &got["type"], &got["data"]), (&sent["id"], &sent["type"], &sent["data"]));
    let again = post(&node, STRUCTURED, sent.to_string()).await;
    assert_eq!(again.status, 202);
    assert_eq!(node.json(&["events", "--json"]).await.len(), 1, "the same event twice is one");
    let mut other = sent.clone();
    other["data"] = json!(2);
    let said = detail(&post(&node, STRUCTURED, other.to_string()).await, 409, "conflict");
    assert!(said.contains("was accepted before with another body; send it under an id of its own"), "{said}");
}

#[tokio::test]
async fn long_ids_are_kept_whole_and_attributes_have_a_limit_in_all() {
    let node = node().await;
    let id = "i".repeat(300);
    let answer = post(&node, JSON, json!({ "id": id, "type": "taken" }).to_string()).await;
    assert_eq!(answer.json::<Value>()["id"], json!(id));
    assert_eq!(node.event_is(&id, "done").await["id"], json!(id));
    let answer = post(&node, JSON, json!({ "type": "taken", "subject": "s".repeat(9000) }).to_string()).await;
    let said = detail(&answer, 400, "invalid-event");
    assert!(said.contains("put large values into the data"), "{said}");
    let key = Request::post("/later").header("idempotency-key", "k".repeat(300));
    let said = detail(&node.send(key, "{}").await, 400, "malformed-request");
    assert!(said.contains("has an id that is empty, too long or not text"), "{said}");
}

#[tokio::test]
async fn one_id_with_two_bodies_is_a_conflict_and_the_first_stays() {
    let node = node().await;
    let with_key = || Request::post("/later").header("idempotency-key", "order-1").header("content-type", JSON);
    let first = node.send(with_key(), "1").await;
    assert_eq!((first.status.as_u16(), first.json::<Value>()), (202, json!({ "id": "order-1" })));
    let said = problem(&node.send(with_key(), "2").await, 409, "conflict");
    assert_eq!(said["id"], "order-1");
    assert_eq!(node.event_is("order-1", "done").await["data"], "1");
}

#[rstest]
#[case::no_http("hello\r\n\r\n", "400")]
#[case::tls("\x16\x03\x01\x02\x00\x01\x00\x01", "400")]
#[case::bare_lf("POST /later HTTP/1.1\nHost: x\n\n", "400")]
#[case::no_host("POST /later HTTP/1.1\r\nConnection: close\r\n\r\n", "400")]
#[case::two_hosts("POST /later HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n", "400")]
#[case::two_lengths("POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400")]
#[case::length_and_chunks(
    "POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "400"
)]
#[case::broken_chunk("POST /later HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "400")]
#[case::broken_percent("POST /lat%zzer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400")]
#[case::dots("POST /a/../later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400")]
#[case::not_utf8("POST /%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "400")]
#[case::future("POST /later HTTP/3.0\r\nHost: x\r\n\r\n", "400")]
#[tokio::test]
async fn what_is_no_proper_http_is_refused_and_nothing_of_it_is_taken(#[case] bytes: &str, #[case] status: &str) {
    let node = node().await;
    let answer = raw(&node, bytes.as_bytes()).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:?}");
    nothing_happened(&node).await;
}

#[tokio::test]
async fn a_request_whose_body_breaks_off_is_not_taken() {
    let node = node().await;
    let mut stream = TcpStream::connect(node.http()).await.unwrap();
    stream.write_all(b"POST /later HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // An answer need not reach who left; that the connection ends says that the request is over.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    nothing_happened(&node).await;
}
