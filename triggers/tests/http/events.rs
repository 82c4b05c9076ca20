//! `POST /events`.

use rstest::rstest;
use serde_json::{Value, json};
use triggers::config::Mode;

use crate::support::{Bus, Server, serve, summary};

const JSON: &str = "application/json";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

async fn server(bus: &Bus) -> Server {
    serve(bus, &[("GET /a", Mode::Sync)]).await
}

fn event(id: &str) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": 1 })
}

#[tokio::test]
async fn events_are_taken_in_every_mode() {
    let bus = Bus::new();
    let server = server(&bus).await;
    let binary = [("ce-specversion", "1.0"), ("ce-id", "b"), ("ce-source", "/s"), ("ce-type", "t")];
    assert_eq!(server.request("POST /events", &binary, b"x").await.json(), json!({ "id": "b" }));
    assert_eq!(server.post("/events", STRUCTURED, &event("s").to_string()).await.json(), json!({ "id": "s" }));
    let batch = json!([event("1"), event("2"), event("s")]).to_string();
    let response = server.post("/events", BATCH, &batch).await;
    assert_eq!(response.status, 202);
    assert_eq!(
        response.json(),
        json!([
            { "id": "1", "status": "accepted" },
            { "id": "2", "status": "accepted" },
            { "id": "s", "status": "duplicate" },
        ])
    );
    let by_hand = server.post("/events", JSON, r#"{"type":"order.paid","data":{"n":1}}"#).await;
    assert_eq!(by_hand.status, 202);
    let ids: Vec<String> = summary(&bus.accepted()).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids[..4], ["b", "s", "1", "2"]);
    let last = bus.accepted().pop().unwrap();
    assert_eq!((&*last.source, &*last.kind, &*last.data), ("/shop", "order.paid", br#"{"n":1}"#.as_slice()));
    assert_eq!(last.trigger, None);
}

#[tokio::test]
async fn an_empty_batch_is_taken_and_a_huge_one_is_not() {
    let bus = Bus::new();
    let server = server(&bus).await;
    assert_eq!(server.post("/events", BATCH, "[]").await.json(), json!([]));
    let huge = format!("[{}0]", "0,".repeat(450));
    assert_eq!(server.post("/events", BATCH, &huge).await.status, 400, "none of them is an event");
    let over = format!("[{}0]", "0,".repeat(100_000));
    assert_eq!(server.post("/events", BATCH, &over).await.status, 413);
}

#[tokio::test]
async fn each_event_of_a_batch_has_its_own_result() {
    let bus = Bus::new();
    let server = server(&bus).await;
    let mut wrong = event("2");
    wrong["time"] = "lunchtime".into();
    let response = server.post("/events", BATCH, &json!([event("1"), wrong]).to_string()).await;
    assert_eq!(response.status, 207);
    assert_eq!(response.json()[0], json!({ "id": "1", "status": "accepted" }));
    assert_eq!(response.json()[1]["error"]["type"], "urn:fnbus:invalid-event");
    assert_eq!(bus.accepted().len(), 1);
}

#[rstest]
#[case::no_id(STRUCTURED, json!({ "specversion": "1.0", "source": "/s", "type": "t" }).to_string(), 400)]
#[case::version(STRUCTURED, json!({ "specversion": "2.0", "id": "1", "source": "/s", "type": "t" }).to_string(), 400)]
#[case::name(STRUCTURED, json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "t", "Foo": "x" }).to_string(), 400)]
#[case::depth(STRUCTURED, "[".repeat(900), 400)]
#[case::lone_surrogate(STRUCTURED, r#"{"specversion":"1.0","id":"\ud800","source":"/s","type":"t"}"#.to_owned(), 400)]
#[case::no_json(STRUCTURED, "<a/>".to_owned(), 400)]
#[case::long_type(JSON, json!({ "type": "t".repeat(900) + "\n" }).to_string(), 400)]
#[case::another_format("application/cloudevents+avro", "x".to_owned(), 415)]
#[case::a_form("application/x-www-form-urlencoded", "a=b".to_owned(), 415)]
#[case::text("text/plain", r#"{"type":"t"}"#.to_owned(), 415)]
#[case::no_type(JSON, r#"{"data":1}"#.to_owned(), 400)]
#[case::our_source(JSON, r#"{"type":"t","source":"/shop/price"}"#.to_owned(), 400)]
#[tokio::test]
async fn what_is_no_event_is_refused(#[case] media_type: &str, #[case] body: String, #[case] status: u16) {
    let bus = Bus::new();
    let response = server(&bus).await.post("/events", media_type, &body).await;
    assert_eq!(response.status, status, "{}", response.json());
    assert!(bus.accepted().is_empty());
}

#[tokio::test]
async fn an_attribute_given_twice_in_headers_is_refused() {
    let bus = Bus::new();
    let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-id", "2"), ("ce-source", "/s"), ("ce-type", "t")];
    assert_eq!(server(&bus).await.request("POST /events", &headers, b"").await.status, 400);
}

#[tokio::test]
async fn a_route_of_the_config_comes_first_and_a_wide_one_does_not() {
    let bus = Bus::new();
    let server = serve(&bus, &[("POST /events", Mode::Sync)]).await;
    assert_eq!(server.post("/events", JSON, "{}").await.status, 200);
    let server = serve(&bus, &[("$default", Mode::Sync)]).await;
    assert_eq!(server.post("/events", JSON, r#"{"type":"t"}"#).await.status, 202);
    assert_eq!(server.request("GET /events", &[], b"").await.status, 200);
    let server = serve(&bus, &[("GET /a", Mode::Sync)]).await;
    assert_eq!(server.request("GET /events", &[], b"").await.header("allow"), Some("POST"));
}
