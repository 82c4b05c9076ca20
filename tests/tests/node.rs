//! Functions for Node.js, from end to end.

use fnbus_tests::Project;
use serde_json::{Value, json};

const PRICE: &str = "exports.handler = async (event) => ({ item: event.pathParameters.item })\n";

fn price() -> Project {
    Project::new()
        .file("price/index.js", PRICE)
        .config("[functions.price]\nruntime = 'node'\n[triggers.price]\nhttp = 'GET /price/{item}'\nto = 'price'\n")
        .config("[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\nto = 'price'\n")
}

#[tokio::test]
async fn a_request_is_answered_by_a_function_for_node_and_an_edit_is_live() {
    let node = price().start().await;
    let answer = node.get("/price/apple").await;
    assert_eq!((answer.status.as_u16(), answer.json::<Value>()), (200, json!({ "item": "apple" })));
    assert_eq!(node.function("price").await["runtime"], "node");
    let old = node.function_ready("price").await["version"].clone();
    node.write("price/index.js", &PRICE.replace("item:", "thing:"));
    fnbus_tests::eventually("the edit serves", || async {
        (node.function("price").await["version"] != old).then_some(())
    })
    .await;
    assert_eq!(node.get("/price/apple").await.json::<Value>(), json!({ "thing": "apple" }));
}

#[tokio::test]
async fn without_node_the_bus_runs_keeps_what_comes_and_each_call_says_what_to_install() {
    let node = price().variable("FNBUS_NODE", "/no/such/node").start().await;
    let answer = node.get("/price/apple").await;
    assert_eq!(answer.status, 502, "{}", answer.text());
    let event = node.show(answer.json::<Value>()["id"].as_str().unwrap()).await;
    let attempt = &event["deliveries"][0]["attempts"][0];
    assert_eq!(attempt["outcome"], "init_error", "{event}");
    for word in ["`/no/such/node` does not start", "install Node.js 18 or newer", "FNBUS_NODE"] {
        assert!(attempt["error"]["message"].as_str().unwrap().contains(word), "{attempt}");
    }
    let id = node.accepted("/later", "{}").await;
    node.event_is(&id, "retrying").await;
}
