//! Documents as somebody would write them who may write to Aviary's own collections and means harm. They are made of an
//! honest job's, so that they look right to the version that has written that one.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses its own part of this")]

use aviary_testcontainers::Managed;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};

use crate::common::Bed;

/// What forgeries are made of.
#[derive(Debug, Clone, Default)]
pub struct Forger {
    /// An honest job that has ended.
    pub job: Document,
    /// Its map task.
    pub task: Document,
}

impl Forger {
    /// Copies the only job of a deployment, which has ended.
    pub async fn learn(bed: &Bed) -> Self {
        let of = async |kind: &str| {
            let found = bed.coll("aviary").find_one(doc! { "kind": kind }).await;
            found.expect("asked").expect("it is there")
        };
        Self { job: of("job").await, task: of("map").await }
    }

    /// The shard that documents of the job are on.
    pub fn shard(&self) -> &str {
        self.job.get_str("shard").expect("a shard")
    }

    /// The job as it was while it was at work, under another id.
    pub fn at_work(&self, more: Document) -> Document {
        let mut job = self.job.clone();
        for gone in ["finished", "counters", "publish", "request"] {
            job.remove(gone);
        }
        job.extend(
            doc! { "_id": fresh(), "cleaned": false, "role": 0_i64, "created": DateTime::now() },
        );
        job.extend(more);
        job
    }

    /// The job as it was before anybody had looked at it, under another id.
    pub fn submitted(&self) -> Document {
        let mut job = self.job.clone();
        for gone in ["started", "finished", "snapshot", "publish", "counters", "reduce_on"] {
            job.remove(gone);
        }
        let id = fresh();
        job.extend(doc! {
            "_id": &id, "state": "submitted", "plan": 0, "map_tasks": 0_i64, "reduce_tasks": 0_i64, "role": 0_i64,
            "cleaned": false,
        });
        let spec = job.get_document_mut("spec").unwrap();
        spec.insert("partitions", 1);
        spec.get_document_mut("output").unwrap().insert("collection", format!("out-{id}"));
        job
    }

    /// A ready map task of another job.
    pub fn ready(&self, job: &str) -> Document {
        let mut task = self.task.clone();
        for gone in ["result", "finished", "history", "token", "until", "lost", "worker", "leased"]
        {
            task.remove(gone);
        }
        task.extend(doc! {
            "_id": format!("{job}/map/1.00000"), "job": job, "state": "ready", "attempts": 0, "epoch": 0_i64,
        });
        task
    }

    /// A job that seems to have mapped already, what its map task claims to have written, and the reduce task that
    /// reads it.
    pub fn reducing(&self, runs: &[i64]) -> Vec<Document> {
        let mut job = self.submitted();
        let id = id_of(&job);
        job.extend(doc! {
            "state": "reducing", "plan": 1, "map_tasks": 1_i64, "reduce_tasks": 1_i64,
            "snapshot": bson::Timestamp { time: 1, increment: 1 },
        });
        let mut map = self.ready(&id);
        let part = doc! { "p": 0_i64, "runs": runs, "records": i64::MAX, "bytes": i64::MAX };
        map.extend(
            doc! { "state": "done", "result": { "token": "t", "parts": [part], "counters": {} } },
        );
        let mut reduce = self.ready(&id);
        reduce.remove("split");
        reduce.extend(doc! { "_id": format!("{id}/reduce/1.00000"), "kind": "reduce" });
        vec![job, map, reduce]
    }

    /// A block of such a job with one record, whose key is nested as deep as fits, under the right checksum.
    pub fn block(&self, job: &str) -> Document {
        let mut payload = Vec::new();
        let key = [&[3][..], &nested(150_000)].concat();
        let value = b"\x10\x01\0\0\0";
        varint(value.len() as u64 * 2 + 1, &mut payload);
        varint(key.len() as u64, &mut payload);
        payload.extend(key);
        payload.extend_from_slice(value);
        let data = [&[0xA5, 1, 0][..], &payload].concat();
        let (seq, records, raw_bytes, codec) = (0_u32, 1_u32, payload.len() as u32, 0_u8);
        let mut hasher = crc32fast::Hasher::new();
        for number in [seq, records, raw_bytes] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&[codec]);
        hasher.update(&data);
        doc! {
            "_id": format!("{job}/p0000/00000/t/0000.00000"), "shard": self.shard(), "job": job, "records": 1_i64,
            "raw_bytes": i64::from(raw_bytes), "crc32": i64::from(hasher.finalize()), "codec": 0, "data": binary(data),
        }
    }
}

/// The part of a job that says what it does.
pub fn spec(job: &mut Document) -> &mut Document {
    job.get_document_mut("spec").unwrap()
}

/// The part that says what it may use.
pub fn limits(job: &mut Document) -> &mut Document {
    spec(job).get_document_mut("limits").unwrap()
}

/// An id that no job has.
pub fn fresh() -> String {
    bson::oid::ObjectId::new().to_hex()
}

/// A document's id.
pub fn id_of(document: &Document) -> String {
    document.get_str("_id").unwrap().to_owned()
}

/// Bytes as a document holds them.
pub fn binary(bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })
}

/// A collection's identity.
pub async fn uuid_of(bed: &Bed, db: &str, name: &str) -> Bson {
    let list = doc! { "listCollections": 1, "filter": { "name": name } };
    let listed = bed.client.database(db).run_command(list).await.unwrap();
    let first = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
    let info = first[0].as_document().unwrap().get_document("info").unwrap();
    info.get("uuid").unwrap().clone()
}

/// The most memory that a process ever had, in MiB.
pub fn peak_mb(daemon: &Managed) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Values of many types.
pub fn odd() -> Vec<Bson> {
    vec![
        Bson::Null,
        Bson::Int32(i32::MAX),
        Bson::Int64(i64::MIN),
        Bson::Double(f64::NAN),
        Bson::String("x".into()),
        Bson::Array(vec![Bson::Int32(1)]),
        Bson::Document(doc! { "a": { "b": 1 } }),
        Bson::Boolean(true),
        Bson::MinKey,
    ]
}

/// The paths of all fields of a document, those of documents in it too.
pub fn paths(document: &Document, prefix: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (name, value) in document {
        let path = [prefix, std::slice::from_ref(name)].concat();
        if let Bson::Document(inner) = value {
            found.extend(paths(inner, &path));
        }
        found.push(path);
    }
    found
}

/// Sets the field that a path leads to.
pub fn set(document: &mut Document, path: &[String], value: Bson) {
    match path {
        [name] => {
            document.insert(name.clone(), value);
        }
        [name, rest @ ..] => set(document.get_document_mut(name).unwrap(), rest, value),
        [] => {}
    }
}

/// A key of documents in documents, deeper than any server would store them as such.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = b"\x05\0\0\0\0".to_vec();
    for _ in 0..depth {
        let mut outer = i32::try_from(bytes.len() + 8).unwrap().to_le_bytes().to_vec();
        outer.extend_from_slice(b"\x03a\0");
        outer.append(&mut bytes);
        outer.push(0);
        bytes = outer;
    }
    bytes
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}
