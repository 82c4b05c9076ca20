//! A way to a server that can be made as bad as ways are.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
    time::sleep,
};

/// How the way is now.
#[derive(Debug, Clone, Copy, Default)]
pub struct Way {
    /// What the client sends goes nowhere, and nobody is told.
    pub up_blocked: bool,
    /// The same with what the server sends.
    pub down_blocked: bool,
    /// Each piece takes between this and twice as long.
    pub delay: Duration,
    /// Bytes that go through in a second; 0: all that come.
    pub rate: usize,
}

/// Forwards connections until it is dropped.
pub struct Proxy {
    address: String,
    way: watch::Sender<Way>,
    serving: AbortHandle,
}

impl Proxy {
    /// A good way to a server.
    pub async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (way, ways) = watch::channel(Way::default());
        let server = server.to_owned();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&server).await else { continue };
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                tokio::spawn(pump(from_client, to_server, ways.clone(), |way| way.up_blocked));
                tokio::spawn(pump(from_server, to_client, ways.clone(), |way| way.down_blocked));
            }
        });
        Self { address, way, serving: serving.abort_handle() }
    }

    /// `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub fn is(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut ways: watch::Receiver<Way>,
    blocked: fn(&Way) -> bool,
) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        // the way's end ends the pump
        let Ok(way) = ways.wait_for(|way| !blocked(way)).await.map(|way| *way) else { return };
        if !way.delay.is_zero() {
            sleep(way.delay + way.delay * (length % 10) as u32 / 10).await;
        }
        if way.rate > 0 {
            sleep(Duration::from_secs_f64(length as f64 / way.rate as f64)).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}
