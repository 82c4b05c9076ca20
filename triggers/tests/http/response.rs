//! What a function returns, and what its client gets.

use bus::{Outcome, outcome::Ending, sink::CallError};
use rstest::rstest;
use serde_json::{Value, json};
use triggers::config::Mode;

use crate::support::{Bus, Response, Server, cases, ok, serve};

async fn returning(output: Vec<u8>) -> (Server, Response) {
    let bus = Bus::new().answering(move |_| Ok(ok(output.clone())));
    let server = serve(&bus, &[("GET /", Mode::Sync)]).await;
    let response = server.request("GET /", &[], b"").await;
    (server, response)
}

fn check(id: &Value, expect: &Value, response: &Response) {
    let status = u64::from(response.status);
    if let Some(any) = expect.get("status_any") {
        assert!(any.as_array().unwrap().contains(&status.into()), "{id}: {status}");
    }
    for (key, value) in expect.as_object().unwrap() {
        match key.as_str() {
            "status" => assert_eq!(*value, status, "{id}"),
            "content_type" => assert_eq!(response.header("content-type"), value.as_str(), "{id}"),
            "content_length" => assert_eq!(response.body.len() as u64, *value, "{id}"),
            "body" => assert_eq!(String::from_utf8_lossy(&response.body), value.as_str().unwrap(), "{id}"),
            "json" => assert_eq!(response.json(), *value, "{id}"),
            "headers" => {
                for (name, value) in value.as_object().unwrap() {
                    assert_eq!(response.header(name), value.as_str(), "{id}");
                }
            }
            "headers_absent" => {
                for name in value.as_array().unwrap() {
                    assert_eq!(response.header(name.as_str().unwrap()), None, "{id}");
                }
            }
            "set_cookie" => {
                let cookies = response.headers.iter().filter(|(name, _)| name == "set-cookie");
                assert_eq!(cookies.map(|(_, cookie)| json!(cookie)).collect::<Vec<_>>(), *value.as_array().unwrap());
            }
            "status_any" | "no_5xx_crash" => {}
            other => panic!("{id} expects `{other}`, which nothing here checks"),
        }
    }
}

#[tokio::test]
async fn response_cases() {
    for case in [cases("http_response_v2"), cases("http_response_v2_aws")].concat() {
        let response = if case.get("raises").is_some() {
            let bus = Bus::new().answering(|_| Ok(Outcome::failure(Ending::Error, "E", "secret")));
            serve(&bus, &[("GET /", Mode::Sync)]).await.request("GET /", &[], b"").await
        } else {
            // spaced, as most languages write JSON
            let output = serde_json::to_vec_pretty(&case["returned"]).unwrap();
            returning(output).await.1
        };
        check(&case["id"], &case["expect"], &response);
    }
}

#[rstest]
#[case::object(json!({ "a": 1 }).to_string(), json!({ "status": 200, "content_type": "application/json", "body": "{\"a\":1}" }))]
#[case::compacted(r#" { "a b" : [ 1.0, "\" \\" ] } "#, json!({ "body": r#"{"a b":[1.0,"\" \\"]}"# }))]
#[case::string("\"h\\u00e9\"", json!({ "body": "hé", "content_type": "application/json" }))]
#[case::null("null", json!({ "status": 200, "body": "null" }))]
#[case::plain_output("hello\n", json!({ "status": 200, "content_type": "text/plain; charset=utf-8", "body": "hello\n" }))]
#[case::nothing("", json!({ "status": 200, "body": "" }))]
#[case::whole(
    r#"{"statusCode":201,"headers":{"X-A":"1","content-length":"9","n":5,"z":null},"cookies":["a=1","b=2"],"body":"x"}"#,
    json!({ "status": 201, "headers": { "x-a": "1", "n": "5" }, "headers_absent": ["z"], "set_cookie": ["a=1", "b=2"],
        "body": "x", "content_length": 1 })
)]
#[case::status_as_text(r#"{"statusCode":"404"}"#, json!({ "status": 404, "body": "" }))]
#[case::body_that_is_an_object(r#"{"statusCode":200,"body":{"a": 1}}"#, json!({ "status": 200, "body": "{\"a\":1}" }))]
#[case::base64(r#"{"statusCode":200,"body":"aGk=","isBase64Encoded":true}"#, json!({ "body": "hi" }))]
#[case::no_content(r#"{"statusCode":204,"body":"x"}"#, json!({ "status": 204, "body": "" }))]
#[case::status_that_is_none(r#"{"statusCode":99}"#, json!({ "status": 502 }))]
#[case::status_null(r#"{"statusCode":null}"#, json!({ "status": 502 }))]
#[case::headers_that_are_none(r#"{"statusCode":200,"headers":["a"]}"#, json!({ "status": 502 }))]
#[case::header_with_a_line_end(r#"{"statusCode":200,"headers":{"a":"b\r\nc: d"}}"#, json!({ "status": 502, "headers_absent": ["c"] }))]
#[case::not_base64(r#"{"statusCode":200,"body":"@","isBase64Encoded":true}"#, json!({ "status": 502 }))]
#[tokio::test]
async fn a_result_is_answered_by_the_rules_of_format_2_0(#[case] output: impl Into<String>, #[case] expect: Value) {
    let output: String = output.into();
    let (_server, response) = returning(output.clone().into_bytes()).await;
    check(&output.into(), &expect, &response);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_answered_as_bytes() {
    let (_server, response) = returning(vec![0xff, 0]).await;
    assert_eq!(response.header("content-type"), Some("application/octet-stream"));
    assert_eq!(response.body, [0xff, 0]);
}

#[rstest]
#[case(Ending::Error, 502)]
#[case(Ending::Timeout, 504)]
#[case(Ending::Crash, 502)]
#[case(Ending::InitError, 502)]
#[case(Ending::TooLarge, 502)]
#[tokio::test]
async fn a_function_that_fails_is_a_problem_that_gives_nothing_away(#[case] ending: Ending, #[case] status: u16) {
    let bus = Bus::new().answering(move |_| Ok(Outcome::failure(ending, "E", "secret at /home/x")));
    let server = serve(&bus, &[("GET /", Mode::Sync)]).await;
    let response = server.request("GET /", &[], b"").await;
    assert_eq!(response.status, status);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["id"], bus.called()[0].0.id.to_string());
    assert!(problem["type"].as_str().unwrap().starts_with("urn:fnbus:"));
    assert!(!String::from_utf8_lossy(&response.body).contains("secret"));
}

#[rstest]
#[case(CallError::Busy { function: "f".parse().unwrap() }, 429, Some("1"))]
#[case(CallError::NoNode { function: "f".parse().unwrap() }, 503, Some("1"))]
#[case(CallError::Vanished { function: "f".parse().unwrap() }, 502, None)]
#[case(CallError::TimedOut { function: "f".parse().unwrap() }, 504, None)]
#[case(CallError::Log { reason: "10.0.0.1".into() }, 503, Some("1"))]
#[tokio::test]
async fn a_call_without_an_outcome_has_its_own_status(
    #[case] error: CallError,
    #[case] status: u16,
    #[case] retry_after: Option<&str>,
) {
    let bus = Bus::new().answering(move |_| Err(error.clone()));
    let response = serve(&bus, &[("GET /", Mode::Sync)]).await.request("GET /", &[], b"").await;
    assert_eq!((response.status, response.header("retry-after")), (status, retry_after));
    assert!(!String::from_utf8_lossy(&response.body).contains("10.0.0.1"));
}
