//! Requests nobody should send.

use std::time::Duration;

use rstest::rstest;
use tokio::io::AsyncWriteExt;
use triggers::{config::Mode, http::Limits};

use crate::support::{Bus, Server, read_all, request, serve, serve_within};

const ROUTES: [(&str, Mode); 2] = [("POST /{rest+}", Mode::Async), ("GET /fn/{a}", Mode::Sync)];

async fn server(bus: &Bus) -> Server {
    serve(bus, &ROUTES).await
}

#[rstest]
#[case::both_lengths(
    "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    400
)]
#[case::both_lengths_reversed(
    "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    400
)]
#[case::list_of_lengths("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nabcdef", 400)]
#[case::unknown_coding("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400)]
#[case::vertical_tab("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400)]
#[case::coding_in_1_0("POST /a HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)]
#[case::huge_chunk("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF1\r\na", 400)]
#[case::bare_lf("POST /a HTTP/1.1\nHost: x\n\n", 400)]
#[case::space_before_colon("POST /a HTTP/1.1\r\nHost: x\r\nX : 1\r\n\r\n", 400)]
#[case::folded_header("POST /a HTTP/1.1\r\nHost: x\r\nX: 1\r\n 2\r\n\r\n", 400)]
#[case::no_host("POST /a HTTP/1.1\r\nConnection: close\r\n\r\n", 400)]
#[case::two_hosts("POST /a HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n", 400)]
#[case::another_host("POST http://y/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400)]
#[case::connect("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\nConnection: close\r\n\r\n", 405)]
#[case::trace("TRACE /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405)]
#[case::tls("\x16\x03\x01\x02", 400)]
#[tokio::test]
async fn an_ambiguous_request_is_refused_and_the_connection_closed(#[case] bytes: &str, #[case] status: u16) {
    let bus = Bus::new();
    let response = server(&bus).await.answer(bytes.as_bytes()).await;
    assert_eq!(response.status, status);
    assert!(bus.accepted().is_empty());
}

#[rstest]
#[case::dots("/fn/%2e%2e/admin")]
#[case::dots_and_slash("/fn/..%2f")]
#[case::nul("/fn/%00")]
#[case::plain_dots("/fn/../admin")]
#[case::backslash("/fn/%5c")]
#[case::not_utf8("/fn/%ff")]
#[tokio::test]
async fn a_path_that_could_mean_another_is_refused(#[case] path: &str) {
    let bus = Bus::new();
    assert_eq!(server(&bus).await.request(&format!("POST {path}"), &[], b"").await.status, 400);
    assert!(bus.accepted().is_empty());
}

#[tokio::test]
async fn heads_over_the_limits_are_refused() {
    let bus = Bus::new();
    let server = server(&bus).await;
    let many = format!("POST /a HTTP/1.1\r\nHost: x\r\n{}\r\n", "x-a: 1\r\n".repeat(20_000));
    assert_eq!(server.answer(many.as_bytes()).await.status, 431);
    let more_than_100 = format!("POST /a HTTP/1.1\r\nHost: x\r\n{}\r\n", "a:\r\n".repeat(100));
    assert_eq!(server.answer(more_than_100.as_bytes()).await.status, 431);
    let uri = format!("POST /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1_000_000));
    assert_eq!(server.answer(uri.as_bytes()).await.status, 414);
    assert_eq!(server.request(&format!("POST /{}", "a".repeat(8000)), &[], b"").await.status, 202);
}

#[tokio::test]
async fn the_requests_before_a_bad_one_are_answered() {
    let bus = Bus::new();
    let answer = server(&bus).await.raw(b"POST /a HTTP/1.1\r\nHost: x\r\n\r\nPOST /b HTTP/1.1\nHost: x\n\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202") && answer.contains("HTTP/1.1 400"), "{answer}");
    assert_eq!(bus.accepted().len(), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let bus = Bus::new();
    let server = server(&bus).await;
    assert_eq!(server.request("POST /a", &[], &[b'x'; 1000]).await.status, 202);
    let announced = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx";
    assert_eq!(server.answer(announced).await.status, 413);
    let sent = request("POST /a", &[], &vec![b'x'; 3_000_000]);
    assert_eq!(server.answer(&sent).await.status, 413, "the client reads its answer though it sends on");
    let mut chunked = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..1000 {
        chunked.extend(b"64\r\n");
        chunked.extend([b'x'; 100]);
        chunked.extend(b"\r\n");
    }
    assert_eq!(server.answer(&chunked).await.status, 413);
    assert_eq!(bus.accepted().len(), 1);
}

#[tokio::test]
async fn chunks_become_one_body() {
    let bus = Bus::new();
    let request = b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;a=b\r\nabc\r\n2\r\nde\r\n1\r\nf\r\n0\r\nx-t: 1\r\n\r\n";
    assert_eq!(server(&bus).await.answer(request).await.status, 202);
    assert_eq!(bus.accepted()[0].data, "abcdef");
}

fn hasty() -> Limits {
    Limits {
        head_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(100),
        body_timeout: Duration::from_millis(50),
        linger: Duration::from_millis(50),
        ..Limits::default()
    }
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let bus = Bus::new();
    let server = serve_within(&bus, &ROUTES, hasty()).await;
    assert!(server.raw(b"").await.is_empty(), "a silent connection is closed without a word");
    assert_eq!(server.answer(b"POST /a HTTP/1.1\r\nHos").await.status, 408);
    assert_eq!(server.answer(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx").await.status, 408);
    let used = server.raw(b"POST /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(used.starts_with(b"HTTP/1.1 202"), "an idle connection is closed after its answers");
    assert_eq!(bus.accepted().len(), 1);
}

#[tokio::test]
async fn a_head_sent_byte_by_byte_has_one_deadline_in_all() {
    let bus = Bus::new();
    let server = serve_within(&bus, &ROUTES, hasty()).await;
    let (mut read, mut write) = server.connect().await.into_split();
    let dripping = tokio::spawn(async move {
        // one byte each 10 ms for ever: only time can tell it from a slow line
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        for byte in b"POST /a HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'a')) {
            tick.tick().await;
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    });
    assert!(read_all(&mut read).await.starts_with(b"HTTP/1.1 408"));
    dripping.abort();
}
