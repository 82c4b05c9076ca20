//! The example project, as the README's tour walks through it: `functions/` in a copy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::collections::BTreeMap;

use fnbus_tests::{Node, Project, eventually};
use serde_json::{Value, json};

const JANUARY: &str = "samples/bikes-2011-01.csv";

async fn shop() -> Node {
    let node = Project::example().start().await;
    for name in ["quote", "validate", "price", "confirm", "import", "notify", "settle", "report"] {
        node.function_ready(name).await;
    }
    node
}

/// The data of the lines in a file of the project, when there are so many.
async fn lines(node: &Node, path: &str, many: usize) -> Vec<Value> {
    let lines = node.lines_of(path, many).await;
    assert_eq!(lines.len(), many, "{lines:?}");
    lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["data"].clone()).collect()
}

/// What a function has printed, when `text` is in it.
async fn printed(node: &Node, function: &str, text: &str) -> String {
    eventually(&format!("{function} prints {text:?}"), || async {
        let said = node.fnbus(&["logs", function]).await.stdout;
        said.contains(text).then_some(said)
    })
    .await
}

#[tokio::test]
async fn a_price_is_answered_at_once_and_so_is_the_lack_of_one() {
    let node = shop().await;
    let answer = node.get("/price/Trail%205").await;
    assert_eq!((answer.status.as_u16(), answer.json::<Value>()), (200, json!({ "item": "Trail 5", "cents": 81500 })));
    let answer = node.get("/price/Unicycle").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (404, "there is no price for \"Unicycle\"\n"));
}

#[tokio::test]
async fn an_order_goes_step_by_step_to_a_confirmed_one_that_the_customer_hears_of() {
    let node = shop().await;
    let id = node.accepted("/orders", r#"{"item":"Trail 5","quantity":2}"#).await;
    node.event_is(&id, "done").await;
    let text = "2 x Trail 5 for $1,630.00";
    let order = json!({ "number": id, "item": "Trail 5", "quantity": 2, "cents": 163_000, "text": text });
    assert_eq!(lines(&node, "out/orders.jsonl", 1).await, [order]);
    printed(&node, "notify", &format!("to the customer of order {id}: {text}")).await;
    let events = node.json(&["events", "--type", "order.confirmed", "--json"]).await;
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn every_row_of_a_published_file_becomes_a_confirmed_order_of_the_published_sum() {
    let node = shop().await;
    let file = node.read(JANUARY);
    let published: BTreeMap<String, i64> = file
        .lines()
        .skip(1)
        .map(|row| {
            let row: Vec<_> = row.split(',').collect();
            (format!("{}-{}", row[0], row[1]), row[5].parse::<i64>().unwrap() * 100)
        })
        .collect();
    assert_eq!(published.len(), 105);
    node.write("inbox/bikes.csv", &file);
    let confirmed: BTreeMap<String, i64> = lines(&node, "out/orders.jsonl", 105)
        .await
        .iter()
        .map(|order| (order["number"].as_str().unwrap().to_owned(), order["cents"].as_i64().unwrap()))
        .collect();
    assert_eq!(confirmed, published);
}

#[tokio::test]
async fn an_order_that_cannot_be_priced_is_dead_until_the_list_is_mended_and_it_is_redriven() {
    let node = shop().await;
    let id = node.accepted("/orders", r#"{"item":"Unicycle"}"#).await;
    node.event_is(&id, "dead").await;
    let letter = node.json(&["dead", "list", "--json"]).await.remove(0);
    assert_eq!((&letter["target"], &letter["reason"]), (&json!("checkout"), &json!("step_failed")));
    assert_eq!(letter["error"]["message"], "step `price` failed: there is no price for \"Unicycle\"");

    let before = node.function("price").await["version"].clone();
    node.write("price/prices.json", &node.read("price/prices.json").replacen('{', "{\n  \"Unicycle\": 19900,", 1));
    eventually("the new list is live", || async { (node.function("price").await["version"] != before).then_some(()) })
        .await;
    assert_eq!(node.fnbus(&["dead", "redrive", &id]).await.code(), 0);
    node.event_is(&id, "done").await;
    assert_eq!(lines(&node, "out/orders.jsonl", 1).await[0]["text"], "1 x Unicycle for $199.00");
    assert_eq!(node.json(&["dead", "list", "--json"]).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_payment_that_is_none_is_put_aside_and_the_others_of_its_batch_are_settled_once() {
    const PAYMENTS: [&str; 3] =
        [r#"{"number":"1-1","cents":607000}"#, r#"{"number":"1-2","cents":0}"#, r#"{"number":"2-1","cents":1}"#];
    let node = shop().await;
    node.reads("payments", "shop_in_payments").await;
    for payment in PAYMENTS {
        let output = node.fnbus(&["nats", "publish", "payments.card", "-d", payment]).await;
        assert_eq!(output.code(), 0, "{}", output.all());
    }
    let record = lines(&node, "out/unpaid.jsonl", 1).await.remove(0);
    assert_eq!(record["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(record["requestPayload"], json!({ "number": "1-2", "cents": 0 }));
    let events = eventually("all payments are taken", || async {
        let events = node.json(&["events", "--trigger", "payments", "--json"]).await;
        (events.len() == PAYMENTS.len()).then_some(events)
    })
    .await;
    for (event, (status, attempts)) in events.iter().zip([("done", 1), ("dead", 2), ("done", 1)]) {
        let event = node.event_is(event["id"].as_str().unwrap(), status).await;
        assert_eq!(event["deliveries"][0]["attempts"].as_array().unwrap().len(), attempts, "{event}");
    }
    printed(&node, "settle", "order 2-1: 1 cents are paid").await;
}

#[tokio::test]
async fn the_day_is_added_up_when_its_time_is_fired_and_an_order_that_was_replayed_counts_once() {
    let node = shop().await;
    let id = node.accepted("/orders", r#"{"item":"Trail 5","quantity":3}"#).await;
    lines(&node, "out/orders.jsonl", 1).await;
    assert_eq!(node.fnbus(&["replay", &id, "--yes"]).await.code(), 0);
    lines(&node, "out/orders.jsonl", 2).await;
    assert_eq!(node.fnbus(&["triggers", "fire", "evening"]).await.code(), 0);
    let report = lines(&node, "out/reports.jsonl", 1).await.remove(0);
    assert_eq!((&report["orders"], &report["cents"]), (&json!(1), &json!(244_500)));
}

#[tokio::test]
async fn what_is_no_order_is_refused_with_a_sentence() {
    let node = shop().await;
    for (order, sentence) in [
        ("no JSON", "an order is a JSON object, sent as application/json"),
        ("{}", r#"an order names an item: {"item": "Trail 5", "quantity": 2}"#),
        (r#"{"item":"Trail 5","quantity":0.5}"#, "a quantity is a whole number from 1 on, not 0.5"),
    ] {
        let output = node.fnbus(&["invoke", "validate", "-d", order]).await;
        assert_eq!(output.code(), 1);
        assert!(output.stderr.contains(sentence), "{}", output.stderr);
    }
}
