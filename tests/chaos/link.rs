//! A link between a daemon and a server that can be cut, made slow, or led elsewhere.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The link; whoever connects to its port gets to the server.
pub struct Link {
    port: u16,
    state: Arc<State>,
}

struct State {
    /// The server's port; 0 while the link is cut.
    server: AtomicU16,
    /// How long each piece of data is held up, in milliseconds.
    slow_ms: AtomicU64,
    /// Cancelled to cut what is connected.
    connected: Mutex<CancellationToken>,
    /// Connections that were cut, and pieces that were held up.
    hit: AtomicU64,
}

impl Link {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            server: server.into(),
            slow_ms: 0.into(),
            connected: Mutex::default(),
            hit: 0.into(),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let server = shared.server.load(Ordering::SeqCst);
                if server == 0 {
                    shared.hit.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let cut = shared.connected.lock().expect("a lock").clone();
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let state = shared.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = pass(from_client, to_server, &state) => {}
                        () = pass(from_server, to_client, &state) => {}
                        () = cut.cancelled() => { state.hit.fetch_add(1, Ordering::SeqCst); }
                    }
                });
            }
        });
        Self { port, state }
    }

    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// Where it leads.
    pub fn server(&self) -> u16 {
        self.state.server.load(Ordering::SeqCst)
    }

    /// Cuts what is connected, and leads elsewhere from now on; to nowhere with 0.
    pub fn lead_to(&self, server: u16) {
        self.state.server.store(server, Ordering::SeqCst);
        let mut connected = self.state.connected.lock().expect("a lock");
        std::mem::take(&mut *connected).cancel();
    }

    /// Holds each piece of data up for so long.
    pub fn slow(&self, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).expect("a short time");
        self.state.slow_ms.store(pause, Ordering::SeqCst);
    }

    /// How often a cut or a slow link was felt since the last time this was asked.
    pub fn hits(&self) -> u64 {
        self.state.hit.swap(0, Ordering::SeqCst)
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let slow_ms = state.slow_ms.load(Ordering::SeqCst);
        if slow_ms > 0 {
            state.hit.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(slow_ms)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
