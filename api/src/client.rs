//! The other end of the socket: what the command line asks a node with.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Incoming, client::conn::http1, header::AUTHORIZATION};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{key, problem::Problem, socket};

/// A way to ask the node of one data folder.
#[derive(Debug, Clone)]
pub struct Client {
    data: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("no fnbus is running on the data folder {data}")]
    NotRunning { data: PathBuf },
    #[error("the socket {path} cannot be opened: {error}")]
    Socket { path: PathBuf, error: io::Error },
    #[error("{message}")]
    Refused { code: String, message: String },
    #[error("the node went away in the middle of its answer")]
    Interrupted,
    #[error("the node's answer was not understood; is it another version of fnbus? ({reason})")]
    NotUnderstood { reason: String },
}

/// An answer that comes line by line.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
    ended: bool,
}

impl Client {
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Asks with a structured question and reads one JSON value.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        question: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let body = self.send(Method::GET, &with_question(path, question), Bytes::new()).await?;
        read(body).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: Bytes) -> Result<T, ClientError> {
        read(self.send(Method::POST, path, body).await?).await
    }

    pub async fn post_json<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> Result<T, ClientError> {
        self.post(path, serde_json::to_vec(value).unwrap_or_default().into()).await
    }

    /// Asks for a stream of JSON lines.
    pub async fn lines(&self, path: &str, question: &impl Serialize) -> Result<Lines, ClientError> {
        let body = self.send(Method::GET, &with_question(path, Some(question)), Bytes::new()).await?;
        Ok(Lines { body, buffer: BytesMut::new(), ended: false })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, ClientError> {
        let socket = socket::path(&self.data);
        let stream = UnixStream::connect(&socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { data: self.data.clone() }
            }
            _ => ClientError::Socket { path: socket.clone(), error },
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| ClientError::Interrupted)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "fnbus")
            .header(AUTHORIZATION, key::header(&self.data))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::NotUnderstood { reason: error.to_string() })?;
        let response = sender.send_request(request).await.map_err(|_| ClientError::Interrupted)?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(|_| ClientError::Interrupted)?.to_bytes();
        Err(match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => ClientError::Refused { code: problem.code, message: problem.message },
            Err(_) => ClientError::NotUnderstood { reason: format!("{status}: {}", String::from_utf8_lossy(&bytes)) },
        })
    }
}

impl Lines {
    /// The next line; none at the end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return parse(&line).map(Some);
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(_)) => return Err(ClientError::Interrupted),
                None => self.ended = true,
            }
        }
    }
}

fn with_question(path: &str, question: Option<&impl Serialize>) -> String {
    let Some(question) = question else { return path.to_owned() };
    let json = serde_json::to_string(question).unwrap_or_default();
    format!("{path}?q={}", utf8_percent_encode(&json, NON_ALPHANUMERIC))
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, ClientError> {
    let bytes = body.collect().await.map_err(|_| ClientError::Interrupted)?.to_bytes();
    parse(&bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::NotUnderstood { reason: error.to_string() })
}
