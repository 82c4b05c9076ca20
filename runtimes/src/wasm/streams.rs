//! What goes into an instance and comes out of it, all in memory: the event on stdin, the result on stdout, lines on stderr.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bus::presence::LogStream;
use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError, StreamResult},
};

use crate::{lock, output::Output};

/// Most bytes of one write; a guest may have the host make so many.
const CHUNK: usize = 64 << 10;

/// Where a stream of an instance leads to.
#[derive(Clone)]
pub(super) enum Sink {
    Result(Arc<Mutex<Printed>>),
    Lines(Arc<Mutex<Output>>, LogStream),
}

/// A result as far as it was printed.
#[derive(Default)]
pub(super) struct Printed {
    pub(super) bytes: BytesMut,
    /// How much was printed.
    pub(super) size: usize,
    /// Longest result.
    pub(super) limit: usize,
}

impl Sink {
    fn put(&self, bytes: &[u8]) -> Result<(), TooLong> {
        match self {
            Self::Lines(output, stream) => lock(output).hear(*stream, bytes),
            Self::Result(printed) => {
                let mut printed = lock(printed);
                printed.size += bytes.len();
                if printed.size > printed.limit {
                    return Err(TooLong);
                }
                printed.bytes.extend_from_slice(bytes);
            }
        }
        Ok(())
    }
}

/// Ends the instance: nothing that it still prints can be its result.
#[derive(Debug, thiserror::Error)]
#[error("the result is too long")]
struct TooLong;

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.put(&bytes).map_err(|error| StreamError::Trap(error.into()))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.put(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
