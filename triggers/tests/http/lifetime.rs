//! Clients that leave, servers that stop.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use triggers::{config::Mode, http::Limits};

use crate::support::{Bus, PATIENCE, ok, read_all, request, serve, serve_within};

const ROUTES: [(&str, Mode); 1] = [("GET /", Mode::Sync)];

#[tokio::test]
async fn a_call_goes_on_when_its_client_leaves() {
    let bus = Bus::new().holding();
    let server = serve(&bus, &ROUTES).await;
    let mut client = server.connect().await;
    client.write_all(&request("GET /", &[], b"")).await.unwrap();
    bus.begun(1).await;
    drop(client);
    // a whole exchange later the server has seen that the client is gone
    assert_eq!(server.request("GET /none", &[], b"").await.status, 404);
    bus.release();
    bus.finished(1).await;
}

#[tokio::test]
async fn a_server_that_stops_answers_what_is_in_flight_and_takes_nothing_new() {
    let bus = Bus::new().holding().answering(|_| Ok(ok("\"done\"")));
    let mut server = serve(&bus, &ROUTES).await;
    let mut client = server.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    bus.begun(1).await;
    server.shutdown.cancel();
    assert!(read_all(&mut idle).await.is_empty(), "an idle connection is closed");
    assert!(!server.running.is_finished(), "the call is waited for");
    bus.release();
    let answer = String::from_utf8(read_all(&mut client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    timeout(PATIENCE, &mut server.running).await.expect("the server returns").unwrap();
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_server_that_stops_waits_for_calls_without_a_client() {
    let bus = Bus::new().holding();
    let mut server = serve(&bus, &ROUTES).await;
    let mut client = server.connect().await;
    client.write_all(&request("GET /", &[], b"")).await.unwrap();
    bus.begun(1).await;
    drop(client);
    server.shutdown.cancel();
    bus.release();
    timeout(PATIENCE, &mut server.running).await.expect("the server returns").unwrap();
    bus.finished(1).await;
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_long_call_is_not_taken_for_idleness() {
    let bus = Bus::new().holding();
    let limits = Limits { idle_timeout: Duration::from_millis(30), ..Limits::default() };
    let server = serve_within(&bus, &ROUTES, Limits { head_timeout: Duration::from_millis(30), ..limits }).await;
    let mut client = server.connect().await;
    // the second is there before the first is answered: a connection that rests between them is not this one's affair
    client.write_all(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2)).await.unwrap();
    bus.begun(1).await;
    // longer than an idle connection lives: there is no signal for nothing happening
    tokio::time::sleep(Duration::from_millis(200)).await;
    bus.release();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    bus.begun(2).await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let bus = Bus::new();
    let server = serve_within(&bus, &ROUTES, Limits { connections: 1, ..Limits::default() }).await;
    let first = server.connect().await;
    let mut second = server.connect().await;
    second.write_all(&request("GET /", &[], b"")).await.unwrap();
    assert!(timeout(Duration::from_millis(50), second.readable()).await.is_err(), "the first one has the only place");
    drop(first);
    assert!(read_all(&mut second).await.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn what_is_sent_beyond_the_room_there_is_is_refused_until_there_is_room_again() {
    let bus = Bus::new().holding();
    let limits = Limits { memory: 1500, ..Limits::default() };
    let server = serve_within(&bus, &[("POST /", Mode::Sync)], limits).await;
    let mut first = server.connect().await;
    first.write_all(&request("POST /", &[], &[b'x'; 900])).await.unwrap();
    bus.begun(1).await;
    let refused = server.request("POST /", &[], &[b'x'; 900]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    bus.release();
    assert!(read_all(&mut first).await.starts_with(b"HTTP/1.1 200"));
    assert_eq!(server.request("POST /", &[], &[b'x'; 900]).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_not_kept_for_ever() {
    const SIZE: usize = 32 << 20;
    let bus = Bus::new().answering(|event| {
        let size = if event.data == "much" { SIZE } else { 1 };
        Ok(ok(format!("\"{}\"", "x".repeat(size))))
    });
    let limits = Limits { memory: SIZE, write_timeout: Duration::from_millis(500), ..Limits::default() };
    let server = serve_within(&bus, &[("POST /", Mode::Sync)], limits).await;
    let mut client = server.connect().await;
    client.write_all(&request("POST /", &[], b"much")).await.unwrap();
    // while it is there nothing else has room
    for status in [503, 200] {
        let answered = async { while server.request("POST /", &[], b"little").await.status != status {} };
        timeout(PATIENCE, answered).await.expect("the unread answer takes room, and then none");
    }
    assert!(read_all(&mut client).await.len() < SIZE, "all of it was written");
}
