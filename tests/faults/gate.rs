//! A gate in front of one server: it passes everything, but for the one command that it is told to
//! hold until it is told to let it go. What it holds has left its sender, who may be frozen since, and
//! has not reached the server.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::common::{Bed, wait_for};

/// The gate; it closes with the test that made it.
pub struct Gate {
    port: u16,
    state: Arc<State>,
}

struct State {
    /// The command to hold next.
    wanted: Mutex<Option<&'static str>>,
    held: AtomicBool,
    /// A permit for each command that may go.
    going: Semaphore,
    answered: AtomicBool,
}

impl Gate {
    /// Opens a gate to the primary.
    pub async fn to_primary(bed: &Bed) -> Self {
        let primary = bed.set().wait_primary().await.expect("a primary");
        let server = ("127.0.0.1", bed.set().port(primary).expect("a port"));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            wanted: Mutex::new(None),
            held: false.into(),
            going: Semaphore::new(0),
            answered: false.into(),
        });
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let asked = Arc::new(AtomicBool::new(false));
                tokio::spawn(commands(from_client, to_server, shared.clone(), asked.clone()));
                tokio::spawn(replies(from_server, to_client, shared.clone(), asked));
            }
        });
        Self { port, state }
    }

    /// The URI that leads through the gate.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// Holds the next command of this name.
    pub fn hold(&self, command: &'static str) {
        self.state.held.store(false, Ordering::SeqCst);
        self.state.answered.store(false, Ordering::SeqCst);
        *self.state.wanted.lock().expect("a lock") = Some(command);
    }

    /// Waits until a command is held.
    pub async fn holds(&self) {
        wait_for("a command at the gate", || async {
            self.state.held.load(Ordering::SeqCst).then_some(())
        })
        .await;
    }

    /// Lets the command that is held go, and holds the next one of this name.
    pub async fn pass_and_hold(&self, command: &'static str) {
        *self.state.wanted.lock().expect("a lock") = Some(command);
        self.state.held.store(false, Ordering::SeqCst);
        self.state.going.add_permits(1);
        wait_for("the server's answer", || async {
            self.state.answered.load(Ordering::SeqCst).then_some(())
        })
        .await;
        self.state.answered.store(false, Ordering::SeqCst);
    }

    /// Lets the command go, and waits until the server has answered it.
    pub async fn let_go(&self) {
        assert!(self.state.held.load(Ordering::SeqCst), "a command is held until now");
        assert!(!self.state.answered.load(Ordering::SeqCst), "the server has not seen it");
        self.state.going.add_permits(1);
        wait_for("the server's answer", || async {
            self.state.answered.load(Ordering::SeqCst).then_some(())
        })
        .await;
    }
}

async fn commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<State>,
    asked: Arc<AtomicBool>,
) {
    loop {
        let mut message = vec![0; 4];
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        let length = u32::from_le_bytes(message[..4].try_into().expect("four bytes"));
        message.resize(length as usize, 0);
        if from.read_exact(&mut message[4..]).await.is_err() {
            return;
        }
        if wants(&state, &message) {
            state.held.store(true, Ordering::SeqCst);
            let Ok(permit) = state.going.acquire().await else { return };
            permit.forget();
            asked.store(true, Ordering::SeqCst);
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// Whether this message is the command to hold; it is looked for no more then.
fn wants(state: &State, message: &[u8]) -> bool {
    // Header, flags, the kind of the first section, its length, and the type of its first field.
    const NAME_AT: usize = 16 + 4 + 1 + 4 + 1;
    let mut wanted = state.wanted.lock().expect("a lock");
    let found = wanted.is_some_and(|name| {
        let rest = message.get(NAME_AT..).unwrap_or_default();
        rest.strip_prefix(name.as_bytes()).is_some_and(|after| after.first() == Some(&0))
    });
    if found {
        *wanted = None;
    }
    found
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<State>,
    asked: Arc<AtomicBool>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        if asked.swap(false, Ordering::SeqCst) {
            state.answered.store(true, Ordering::SeqCst);
        }
        // The client may be frozen; its socket takes what a reply has.
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
