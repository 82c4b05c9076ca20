//! Which trigger a request is for, and the event it becomes.

use bus::{event::Meta, payload::Format, sink::AcceptError};
use rstest::rstest;
use serde_json::json;
use triggers::config::Mode;

use crate::support::{Bus, foreign, serve, summary, table};

#[tokio::test]
async fn a_request_becomes_an_event_with_all_its_facts() {
    let bus = Bus::new();
    let server = serve(&bus, &[("POST /orders/{region}/{rest+}", Mode::Sync)]).await;
    let headers = [
        ("Content-Type", "application/json"),
        ("X-A", "1"),
        ("x-a", "2"),
        ("traceparent", "00-1"),
        ("Idempotency-Key", "k"),
        ("x-name", "é"),
    ];
    let response = server.request("POST /orders/k%20r/a/b%C3%A9?q=1&q=%2F", &headers, b"{\"n\":1}").await;
    assert_eq!(response.status, 200);
    let (event, call) = bus.called().remove(0);
    assert_eq!((&*event.source, &*event.kind, &*event.data), ("/shop/t0", "http.request", b"{\"n\":1}".as_slice()));
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(event.extensions["traceparent"], "00-1");
    assert_eq!(event.id, foreign("k"), "a request has the id that its client gave it");
    assert_eq!((call.function.as_str(), call.format, call.timeout), ("f", Format::HttpV2, None));
    let Meta::Http(meta) = event.meta else { panic!("no facts") };
    assert_eq!((meta.method.as_str(), meta.path.as_str()), ("POST", "/orders/k%20r/a/b%C3%A9"));
    assert_eq!((meta.query.as_str(), meta.route.as_str()), ("q=1&q=%2F", "POST /orders/{region}/{rest+}"));
    assert_eq!(meta.params, [("region".into(), "k r".into()), ("rest".into(), "a/bé".into())]);
    assert_eq!((meta.protocol.as_str(), meta.source_ip.as_str()), ("HTTP/1.1", "127.0.0.1"));
    assert_eq!(meta.header("x-name"), Some("é"));
    assert_eq!(meta.header("connection"), None);
    let twice: Vec<_> = meta.headers.iter().filter(|(name, _)| name == "x-a").map(|(_, v)| v.as_str()).collect();
    assert_eq!(twice, ["1", "2"]);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_apart() {
    let bus = Bus::new();
    let server = serve(&bus, &[("GET /a", Mode::Sync), ("PUT /a", Mode::Sync)]).await;
    let response = server.request("GET /b", &[], b"").await;
    assert_eq!((response.status, response.json()["message"].as_str()), (404, Some("Not Found")));
    let response = server.request("POST /a", &[], b"x").await;
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, PUT")));
    for method in ["TRACE", "BREW"] {
        assert_eq!(server.request(&format!("{method} /a"), &[], b"").await.status, 405);
    }
    assert!(bus.called().is_empty());
}

#[tokio::test]
async fn a_reload_changes_the_routes_of_the_next_request() {
    let bus = Bus::new();
    let server = serve(&bus, &[("GET /a", Mode::Sync)]).await;
    assert_eq!(server.request("GET /a", &[], b"").await.status, 200);
    server.http.reload(table(&[("GET /b", Mode::Sync)]));
    assert_eq!(server.request("GET /a", &[], b"").await.status, 404);
    assert_eq!(server.request("GET /b", &[], b"").await.status, 200);
}

#[tokio::test]
async fn an_asynchronous_route_answers_202_with_the_id_and_repeats_have_the_same() {
    let bus = Bus::new();
    let server = serve(&bus, &[("POST /a", Mode::Async)]).await;
    let response = server.request("POST /a", &[("idempotency-key", "k1")], b"x").await;
    assert_eq!((response.status, response.json()), (202, json!({ "id": "k1" })));
    assert_eq!(response.header("location"), None);
    let repeat = server.request("POST /a", &[("idempotency-key", "k1")], b"x").await;
    assert_eq!((repeat.status, repeat.json()), (202, json!({ "id": "k1" })));
    let conflict = server.request("POST /a", &[("idempotency-key", "k1")], b"y").await;
    assert_eq!((conflict.status, conflict.json()["id"].as_str()), (409, Some("k1")));
    let other = server.request("POST /a", &[("ce-id", "c%201")], b"x").await;
    assert_eq!(other.json(), json!({ "id": "c 1" }));
    let ours = server.request("POST /a", &[], b"x").await;
    assert_eq!(ours.json()["id"].as_str().map(str::len), Some(36));
    assert_eq!(bus.accepted().len(), 3);
    assert_eq!(server.request("POST /a", &[("idempotency-key", "")], b"x").await.status, 400);
}

#[tokio::test]
async fn an_asynchronous_route_takes_a_cloud_event_as_what_it_is() {
    let bus = Bus::new();
    let server = serve(&bus, &[("POST /a", Mode::Async)]).await;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "b"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-hop", "9"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(server.request("POST /a", &binary, b"x").await.json(), json!({ "id": "b" }));
    let structured = r#"{"specversion":"1.0","id":"s","source":"/s","type":"t","data":{"a":1}}"#;
    let response = server.post("/a", "application/cloudevents+json", structured).await;
    assert_eq!(response.status, 202);
    let accepted = bus.accepted();
    let expect = [("b", "/s", "t"), ("s", "/s", "t")].map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(summary(&accepted), expect);
    assert_eq!((accepted[0].hop, accepted[1].data.as_ref()), (0, br#"{"a":1}"#.as_slice()));
    assert!(accepted.iter().all(|event| event.trigger == "t0".parse().ok()));

    let forged = r#"{"specversion":"1.0","id":"s","source":"/shop/price","type":"function.output"}"#;
    assert_eq!(server.post("/a", "application/cloudevents+json", forged).await.status, 400);
    assert_eq!(server.post("/a", "application/cloudevents+json", "{}").await.status, 400);
    assert_eq!(bus.accepted().len(), 2);
}

#[rstest]
#[case(AcceptError::Full, 507, Some("30"))]
#[case(AcceptError::Backlog { bytes: 11, most: 10 }, 503, Some("30"))]
#[case(AcceptError::Unavailable { reason: "/home/x".to_owned() }, 503, Some("1"))]
#[tokio::test]
async fn what_cannot_be_stored_is_never_accepted(
    #[case] why: AcceptError,
    #[case] status: u16,
    #[case] retry_after: Option<&str>,
) {
    let server = serve(&Bus::new().refusing(why), &[("POST /a", Mode::Async)]).await;
    let response = server.request("POST /a", &[], b"x").await;
    assert_eq!((response.status, response.header("retry-after")), (status, retry_after));
    assert!(!String::from_utf8_lossy(&response.body).contains("/home"));
}
