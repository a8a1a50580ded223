//! The task as a document in the `aviary` collection: made to be read in mongosh.

use bson::{Binary, Bson, DateTime, Document, doc};
use serde::{Deserialize, Serialize};

use super::state::TaskState;
use crate::ids::{JobId, TaskId, Token};

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Reads a split, writes blocks (or, in a map-only job that reads a snapshot, output).
    Map,
    /// Merges the blocks of one partition, writes output.
    Reduce,
    /// Puts the job's output in place.
    Publish,
}

impl TaskKind {
    /// The word in the database and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskKind::Map => "map",
            TaskKind::Reduce => "reduce",
            TaskKind::Publish => "publish",
        }
    }

    /// Every kind, in the order in which a job needs them.
    pub const ALL: [TaskKind; 3] = [TaskKind::Map, TaskKind::Reduce, TaskKind::Publish];
}

/// One task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// The name.
    #[serde(rename = "_id")]
    pub id: TaskId,
    /// What it does.
    pub kind: TaskKind,
    /// The shard the document lives on, whose worker runs it.
    pub shard: String,
    /// The job.
    pub job: JobId,
    /// The number of the job's plan it belongs to.
    pub plan: i32,
    /// The number of the split, or the partition.
    pub n: u32,
    /// Where it stands.
    pub state: TaskState,
    /// The job's priority, copied so that one index serves the claim.
    #[serde(default)]
    pub priority: i32,
    /// Not to be claimed before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime>,
    /// The documents to read (map tasks).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// Who holds the lease, or held it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The fence of the current lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// When the current lease began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased: Option<DateTime>,
    /// When the current lease ends unless renewed, by the server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime>,
    /// How often the task has been claimed: orders attempts for people.
    #[serde(default)]
    pub epoch: i64,
    /// Claims that count against the limit (a drained one does not).
    #[serde(default)]
    pub attempts: i32,
    /// Those of the attempts whose lease ran out, so that nobody knows what became of them.
    #[serde(default)]
    pub lost: i32,
    /// Documents or keys done so far by the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<i64>,
    /// Earlier attempts, oldest first.
    #[serde(default)]
    pub history: Vec<Document>,
    /// When it was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<DateTime>,
    /// What the committed attempt left behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// The last attempt's error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Document>,
    /// Why the task does not move, if something keeps it waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// What is published and how far that has come (publish tasks).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Publish>,
    /// Results that the target may hold by now (publish tasks that merge). It is noted before each piece is merged,
    /// and no later attempt lowers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<i64>,
}

/// Why a task or a job does not move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// For a person.
    pub why: String,
    /// Since when, by the server's clock.
    pub since: DateTime,
    /// How often the same has been met in a row.
    #[serde(default)]
    pub times: i64,
}

/// What a publish task puts in place. Every field is written behind the fence, so what a later attempt
/// reads here is what an earlier one has really done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Publish {
    /// The identity of the collection with the results. Whatever name it bears, this is the result; under
    /// its name another collection may appear.
    pub uuid: Bson,
    /// Results in it, as the committed tasks counted them.
    pub rows: i64,
    /// How far publishing has come.
    #[serde(flatten)]
    pub marks: Marks,
}

/// How far publishing has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Marks {
    /// The collection was found to hold as many results as it should. From here on a TTL index may thin it.
    #[serde(default)]
    pub counted: bool,
    /// The collection holds the values that the target is to have: `reduce` has nothing left to compute.
    #[serde(default)]
    pub completed: bool,
    /// The step that changes the target may have been taken, in part or whole.
    #[serde(default)]
    pub begun: bool,
}

impl Task {
    /// A task of a plan, written before its phase begins.
    pub fn planned(kind: TaskKind, job: &JobId, plan: i32, n: u32, shard: &str) -> Self {
        let id = match kind {
            TaskKind::Map => TaskId::map(job, plan, n),
            TaskKind::Reduce => TaskId::reduce(job, plan, n),
            TaskKind::Publish => TaskId::publish(job, plan),
        };
        Self {
            id,
            kind,
            shard: shard.to_owned(),
            job: job.clone(),
            plan,
            n,
            state: TaskState::Planned,
            priority: 0,
            not_before: None,
            split: None,
            worker: None,
            token: None,
            leased: None,
            until: None,
            epoch: 0,
            attempts: 0,
            lost: 0,
            progress: None,
            history: Vec::new(),
            finished: None,
            result: None,
            error: None,
            waiting: None,
            publish: None,
            reached: None,
        }
    }

    /// Results that the target may hold by now at most: none before merging has begun. What a publisher of an older
    /// version does not note before it merges is left out.
    pub fn merged_at_most(&self) -> i64 {
        let begun = self.publish.as_ref().is_some_and(|publish| publish.marks.begun);
        if begun { self.reached.max(self.progress).unwrap_or(0) } else { 0 }
    }
}

/// A piece of the input: ranges of one of its indexes. Without a range, all of it.
///
/// Unlike a comparison in a query, a range of an index spans every type of value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// The index that the ranges are of.
    #[serde(default, skip_serializing_if = "Document::is_empty")]
    pub by: Document,
    /// The name of that index where it is along a shard key; it compares text byte by byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<String>,
    /// The ranges, none of which overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
    /// Whether it is to be read from all shards, through the router: only there are documents of
    /// several shards in one order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_all_shards: bool,
    /// The member whose own order of its documents the ranges go by ([`NATURAL`]). Only there do they mean
    /// anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// The pseudo-index of a member's own order of its documents: that of their record ids, which differ between
/// members. Servers refuse bounds of it, so that a program which does not know of [`Split::member`] reads nothing
/// rather than everything.
pub const NATURAL: &str = "$natural";

impl Split {
    /// Documents between two records of a member: those after the first, up to and including the last. A missing
    /// bound is open.
    pub fn natural(member: &str, after: Option<i64>, last: Option<i64>) -> Self {
        let bound = |record: Option<i64>| record.map(|record| doc! { NATURAL: record });
        Self {
            by: doc! { NATURAL: 1 },
            ranges: vec![Range { min: bound(after), max: bound(last) }],
            member: Some(member.to_owned()),
            ..Self::default()
        }
    }
}

/// Whether a field of an index is ordered from its greatest value to its least.
pub fn goes_down(direction: &Bson) -> bool {
    match direction {
        Bson::Int32(n) => *n < 0,
        Bson::Int64(n) => *n < 0,
        Bson::Double(n) => *n < 0.0,
        _ => false,
    }
}

/// `min ≤ key < max` in index order, `min < record ≤ max` in [`NATURAL`] order. A missing bound is open.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The first key, included.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub min: Option<Document>,
    /// The first key beyond.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub max: Option<Document>,
}

/// What a committed attempt left behind: the manifest, and its counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The attempt's token, which is part of its blocks' names.
    pub token: Token,
    /// Per partition that got anything: how many runs of how many blocks.
    #[serde(default)]
    pub parts: Vec<PartManifest>,
    /// The attempt's counters.
    pub counters: Document,
}

/// The blocks that one map task wrote for one partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartManifest {
    /// The partition.
    pub p: u32,
    /// Blocks in each sorted run. Left out where `apart` says how many there are, so that a program that does
    /// not know of it cannot take the part for an empty one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<u32>,
    /// How many runs there are if they are named in a document among the blocks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub apart: u32,
    /// Records in all of them.
    pub records: i64,
    /// Bytes of all of them as stored.
    pub bytes: i64,
    /// The blocks themselves, where a task left so little behind that they are no documents of their own. Then `apart`
    /// says how many runs there are, as for runs that are named elsewhere. They go once the job is cleaned up after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptBlock>,
}

/// A block that lies in its task's document. Its fields are those of a block's own document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptBlock {
    /// The run.
    pub run: u32,
    /// The place in the run.
    pub seq: u32,
    /// Records that end in it.
    pub records: u32,
    /// Length of the payload before compression.
    pub raw_bytes: u32,
    /// The checksum of the fields and the data.
    pub crc32: u32,
    /// How the payload is stored.
    pub codec: u8,
    /// The bytes.
    pub data: Binary,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}
