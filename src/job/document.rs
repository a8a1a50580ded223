//! The job as a document in the `aviary` collection: made to be read in mongosh.

use bson::{Bson, DateTime, Document, Timestamp};
use serde::{Deserialize, Serialize};

use super::requires;
use super::spec::JobSpec;
use super::state::JobState;
use crate::ids::JobId;
use crate::task::Waiting;

/// One job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The id.
    #[serde(rename = "_id")]
    pub id: JobId,
    /// Always `job`.
    pub kind: String,
    /// The shard the document lives on.
    pub shard: String,
    /// Where the job stands.
    pub state: JobState,
    /// Who asked, as they called themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A label for finding jobs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The request that asked for it; older versions' jobs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestRef>,
    /// Of a client's jobs, those with a higher number go first.
    #[serde(default)]
    pub priority: i32,
    /// The level that it takes to do the job; nothing is every version's.
    #[serde(default, skip_serializing_if = "is_none", deserialize_with = "requires::understood")]
    pub requires: i32,
    /// What was asked for.
    pub spec: JobSpec,
    /// When the coordinator wrote the job.
    pub created: DateTime,
    /// When a coordinator took it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<DateTime>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<DateTime>,
    /// When it stopped, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<DateTime>,
    /// The cluster time at which the input is read; also the functions' clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Timestamp>,
    /// The number of the plan that counts. A coordinator that crashes while it plans leaves tasks
    /// of an older number behind, which nobody claims.
    #[serde(default)]
    pub plan: i32,
    /// Map tasks of the plan.
    #[serde(default)]
    pub map_tasks: u32,
    /// Reduce tasks of the plan.
    #[serde(default)]
    pub reduce_tasks: u32,
    /// Whether the one map task also reduces, and writes the results itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_task: bool,
    /// Where the partitions are reduced: partition `p` on the `p`-th of these shards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reduce_on: Vec<String>,
    /// Bytes of input as the server estimated them when the job was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<i64>,
    /// Documents of input as the server estimated them when the job was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_documents: Option<i64>,
    /// The identity of the input collection when the job was planned: under its name another one may appear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_uuid: Option<Bson>,
    /// The collation that the input collection has by itself, unless it is the simple one or the job has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_collation: Option<Document>,
    /// The member whose own order of the input's documents the plan's splits go by; none where they are ranges of an
    /// index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_from: Option<String>,
    /// The number of a plan by which the input cannot be read any more: the job is to be planned anew if it still is the
    /// job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_lost: Option<i32>,
    /// Whether the input is to be cut along an index, whatever else could be: a member could not be read from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_index: bool,
    /// Where the input's database was then, if a cluster keeps the input there whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_place: Option<Document>,
    /// Sums over all committed tasks, once the job has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Document>,
    /// The identity of the collection that holds the results, once they are complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Results>,
    /// The epoch of the coordinator's role that moves the job: one of an older epoch can move it no more.
    #[serde(default)]
    pub role: i64,
    /// Whether a person wants the job to end while it publishes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel: bool,
    /// Why the job does not move, if something keeps the coordinator waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Why the job failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// Whether everything the job no longer needs is gone.
    #[serde(default)]
    pub cleaned: bool,
}

impl Job {
    /// Whether what map tasks emit goes through the shuffle, rather than being the results.
    pub fn is_shuffled(&self) -> bool {
        self.reduce_tasks > 0 || self.one_task
    }

    /// A new job, of which nothing has been done.
    pub fn new(id: JobId, shard: &str, spec: JobSpec, created: DateTime) -> Self {
        Self {
            id,
            kind: "job".into(),
            shard: shard.to_owned(),
            state: JobState::Submitted,
            client: None,
            tag: None,
            request: None,
            priority: 0,
            requires: requires::level_of(&spec),
            spec,
            created,
            started: None,
            finished: None,
            stopped: None,
            snapshot: None,
            plan: 0,
            map_tasks: 0,
            reduce_tasks: 0,
            one_task: false,
            reduce_on: Vec::new(),
            input_bytes: None,
            input_documents: None,
            input_uuid: None,
            input_collation: None,
            read_from: None,
            plan_lost: None,
            by_index: false,
            input_place: None,
            counters: None,
            publish: None,
            role: 0,
            cancel: false,
            waiting: None,
            error: None,
            cleaned: false,
        }
    }

    /// The shard that reduces a partition; on a replica set, the set.
    pub fn reducing_shard(&self, partition: u32) -> &str {
        let at = usize::try_from(partition).ok().and_then(|p| self.reduce_on.get(p));
        at.unwrap_or(&self.shard)
    }
}

fn is_none(level: &i32) -> bool {
    *level == 0
}

/// The request that a job came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRef {
    /// The collection that it lies in, which says whose it is.
    pub collection: String,
    /// Its `_id`.
    pub id: String,
}

/// A job's complete results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The identity of the collection that holds them: under its name another one may appear.
    pub uuid: Bson,
}

/// Why a job failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobError {
    /// A stable word.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The task that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}
