//! What speaks the protocol and is no MongoDB server: a stub that answers as such products do.

use std::net::SocketAddr;

use bson::{Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::run;

const OP_REPLY: i32 = 1;
const OP_QUERY: i32 = 2_004;
const OP_MSG: i32 = 2_013;
const HEADER_BYTES: usize = 16;

/// How a product differs from a server.
#[derive(Debug, Clone, Copy)]
struct Product {
    wire_version: i32,
    /// Whether a snapshot read fails; otherwise it is answered like any other read.
    refuses_snapshots: bool,
}

impl Product {
    fn answer(self, command: &Document, address: SocketAddr) -> Document {
        let name = command.keys().next().map(String::as_str).unwrap_or_default();
        match name {
            "hello" | "isMaster" | "ismaster" => doc! {
                "ismaster": true,
                "isWritablePrimary": true,
                "helloOk": true,
                "setName": "rs0",
                "hosts": [address.to_string()],
                "primary": address.to_string(),
                "me": address.to_string(),
                "maxBsonObjectSize": 16_777_216,
                "maxMessageSizeBytes": 48_000_000,
                "maxWriteBatchSize": 100_000,
                "logicalSessionTimeoutMinutes": 30,
                "minWireVersion": 0,
                "maxWireVersion": self.wire_version,
                "ok": 1.0,
            },
            "find" if self.refuses_snapshots && command.contains_key("readConcern") => doc! {
                "ok": 0.0, "code": 303, "errmsg": "Feature not supported: snapshot", "codeName": "NotSupported",
            },
            "find" => {
                doc! { "cursor": { "id": 0_i64, "ns": "test.aviary", "firstBatch": [] }, "ok": 1.0 }
            }
            "endSessions" => doc! { "ok": 1.0 },
            other => {
                let said = format!("no such command: {other}");
                doc! { "ok": 0.0, "code": 59, "errmsg": said, "codeName": "CommandNotFound" }
            }
        }
    }

    /// Listens until the end of the test.
    async fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut stream = stream;
                    // It ends with its client.
                    while self.one(&mut stream, address).await.is_some() {}
                });
            }
        });
        address
    }

    /// Answers one message; nothing once the client is gone.
    async fn one(self, stream: &mut TcpStream, address: SocketAddr) -> Option<()> {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header).await.ok()?;
        let field = |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
        let (length, id, code) = (field(0), field(4), field(12));
        let mut body = vec![0; usize::try_from(length).ok()? - HEADER_BYTES];
        stream.read_exact(&mut body).await.ok()?;
        let document = match code {
            // Flags; the collection's name and its zero; two numbers.
            OP_QUERY => body[4..].iter().position(|byte| *byte == 0)? + 4 + 1 + 8,
            // Flags, and the kind of the section.
            _ => 5,
        };
        let command = Document::from_reader(&body[document..]).ok()?;
        let mut answer = Vec::new();
        match code {
            OP_QUERY => answer.extend([[0; 16].as_slice(), &1_i32.to_le_bytes()].concat()),
            _ => answer.extend([0; 5]),
        }
        answer.extend(bson::serialize_to_vec(&self.answer(&command, address)).ok()?);
        let length = i32::try_from(HEADER_BYTES + answer.len()).ok()?;
        let code = if code == OP_QUERY { OP_REPLY } else { OP_MSG };
        let header = [length, 0, id, code].map(i32::to_le_bytes).concat();
        stream.write_all(&[header, answer].concat()).await.ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_read_at_a_cluster_time_is_refused_at_once_whatever_version_it_gives_itself() {
    for (product, words) in [
        // As Amazon DocumentDB 5.0.
        (Product { wire_version: 13, refuses_snapshots: true }, "Feature not supported"),
        // As products that do not mind what they do not know.
        (Product { wire_version: 17, refuses_snapshots: false }, "name no cluster time"),
        // One that is too old besides.
        (Product { wire_version: 9, refuses_snapshots: true }, "name no cluster time"),
    ] {
        let uri = format!("mongodb://{}/test", product.serve().await);
        for verb in ["init", "worker", "coordinator", "list"] {
            let ran = run(&[verb], &[("AVIARY_URI".into(), uri.clone())]).await;
            assert_eq!(ran.code, 8, "{verb}, {product:?}: {ran:?}");
            for word in ["is not a MongoDB server", "atClusterTime", words, "5.0 or newer", "Atlas"]
            {
                assert!(
                    ran.stderr.contains(word),
                    "{word:?} is missing, {verb}, {product:?}: {ran:?}"
                );
            }
        }
    }
}
