//! A gate between one process and the server. It counts the commands that pass, and at one of them
//! does what it was told to: cut the connection, kill the process, or hold the command while the
//! process is frozen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aviary_testcontainers::Managed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::label::Request;

/// What happens to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The connection breaks before the server sees it.
    Lost,
    /// The server runs it, and the connection breaks before its reply.
    ReplyLost,
    /// Its sender is killed, and the server never sees it.
    KilledBefore,
    /// The server runs it, and its sender is killed.
    KilledAfter,
    /// It is on its way while its sender is frozen; it arrives, and the sender goes on, after others
    /// have done the work.
    Frozen,
}

impl Fault {
    pub const ALL: [Self; 5] =
        [Self::Lost, Self::ReplyLost, Self::KilledBefore, Self::KilledAfter, Self::Frozen];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::ReplyLost => "reply-lost",
            Self::KilledBefore => "killed-before",
            Self::KilledAfter => "killed-after",
            Self::Frozen => "frozen",
        }
    }

    pub fn kills(self) -> bool {
        matches!(self, Self::KilledBefore | Self::KilledAfter)
    }
}

/// A command: the so-many-th of its label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Point {
    pub label: String,
    pub occurrence: u32,
}

impl Point {
    /// Whether the server is the same after the command as before it.
    pub fn reads(&self) -> bool {
        const READS: [&str; 5] = ["find", "getMore", "listCollections", "listIndexes", "explain"];
        let command = self.label.split(' ').next().unwrap_or_default();
        // Other aggregations may write.
        READS.contains(&command) || self.label.starts_with("aggregate aviary [")
    }

    /// Whether a fault happens here that no other does as well: a read whose reply is lost is one that was lost, and
    /// it does not matter when its sender is killed.
    pub fn tells(&self, fault: Fault) -> bool {
        !self.reads() || !matches!(fault, Fault::ReplyLost | Fault::KilledAfter)
    }
}

/// Where the gate does what.
#[derive(Debug, Clone)]
pub struct Trap {
    pub point: Point,
    pub fault: Fault,
}

pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
    closing: CancellationToken,
}

struct Shared {
    trap: Option<Trap>,
    process: watch::Sender<Option<Arc<Managed>>>,
    /// Held by who stops and continues processes, so that nobody thaws what the gate froze.
    signals: Arc<tokio::sync::Mutex<()>>,
    seen: Mutex<Seen>,
    passed: AtomicUsize,
    fired: watch::Sender<bool>,
    going: CancellationToken,
    /// What was held has been answered, or its connection is gone.
    answered: watch::Sender<bool>,
}

#[derive(Default)]
struct Seen {
    trace: Vec<Point>,
    counts: HashMap<String, u32>,
}

/// What a message calls for.
enum Step {
    Pass,
    Fire(Fault, i32),
}

impl Gate {
    /// Opens a gate to a server.
    pub async fn open(
        server: u16,
        trap: Option<Trap>,
        signals: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            trap,
            process: watch::Sender::new(None),
            signals,
            seen: Mutex::default(),
            passed: AtomicUsize::new(0),
            fired: watch::Sender::new(false),
            going: CancellationToken::new(),
            answered: watch::Sender::new(false),
        });
        let closing = CancellationToken::new();
        let (state, closed) = (shared.clone(), closing.clone());
        tokio::spawn(async move {
            loop {
                let client = tokio::select! {
                    client = listener.accept() => client,
                    () = closed.cancelled() => return,
                };
                let Ok((client, _)) = client else { continue };
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                tokio::spawn(connection(client, server, state.clone(), closed.child_token()));
            }
        });
        Self { port, shared, closing }
    }

    /// The URI that leads through the gate.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port)
    }

    /// Says whose commands they are.
    pub fn of(&self, process: Arc<Managed>) {
        self.shared.process.send_replace(Some(process));
    }

    /// The commands so far.
    pub fn trace(&self) -> Vec<Point> {
        self.shared.seen.lock().expect("a lock").trace.clone()
    }

    /// How many commands have passed, whatever they were.
    pub fn passed(&self) -> usize {
        self.shared.passed.load(Ordering::SeqCst)
    }

    pub fn has_fired(&self) -> bool {
        *self.shared.fired.borrow()
    }

    /// Waits until the gate has done what it was told to.
    pub async fn fired(&self) {
        let mut fired = self.shared.fired.subscribe();
        fired.wait_for(|fired| *fired).await.expect("the gate is there");
    }

    /// Whether its process is frozen over a command.
    pub fn is_holding(&self) -> bool {
        let freezes = self.shared.trap.as_ref().is_some_and(|trap| trap.fault == Fault::Frozen);
        freezes && self.has_fired() && !self.shared.going.is_cancelled()
    }

    /// The process that is behind it.
    pub fn pid(&self) -> Option<u32> {
        self.shared.process.borrow().as_ref().map(|process| process.pid())
    }

    /// Lets go of the command that is held, and waits until the server has answered it.
    pub async fn let_go(&self) {
        self.shared.going.cancel();
        let mut answered = self.shared.answered.subscribe();
        answered.wait_for(|answered| *answered).await.expect("the gate is there");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Shared {
    fn step(&self, message: &[u8]) -> Step {
        let Some(request) = Request::parse(message) else { return Step::Pass };
        self.passed.fetch_add(1, Ordering::SeqCst);
        let Some(label) = request.label() else { return Step::Pass };
        let mut seen = self.seen.lock().expect("a lock");
        let count = seen.counts.entry(label.clone()).or_default();
        *count += 1;
        let point = Point { label, occurrence: *count };
        let here = self.trap.as_ref().filter(|trap| trap.point == point);
        let step = here.map_or(Step::Pass, |trap| Step::Fire(trap.fault, request.id));
        seen.trace.push(point);
        step
    }

    /// The sender of the commands, which may connect before it is named.
    async fn process(&self) -> Arc<Managed> {
        let mut named = self.process.subscribe();
        let named = named.wait_for(Option::is_some).await.expect("the gate is there");
        named.clone().expect("it is named")
    }

    fn fire(&self) {
        self.fired.send_replace(true);
    }
}

/// Passes messages both ways until one side or the gate closes.
async fn connection(
    client: TcpStream,
    server: TcpStream,
    shared: Arc<Shared>,
    cut: CancellationToken,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // The request whose reply is waited for; 0 is none.
    let awaited = Arc::new(AtomicI32::new(0));
    tokio::select! {
        () = requests(from_client, to_server, &shared, &awaited) => {}
        () = replies(from_server, to_client, &shared, &awaited) => {}
        () = cut.cancelled() => {}
    }
    if awaited.load(Ordering::SeqCst) != 0 {
        shared.fire();
        shared.answered.send_replace(true);
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    awaited: &AtomicI32,
) {
    while let Some(message) = next(&mut from).await {
        if let Step::Fire(fault, id) = shared.step(&message) {
            match fault {
                Fault::Lost => {
                    shared.fire();
                    return;
                }
                Fault::KilledBefore => {
                    let _ = shared.process().await.kill();
                    shared.fire();
                    return;
                }
                Fault::ReplyLost | Fault::KilledAfter => awaited.store(id, Ordering::SeqCst),
                Fault::Frozen => {
                    awaited.store(id, Ordering::SeqCst);
                    let signals = shared.signals.lock().await;
                    let _ = shared.process().await.freeze();
                    shared.fire();
                    drop(signals);
                    shared.going.cancelled().await;
                }
            }
        }
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    awaited: &AtomicI32,
) {
    while let Some(message) = next(&mut from).await {
        let answers = i32::from_le_bytes(message[8..12].try_into().expect("four bytes"));
        if answers != 0 && awaited.load(Ordering::SeqCst) == answers {
            match shared.trap.as_ref().map(|trap| trap.fault) {
                Some(Fault::KilledAfter) => {
                    let _ = shared.process().await.kill();
                    return;
                }
                Some(Fault::ReplyLost) => return,
                _ => {
                    awaited.store(0, Ordering::SeqCst);
                    shared.answered.send_replace(true);
                }
            }
        }
        // The process may be frozen; its socket takes what a reply has.
        if to.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// The next message, whole.
async fn next(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    const HEADER: usize = 16;
    let mut message = vec![0; 4];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_le_bytes(message[..4].try_into().expect("four bytes")) as usize;
    if length < HEADER {
        return None;
    }
    message.resize(length, 0);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}
