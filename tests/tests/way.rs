//! The way of an event, from end to end.

use fnbus_tests::Project;
use serde_json::json;

#[tokio::test]
async fn a_request_is_answered_by_a_python_function_and_can_be_seen() {
    let node = Project::new()
        .function("price", "def handler(event, context):\n    return {'item': event['pathParameters']['item']}\n")
        .config("[triggers.price]\nhttp = 'GET /price/{item}'\nto = 'price'\n")
        .start()
        .await;
    let answer = node.get("/price/apple").await;
    assert_eq!((answer.status.as_u16(), answer.json::<serde_json::Value>()), (200, json!({ "item": "apple" })));
    let events = node.json(&["events", "--json"]).await;
    assert_eq!(events[0]["status"], "done");
    let event = node.show(events[0]["id"].as_str().unwrap()).await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["output"], r#"{"item":"apple"}"#);
}

#[tokio::test]
async fn an_accepted_request_runs_behind_the_callers_back() {
    let node = Project::new()
        .function("order", "def handler(event, context):\n    print('got', event['body'])\n    return 1\n")
        .config("[triggers.orders]\nhttp = 'POST /orders'\nmode = 'async'\nto = 'order'\n")
        .start()
        .await;
    let id = node.accepted("/orders", r#"{"n":1}"#).await;
    let event = node.event_is(&id, "done").await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!(
        (&attempt["n"], &attempt["outcome"], &attempt["log"]),
        (&json!(1), &json!("ok"), &json!("got {\"n\":1}\n"))
    );
}
