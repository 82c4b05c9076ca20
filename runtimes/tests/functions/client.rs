//! The other side of the Runtime API, played by a test: a bootstrap that says its address and sleeps.

use std::{fs, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::*;
use runtimes::RuntimeKind;

pub(crate) const NEXT: &str = "/2018-06-01/runtime/invocation/next";

/// An instance whose process is the test.
pub(crate) struct Played {
    pub(crate) node: Node,
    pub(crate) address: String,
    pid: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status, and the type where it is an error.
    pub(crate) fn kind(&self) -> (u16, String) {
        (self.status, self.json()["errorType"].as_str().unwrap_or_default().to_owned())
    }
}

impl Played {
    pub(crate) async fn new(timeout: Duration) -> Self {
        let node = Node::new();
        let note = node.note().display().to_string();
        let code =
            format!("#!/bin/sh\necho $$ $AWS_LAMBDA_RUNTIME_API > {note}~\nmv {note}~ {note}\nexec sleep 1000\n");
        let node =
            node.of_with(RuntimeKind::Provided, "bootstrap", &code, |f| (f.concurrency, f.timeout) = (1, timeout));
        let said = until(|| fs::read_to_string(node.note()).ok()).await;
        let (pid, address) = said.trim().split_once(' ').unwrap();
        Self { node, address: address.to_owned(), pid: pid.to_owned() }
    }

    pub(crate) fn kill(&self) {
        kill_process(Pid::from_raw(self.pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }

    /// Sends bytes as they are and reads to the end; none when it is refused.
    pub(crate) async fn raw(&self, request: &[u8], half_close: bool) -> Option<Answer> {
        let mut stream = TcpStream::connect(&self.address).await.ok()?;
        stream.write_all(request).await.ok()?;
        if half_close {
            stream.shutdown().await.ok()?;
        }
        let mut answer = Vec::new();
        timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an answer").ok()?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head, body: answer[end + 4..].to_vec() })
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<Answer> {
        self.send_by("1.1", method, path, headers, body).await
    }

    pub(crate) async fn send_by(
        &self,
        http: &str,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Option<Answer> {
        let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
        let head = format!(
            "{method} {path} HTTP/{http}\r\nHost: {}\r\nConnection: close\r\n{length}{headers}\r\n",
            self.address
        );
        self.raw(&[head.as_bytes(), body].concat(), false).await
    }

    pub(crate) async fn next(&self) -> Answer {
        self.send("GET", NEXT, "", b"").await.unwrap()
    }

    /// Answers an invocation.
    pub(crate) async fn respond(&self, id: &str, headers: &str, body: &[u8]) -> Answer {
        self.send("POST", &response(id), headers, body).await.unwrap()
    }
}

pub(crate) fn response(id: &str) -> String {
    format!("/2018-06-01/runtime/invocation/{id}/response")
}
