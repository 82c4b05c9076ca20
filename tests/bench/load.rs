//! A load: the same request over connections that are kept, every answer looked at.
//!
//! `Closed`: the next request follows the answer. `Paced`: requests are due at fixed times, whatever the answers do; one
//! that had to wait for the answer before it is counted from when it was due, so that a stall is seen by all it hit.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until},
};

use crate::{Result, histogram::Histogram};

/// An answer may take this long; a row whose answers take longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) connections: usize,
    /// All bytes of the request.
    pub(crate) request: Bytes,
    pub(crate) expected: Expected,
}

/// What an answer must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Is(Bytes),
    Begins(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    Closed,
    /// Between two requests of one connection.
    Every(Duration),
    /// After the answer, before the next request.
    Pause(Duration),
}

/// How long the load lasts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    After(Duration),
    /// Requests in all.
    Sent(usize),
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Fired {
    pub(crate) latencies: Histogram,
    pub(crate) seconds: f64,
}

impl Fired {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.seconds
    }
}

/// A POST of JSON.
pub(crate) fn post(address: SocketAddr, path: &str, body: &[u8]) -> Bytes {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat().into()
}

impl Load {
    pub(crate) async fn fire(&self, until: Until, pace: Pace) -> Result<Fired> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            connections.push(Connection::open(self.address).await?);
        }
        let begun = Instant::now();
        let count = self.connections;
        let shares = connections.into_iter().enumerate().map(|(index, connection)| {
            let until = match until {
                Until::After(time) => End::At(begun + time),
                Until::Sent(all) => End::Count(all / count + usize::from(index < all % count)),
            };
            let first = match pace {
                Pace::Every(interval) => begun + interval.mul_f64(index as f64 / count as f64),
                Pace::Closed | Pace::Pause(_) => begun,
            };
            self.share(connection, first, until, pace)
        });
        let mut latencies = Histogram::default();
        for share in try_join_all(shares).await? {
            latencies.add(&share);
        }
        Ok(Fired { latencies, seconds: begun.elapsed().as_secs_f64() })
    }

    /// One connection's part.
    async fn share(&self, mut connection: Connection, first: Instant, end: End, pace: Pace) -> Result<Histogram> {
        let mut latencies = Histogram::default();
        let mut due = first;
        for sent in 0.. {
            if end.is_over(sent) {
                break;
            }
            let mut from = Instant::now();
            match pace {
                Pace::Every(interval) => {
                    if due <= from {
                        from = due;
                    } else {
                        // what the timer is late by is ours, not the answer's
                        sleep_until(due).await;
                        from = Instant::now();
                    }
                    due += interval;
                }
                Pace::Pause(pause) if sent > 0 => {
                    sleep_until(from + pause).await;
                    from = Instant::now();
                }
                Pace::Closed | Pace::Pause(_) => {}
            }
            let (status, body) = tokio::time::timeout(PATIENCE, connection.exchange(&self.request))
                .await
                .map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))??;
            latencies.record(from.elapsed());
            self.expected.check(status, body)?;
        }
        Ok(latencies)
    }
}

enum End {
    At(Instant),
    Count(usize),
}

impl End {
    fn is_over(&self, sent: usize) -> bool {
        match self {
            Self::At(time) => Instant::now() >= *time,
            Self::Count(count) => sent >= *count,
        }
    }
}

impl Expected {
    pub(crate) fn check(&self, status: u16, body: &[u8]) -> Result<()> {
        let good = match &self.body {
            Body::Is(expected) => body == expected,
            Body::Begins(expected) => body.starts_with(expected.as_bytes()),
        };
        if status == self.status && good {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
        Err(format!("answered {status} {text:?} instead of {} {:?}", self.status, self.body).into())
    }
}

/// One connection, and as much of HTTP as the answers here need.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that belong to the answer before.
    used: usize,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096), used: 0 })
    }

    /// Sends a request and gives status and body of its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.buffer.drain(..self.used);
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let text = std::str::from_utf8(&self.buffer[..head])?;
        let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or("an answer without a status")?;
        let length: usize = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, length)| length.trim().parse().ok())
            .ok_or("an answer without a length")?;
        while self.buffer.len() < head + length {
            self.more().await?;
        }
        self.used = head + length;
        Ok((status, &self.buffer[head..self.used]))
    }

    async fn more(&mut self) -> Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err("the connection was closed in the middle of an answer".into()),
            _ => Ok(()),
        }
    }
}
