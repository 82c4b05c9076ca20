use chrono::DateTime;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::event::{FileChange, FileMeta, HttpMeta, QueueMeta};

fn request() -> Event {
    let mut event = Event::new("/shop/orders", "http.request", r#"{"a":"é\n"}"#);
    event.id = crate::EventId::foreign("r-1");
    event.time = DateTime::from_timestamp_millis(1_583_348_638_390).unwrap();
    event.trigger = "orders".parse().ok();
    event.datacontenttype = Some("application/json".into());
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    event.meta = Meta::Http(Box::new(HttpMeta {
        method: "POST".to_owned(),
        path: "/orders/k%20r".to_owned(),
        query: "a=1&b=x+y%26&a=2&flag".to_owned(),
        route: "POST /orders/{region}".to_owned(),
        params: vec![pair(("region", "k r"))],
        headers: [("host", "shop.example:8080"), ("cookie", "a=1; b=2"), ("x-m", "1"), ("cookie", "c=3"), ("x-m", "2")]
            .map(pair)
            .to_vec(),
        protocol: "HTTP/1.1".to_owned(),
        source_ip: "192.0.2.1".to_owned(),
    }));
    event
}

fn rendered(event: &Event, format: Format) -> Value {
    let payload = render(event, format);
    assert_eq!(payload.form, Form::Json);
    serde_json::from_slice(&payload.bytes).unwrap()
}

#[test]
fn a_request_is_rendered_as_an_http_api_payload_2_0() {
    assert_eq!(
        rendered(&request(), Format::HttpV2),
        json!({
            "version": "2.0",
            "routeKey": "POST /orders/{region}",
            "rawPath": "/orders/k%20r",
            "rawQueryString": "a=1&b=x+y%26&a=2&flag",
            "cookies": ["a=1", "b=2", "c=3"],
            "headers": { "host": "shop.example:8080", "x-m": "1,2" },
            "queryStringParameters": { "a": "1,2", "b": "x y&", "flag": "" },
            "requestContext": {
                "accountId": "000000000000",
                "apiId": "orders",
                "domainName": "shop.example",
                "domainPrefix": "shop",
                "http": {
                    "method": "POST",
                    "path": "/orders/k%20r",
                    "protocol": "HTTP/1.1",
                    "sourceIp": "192.0.2.1",
                    "userAgent": "",
                },
                "requestId": "r-1",
                "routeKey": "POST /orders/{region}",
                "stage": "$default",
                "time": "04/Mar/2020:19:03:58 +0000",
                "timeEpoch": 1_583_348_638_390_i64,
            },
            "pathParameters": { "region": "k r" },
            "body": "{\"a\":\"é\\n\"}",
            "isBase64Encoded": false,
        })
    );
}

#[test]
fn sections_without_content_are_left_out() {
    let mut event = request();
    event.data = Bytes::new();
    let Meta::Http(meta) = &mut event.meta else { panic!() };
    meta.query.clear();
    meta.params.clear();
    meta.headers.clear();
    let value = rendered(&event, Format::HttpV2);
    for absent in ["cookies", "queryStringParameters", "pathParameters", "body", "stageVariables"] {
        assert_eq!(value.get(absent), None, "{absent}");
    }
    assert_eq!(value["headers"], json!({}));
}

#[rstest]
#[case::json("application/json", b"{}", false)]
#[case::form("application/x-www-form-urlencoded", b"a=b", false)]
#[case::xml("application/soap+xml; charset=utf-8", b"<a/>", false)]
#[case::image("image/png", b"abc", true)]
#[case::text_that_is_not_utf8("text/plain", b"\xff", true)]
fn bodies_that_are_not_text_are_base64(#[case] media_type: &str, #[case] data: &'static [u8], #[case] expect: bool) {
    let mut event = request();
    event.datacontenttype = Some(media_type.into());
    event.data = Bytes::from_static(data);
    let value = rendered(&event, Format::HttpV2);
    assert_eq!(value["isBase64Encoded"], json!(expect));
}

#[rstest]
#[case(Some("application/json; charset=utf-8"), Form::Json)]
#[case(Some("application/vnd.acme+json"), Form::Json)]
#[case(Some("text/csv"), Form::Text)]
#[case(Some("application/xml"), Form::Text)]
#[case(Some("image/png"), Form::Bytes)]
#[case(None, Form::Unknown)]
fn a_body_is_what_its_media_type_says(#[case] media_type: Option<&str>, #[case] form: Form) {
    let mut event = request();
    event.datacontenttype = media_type.map(Into::into);
    assert_eq!(render(&event, Format::Body), Payload { bytes: event.data.clone(), form });
}

#[test]
fn an_event_without_http_facts_is_given_as_its_data() {
    let event = Event::new("/a", "b", "c");
    assert_eq!(render(&event, Format::HttpV2).bytes, "c");
}

#[test]
fn no_data_is_no_json_whatever_its_media_type() {
    let mut event = Event::new("/shop", "ping", "");
    event.datacontenttype = Some("application/json".into());
    assert_eq!(render(&event, Format::Body).form, Form::Unknown);
}

#[test]
fn a_slot_is_rendered_as_a_scheduled_event() {
    let mut event = Event::new("/shop/nightly", "cron.tick", "");
    event.time = "2026-03-08T07:00:00Z".parse().unwrap();
    event.id = crate::EventId::foreign("2026-03-08T07:00:00Z");
    event.trigger = "nightly".parse().ok();
    let (local, zone) = ("2026-03-08T03:00:00-04:00".to_owned(), "America/New_York".to_owned());
    event.meta = Meta::Cron(Box::new(crate::event::CronMeta { slot: event.time, local, zone }));
    assert_eq!(
        rendered(&event, Format::Scheduled),
        json!({
            "version": "0", "id": "2026-03-08T07:00:00Z", "detail-type": "Scheduled Event", "source": "aws.events",
            "account": "000000000000", "time": "2026-03-08T07:00:00Z", "region": "us-east-1",
            "resources": ["arn:aws:events:us-east-1:000000000000:rule/nightly"], "detail": {},
        })
    );
}

fn file(change: FileChange) -> Event {
    let mut event = Event::new("/shop/inbox", format!("file.{}", change.as_str()), "");
    event.time = "2026-03-08T07:00:00.5Z".parse().unwrap();
    event.id = crate::EventId::foreign("in/a b+ü.csv@1.2.3");
    event.trigger = "inbox".parse().ok();
    event.meta = Meta::File(Box::new(FileMeta {
        change,
        path: "/srv/in/a b+ü.csv".to_owned(),
        key: "in/a b+ü.csv".to_owned(),
        from: None,
        size: 2,
        modified: event.time,
        etag: "1-2-3".to_owned(),
        sequencer: "0F".to_owned(),
    }));
    event
}

#[test]
fn a_file_is_rendered_as_an_s3_notification() {
    let record = &rendered(&file(FileChange::Created), Format::S3)["Records"][0];
    assert_eq!(record["eventName"], "ObjectCreated:Put");
    assert_eq!((&record["eventSource"], &record["eventTime"]), (&json!("aws:s3"), &json!("2026-03-08T07:00:00.500Z")));
    assert_eq!(record["s3"]["bucket"]["name"], "inbox");
    let object = json!({ "key": "in/a+b%2B%C3%BC.csv", "size": 2, "eTag": "1-2-3", "sequencer": "0F" });
    assert_eq!(record["s3"]["object"], object);
    assert_eq!(record["fnbus"], json!({ "change": "created", "path": "/srv/in/a b+ü.csv" }));
    let removed = &rendered(&file(FileChange::Removed), Format::S3)["Records"][0];
    assert_eq!(removed["s3"]["object"], json!({ "key": "in/a+b%2B%C3%BC.csv", "sequencer": "0F" }));
}

#[test]
fn a_message_is_rendered_as_a_record_of_sqs() {
    let mut event = Event::new("/shop/payments", "queue.message", "hello");
    event.id = crate::EventId::foreign("PAY.1.7");
    event.trigger = "payments".parse().ok();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    event.meta = Meta::Queue(Box::new(QueueMeta {
        subject: "payments.eu".to_owned(),
        stream: "PAY".to_owned(),
        sequence: 7,
        deliveries: 2,
        published: DateTime::from_timestamp_millis(1_583_348_638_390).unwrap(),
        headers: vec![header("kind", "paid"), header("kind", "again"), header("n", "1")],
    }));
    let attribute = |value: &str| json!({ "stringValue": value, "stringListValues": [], "binaryListValues": [], "dataType": "String" });
    assert_eq!(
        rendered(&event, Format::Sqs),
        json!({ "Records": [{
            "messageId": "PAY.1.7",
            "receiptHandle": "PAY.7",
            "body": "hello",
            "attributes": {
                "ApproximateReceiveCount": "2",
                "SentTimestamp": "1583348638390",
                "SenderId": "000000000000",
                "ApproximateFirstReceiveTimestamp": "1583348638390",
            },
            "messageAttributes": { "kind": attribute("paid"), "n": attribute("1") },
            "md5OfBody": "5d41402abc4b2a76b9719d911017c592",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:payments",
            "awsRegion": "us-east-1",
            "fnbus": { "subject": "payments.eu", "stream": "PAY", "sequence": 7, "isBase64Encoded": false },
        }] })
    );
    event.data = Bytes::from_static(b"\xff");
    let record = &rendered(&event, Format::Sqs)["Records"][0];
    assert_eq!((&record["body"], &record["fnbus"]["isBase64Encoded"]), (&json!("/w=="), &json!(true)));
}

#[test]
fn a_cloud_event_is_rendered_in_the_json_format() {
    let mut event = request();
    event.hop = 2;
    event.correlation = Some(crate::EventId::foreign("first"));
    event.extensions.insert("traceparent".to_owned(), "00-1".to_owned());
    assert_eq!(
        rendered(&event, Format::CloudEvent),
        json!({
            "specversion": "1.0", "id": "r-1", "source": "/shop/orders", "type": "http.request",
            "time": "2020-03-04T19:03:58.390Z", "datacontenttype": "application/json", "traceparent": "00-1",
            "correlationid": "first", "hop": 2, "data": { "a": "é\n" },
        })
    );
}

#[test]
fn a_batch_is_one_notification_of_all_its_records_or_a_list() {
    let (mut one, mut two) = (file(FileChange::Created), file(FileChange::Removed));
    let batch =
        |events: &[&Event], format| -> Value { serde_json::from_slice(&render_batch(events, format).bytes).unwrap() };
    let records = batch(&[&one, &two], Format::S3);
    assert_eq!(records["Records"][0]["eventName"], "ObjectCreated:Put");
    assert_eq!(records["Records"][1]["eventName"], "ObjectRemoved:Delete");
    (one.data, two.data) = ("1.10".into(), "text".into());
    assert_eq!(&render_batch(&[&one, &two], Format::Body).bytes[..], br#"[1.10,"text"]"#);
    assert_eq!(&render_batch(&[&one], Format::Body).bytes[..], b"[1.10]");
    // one that is no record makes none of them one
    two.meta = Meta::None;
    assert_eq!(batch(&[&one, &two], Format::Sqs), json!([1.1, "text"]));
    assert_eq!(batch(&[&one, &two], Format::CloudEvent)[1]["specversion"], "1.0");
}
