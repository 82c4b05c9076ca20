//! Requests, synchronous and not: what a function gets of them, and what its caller gets back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on ends")]

use bytes::Bytes;
use fnbus_tests::{Node, Project, eventually};
use hyper::Request;
use serde_json::{Value, json};

/// Gives back what it got.
const ECHO: &str = "def handler(event, context):\n    return event\n";

/// An echo that is ready to be called.
async fn echo(triggers: &str) -> Node {
    let node = Project::new().function("echo", ECHO).config(triggers).start().await;
    node.function_ready("echo").await;
    node
}

#[tokio::test]
async fn a_function_gets_path_query_headers_cookies_and_body_in_the_shape_of_lambda() {
    let node = echo("[triggers.orders]\nhttp = 'POST /orders/{region}/{rest+}'\nto = 'echo'\n").await;
    let request = Request::post("/orders/eu%20west/a/b?x=1&x=2&y=%C3%A4")
        .header("content-type", "application/json")
        .header("x-many", "one")
        .header("x-many", "two")
        .header("cookie", "a=1; b=2");
    let event: Value = node.send(request, r#"{"n": 1}"#).await.json();
    assert_eq!(event["version"], "2.0");
    assert_eq!(event["routeKey"], "POST /orders/{region}/{rest+}");
    assert_eq!(event["pathParameters"], json!({ "region": "eu west", "rest": "a/b" }));
    assert_eq!(event["rawQueryString"], "x=1&x=2&y=%C3%A4");
    assert_eq!(event["queryStringParameters"], json!({ "x": "1,2", "y": "ä" }));
    assert_eq!(event["headers"]["x-many"], "one,two");
    assert_eq!(event["cookies"], json!(["a=1", "b=2"]));
    assert_eq!(event["requestContext"]["http"]["method"], "POST");
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!(r#"{"n": 1}"#), &json!(false)));
}

#[tokio::test]
async fn bytes_go_in_and_come_out_as_they_are() {
    let code = "def handler(event, context):\n    return {'statusCode': 200, 'isBase64Encoded': \
                event['isBase64Encoded'], 'headers': {'content-type': 'image/png'}, 'body': event['body']}\n";
    let node = Project::new()
        .function("echo", code)
        .config("[triggers.images]\nhttp = 'PUT /image'\nto = 'echo'\n")
        .start()
        .await;
    node.function_ready("echo").await;
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let answer = node.send(Request::put("/image").header("content-type", "image/png"), bytes.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("image/png")));
    assert!(answer.body == bytes, "{} bytes came back", answer.body.len());
}

#[tokio::test]
async fn a_function_says_status_headers_and_cookies_itself() {
    let code = "def handler(event, context):\n    return {'statusCode': 418, 'headers': {'x-tea': 'green'}, \
                'cookies': ['a=1; Path=/', 'b=2'], 'body': 'short and stout'}\n";
    let node = Project::new()
        .function("teapot", code)
        .config("[triggers.tea]\nhttp = 'GET /tea'\nto = 'teapot'\n")
        .start()
        .await;
    node.function_ready("teapot").await;
    let answer = node.get("/tea").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (418, "short and stout"));
    assert_eq!(answer.header("x-tea"), Some("green"));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
}

#[tokio::test]
async fn a_handler_gets_the_payload_its_trigger_names() {
    let node = echo(
        "[triggers.raw]\nhttp = 'POST /raw'\npayload = 'body'\nto = 'echo'\n\
         [triggers.event]\nhttp = 'POST /event'\npayload = 'cloudevent'\nto = 'echo'\n\
         [triggers.lambda]\nhttp = 'POST /lambda'\npayload = 'lambda'\nto = 'echo'\n",
    )
    .await;
    let body = r#"{"n":1}"#;
    assert_eq!(node.post("/raw", body).await.text(), body);
    let event: Value = node.post("/event", body).await.json();
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("http.request")));
    assert_eq!((&event["source"], &event["data"]), (&json!("/fnbus/event"), &json!({ "n": 1 })));
    let lambda: Value = node.post("/lambda", body).await.json();
    assert_eq!(lambda["body"], body);
}

#[tokio::test]
async fn five_mebibytes_are_no_trouble_for_a_caller_and_behind_its_back() {
    let code = "def handler(event, context):\n    return len(event)\n";
    let node = Project::new()
        .function_with("size", code, "memory = 512")
        .config("[triggers.now]\nhttp = 'POST /now'\npayload = 'body'\nto = 'size'\n")
        .config("[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\npayload = 'body'\nto = 'size'\n")
        .start()
        .await;
    node.function_ready("size").await;
    let text = || Request::post("/now").header("content-type", "text/plain");
    let body = Bytes::from(vec![b'x'; 5 << 20]);
    assert_eq!(node.send(text(), body.clone()).await.text(), (5 << 20).to_string());
    let answer = node.send(text().uri("/later"), body).await;
    let id = answer.json::<Value>()["id"].as_str().unwrap().to_owned();
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["data"].as_str().map(str::len), Some(5 << 20));
    assert_eq!(event["deliveries"][0]["attempts"][0]["output"], (5 << 20).to_string());
}

#[tokio::test]
async fn a_body_too_large_for_a_message_travels_by_reference() {
    let code = "def handler(event, context):\n    return len(event)\n";
    let node = Project::new()
        .function_with("size", code, "memory = 512")
        .config("[triggers.later]\nhttp = 'POST /later'\nmode = 'async'\npayload = 'body'\nmax_body = '12MiB'\nto = 'size'\n")
        .start()
        .await;
    let body = vec![b'x'; 10 << 20];
    let answer = node.send(Request::post("/later").header("content-type", "text/plain"), body).await;
    let id = answer.json::<Value>()["id"].as_str().unwrap().to_owned();
    let event = node.event_is(&id, "done").await;
    assert_eq!(event["deliveries"][0]["attempts"][0]["output"], (10 << 20).to_string());
}

#[tokio::test]
async fn calls_are_logged_as_their_trigger_says() {
    let code = "def handler(event, context):\n    if 'fail' in event['rawPath']: raise ValueError('no')\n";
    let node = Project::new()
        .function("f", code)
        .config("[triggers.full]\nhttp = 'GET /full/{x}'\nto = 'f'\n")
        .config("[triggers.errors]\nhttp = 'GET /errors/{x}'\nlog = 'errors'\nto = 'f'\n")
        .config("[triggers.off]\nhttp = 'GET /off/{x}'\nlog = 'off'\nto = 'f'\n")
        .start()
        .await;
    node.function_ready("f").await;
    for trigger in ["full", "errors", "off"] {
        assert_eq!(node.get(&format!("/{trigger}/ok")).await.status, 200);
        assert_eq!(node.get(&format!("/{trigger}/fail")).await.status, 502);
    }
    let logged = |trigger| {
        let node = &node;
        async move {
            let events = node.json(&["events", "--trigger", trigger, "--json"]).await;
            events.iter().map(|event| event["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(logged("full").await, ["done", "dead"]);
    assert_eq!(logged("errors").await, ["dead"]);
    assert_eq!(logged("off").await, [""; 0]);
    assert_eq!(node.json(&["dead", "list", "--json"]).await, [json!(null); 0], "a failed call is its caller's affair");
}

#[tokio::test]
async fn a_caller_waits_no_longer_than_its_route_says_and_the_function_goes_on() {
    let code = "import os, time\ndef handler(event, context):\n    while not os.path.exists(os.environ['GO']):\n        \
                time.sleep(0.01)\n    open(os.environ['GO'], 'w').write('finished')\n";
    let project = Project::new();
    let go = project.path().join("notes/go");
    let node = project
        .function_with("slow", code, &format!("env = {{ GO = '{}' }}", go.display()))
        .config("[triggers.slow]\nhttp = 'GET /slow'\ntimeout = '300ms'\nto = 'slow'\n")
        .start()
        .await;
    node.function_ready("slow").await;
    let answer = node.get("/slow").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (504, Some("application/problem+json")));
    node.write("notes/go", "");
    eventually("the function finishes", || async { (node.read("notes/go") == "finished").then_some(()) }).await;
}

#[tokio::test]
async fn the_first_caller_waits_for_code_that_is_slow_to_load() {
    let code = "import time\ntime.sleep(2)\ndef handler(event, context):\n    return 'loaded'\n";
    let node = Project::new()
        .function("slow", code)
        .config("[triggers.slow]\nhttp = 'GET /slow'\nto = 'slow'\n")
        .start()
        .await;
    let answer = node.get("/slow").await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "loaded"));
}

#[tokio::test]
async fn events_posted_in_any_form_reach_the_triggers_that_ask_for_them() {
    let node = Project::new()
        .function("f", ECHO)
        .config("[triggers.paid]\nevent = { type = ['order.paid', 'order.settled'], subject = 'eu' }\npayload = 'cloudevent'\nto = 'f'\n")
        .start()
        .await;
    // One by one, as its sender likes.
    let sugar = r#"{"type":"order.paid","subject":"eu","data":{"n":1}}"#;
    let one = node.accepted("/events", sugar).await;
    let whole =
        r#"{"specversion":"1.0","id":"e-1","source":"/shop","type":"order.settled","subject":"eu","data":{"n":2}}"#;
    let structured = Request::post("/events").header("content-type", "application/cloudevents+json");
    assert_eq!(node.send(structured, whole).await.json::<Value>(), json!({ "id": "e-1" }));
    let binary = Request::post("/events")
        .header("content-type", "application/json")
        .header("ce-specversion", "1.0")
        .header("ce-id", "e-2")
        .header("ce-source", "/shop")
        .header("ce-type", "order.paid")
        .header("ce-subject", "eu");
    assert_eq!(node.send(binary, r#"{"n":3}"#).await.status, 202);
    for (id, n) in [(one.as_str(), 1), ("e-1", 2), ("e-2", 3)] {
        let event = node.event_is(id, "done").await;
        let output: Value =
            serde_json::from_str(event["deliveries"][0]["attempts"][0]["output"].as_str().unwrap()).unwrap();
        assert_eq!((&output["id"], &output["data"]), (&json!(id), &json!({ "n": n })));
    }
    // Many at once, each with its own answer.
    let batch = r#"[{"type":"order.paid","subject":"eu"},{"type":"order.paid","subject":"us"},{"data":1}]"#;
    let answer = node.post("/events", batch).await;
    assert_eq!(answer.status, 207);
    let lines = answer.json::<Vec<Value>>();
    let states: Vec<_> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["accepted", "accepted", "refused"]);
    let id = |n: usize| lines[n]["id"].as_str().unwrap();
    node.event_is(id(0), "done").await;
    node.event_is(id(1), "filtered").await;
}

#[tokio::test]
async fn emitted_events_reach_the_triggers_that_ask_for_them() {
    let node = Project::new()
        .function("f", ECHO)
        .config("[triggers.priced]\nevent = { type = 'order.priced', tenant = 'a' }\npayload = 'body'\nto = 'f'\n")
        .start()
        .await;
    let ours = node.json(&["emit", "order.priced", "-d", r#"{"n":1.50}"#, "--ext", "tenant=a", "--json"]).await;
    let other = node.json(&["emit", "order.priced", "--ext", "tenant=b", "--json"]).await;
    assert_eq!((&ours[0]["deliveries"], &other[0]["deliveries"]), (&json!(1), &json!(0)));
    let event = node.event_is(ours[0]["id"].as_str().unwrap(), "done").await;
    assert_eq!((&event["data"], &event["type"]), (&json!(r#"{"n":1.50}"#), &json!("order.priced")));
    assert_eq!(event["deliveries"][0]["trigger"], "priced");
}

#[tokio::test]
async fn whoever_listens_on_nats_gets_a_copy_of_what_a_trigger_took() {
    use futures_util::StreamExt;
    let node = Project::new()
        .function("f", ECHO)
        .config("[triggers.orders]\nhttp = 'POST /orders'\nmode = 'async'\nto = 'f'\n[bus]\ntap = true\n")
        .start()
        .await;
    let conf = node.read(".fnbus/nats/server.conf");
    let password = conf.split("password: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let url = node.json(&["node", "--json"]).await[0]["nats"].as_str().unwrap().to_owned();
    let options = async_nats::ConnectOptions::with_user_and_password("fnbus".into(), password.into());
    let client = options.connect(url).await.unwrap();
    let mut tap = client.subscribe("fnbus.event.orders").await.unwrap();
    // what comes back was sent after the subscription, and so the server knows of that too
    let mut back = client.subscribe("back").await.unwrap();
    client.publish("back", "".into()).await.unwrap();
    back.next().await.unwrap();
    let id = node.accepted("/orders", "{\"n\": 1}").await;
    let copy = tokio::time::timeout(fnbus_tests::PATIENCE, tap.next()).await.unwrap().unwrap();
    assert_eq!(copy.payload, "{\"n\": 1}");
    assert_eq!(copy.headers.unwrap().get("ce-id").unwrap().as_str(), id);
}

#[tokio::test]
async fn several_targets_get_an_accepted_event_each() {
    let node = Project::new()
        .function("a", "def handler(event, context):\n    return 'a'\n")
        .function("b", "def handler(event, context):\n    return 'b'\n")
        .config("[triggers.both]\nhttp = ['POST /both', 'PUT /both']\nmode = 'async'\nto = ['a', 'b']\n")
        .start()
        .await;
    let answer = node.send(Request::put("/both"), "x").await;
    let id = answer.json::<Value>()["id"].as_str().unwrap().to_owned();
    let outputs = eventually("both have run", || async {
        let event = node.show(&id).await;
        let outputs: Vec<_> =
            event["deliveries"].as_array()?.iter().map(|d| d["attempts"][0]["output"].clone()).collect();
        (event["status"] == "done").then_some(outputs)
    });
    assert_eq!(outputs.await, [json!("\"a\""), json!("\"b\"")]);
}
