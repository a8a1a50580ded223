//! A proxy that cuts the connection instead of passing a certain command on, or passes it on much later.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::common::{Bed, ceiling, wait_for};

/// The proxy in front of the primary; it ends with the test.
pub struct Cutter {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    wanted: Mutex<Option<&'static str>>,
    cuts: AtomicUsize,
    /// Whether what is cut off is on its way.
    delays: AtomicBool,
    arriving: Notify,
    answered: Notify,
}

impl Cutter {
    /// Begins to pass everything on.
    pub async fn to_primary(bed: &Bed) -> Self {
        let primary = bed.set().wait_primary().await.expect("a primary");
        let server = bed.set().port(primary).expect("a port");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                tokio::spawn(pass(client, server, shared.clone()));
            }
        });
        Self { port, state }
    }

    /// The URI that leads through it.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// Cuts the next command that contains these bytes.
    pub fn cut(&self, containing: &'static str) {
        *self.state.wanted.lock().expect("a lock") = Some(containing);
    }

    /// The same, but the server gets that command once it is let [arrive](Self::arrive).
    pub fn delay(&self, containing: &'static str) {
        self.state.delays.store(true, Ordering::SeqCst);
        self.cut(containing);
    }

    /// Lets the command arrive whose sender has been cut off, and waits until the server has answered it.
    pub async fn arrive(&self) {
        self.state.arriving.notify_one();
        let answered = tokio::time::timeout(ceiling(), self.state.answered.notified());
        answered.await.expect("an answer");
    }

    /// Waits until it has.
    pub async fn has_cut(&self) {
        wait_for("a command to be cut off", || async {
            (self.state.cuts.load(Ordering::SeqCst) > 0).then_some(())
        })
        .await;
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, state: Arc<State>) {
    let cut_off = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let replies = async {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        };
        let commands = async {
            loop {
                let mut message = vec![0; 4];
                if from_client.read_exact(&mut message).await.is_err() {
                    return None;
                }
                let length = u32::from_le_bytes(message[..4].try_into().expect("four bytes"));
                message.resize(length as usize, 0);
                if from_client.read_exact(&mut message[4..]).await.is_err() {
                    return None;
                }
                if wants(&state, &message) {
                    return Some(message);
                }
                if to_server.write_all(&message).await.is_err() {
                    return None;
                }
            }
        };
        // Either end closes both.
        tokio::select! {
            () = replies => None,
            cut_off = commands => cut_off,
        }
    };
    drop(client);
    let Some(message) = cut_off.filter(|_| state.delays.load(Ordering::SeqCst)) else { return };
    state.arriving.notified().await;
    server.write_all(&message).await.expect("sent");
    server.read_exact(&mut [0]).await.expect("answered");
    state.answered.notify_one();
}

fn wants(state: &State, message: &[u8]) -> bool {
    let mut wanted = state.wanted.lock().expect("a lock");
    let found = wanted
        .is_some_and(|text| message.windows(text.len()).any(|window| window == text.as_bytes()));
    if found {
        *wanted = None;
        state.cuts.fetch_add(1, Ordering::SeqCst);
    }
    found
}
