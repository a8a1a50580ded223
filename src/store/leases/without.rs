//! What is done to tasks by who holds no lease on them: the coordinator, and a reducer that misses blocks.

use bson::doc;

use super::expressions::{closed_attempt, lost};
use crate::config;
use crate::error::Result;
use crate::ids::{TaskId, Token};
use crate::store::Store;
use crate::store::claims::{has_room, well_typed};
use crate::store::error::Action;
use crate::task::state::TaskEvent;
use crate::task::{TaskKind, TaskState};

impl Store {
    /// Sends a committed map task back because blocks of its attempt `token` are gone or damaged.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
    pub async fn reopen_lost(&self, task: &TaskId, shard: &str, token: &Token) -> Result<bool> {
        let sources: Vec<&str> = TaskState::sources_of(TaskEvent::BlocksLost)
            .into_iter()
            .map(TaskState::as_str)
            .collect();
        let outcome = self
            .aviary()
            .update_one(
                doc! {
                    "_id": task,
                    "shard": shard,
                    "state": { "$in": sources },
                    "result.token": token,
                },
                doc! {
                    "$set": { "state": TaskState::Ready.as_str(), "attempts": 0, "lost": 0 },
                    "$unset": { "result": "", "finished": "" },
                },
            )
            .await
            .action("send a map task back")?;
        Ok(outcome.matched_count == 1)
    }

    /// Gives up leased tasks whose lease ran out once too often. A publish task is given up by the next worker
    /// that claims it, once it has disarmed the one before.
    ///
    /// A shard that is away holds up its own tasks and no others.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store) when no shard can be asked.
    pub async fn quarantine_exhausted(&self) -> Result<u64> {
        let update = vec![
            doc! { "$set": {
                "state": TaskState::Quarantined.as_str(),
                "lost": { "$add": [lost(), 1] },
                "error": { "code": "worker_lost", "message": {
                    "$concat": [
                        "the worker vanished in ",
                        { "$toString": { "$add": [lost(), 1] } },
                        " attempts, the last time ",
                        { "$ifNull": ["$worker", "?"] },
                    ],
                } },
                "history": closed_attempt("lost", None),
            } },
            doc! { "$unset": ["token", "until"] },
        ];
        let (mut given_up, mut answered, mut failed) = (0, false, None);
        for shard in self.known_shards() {
            let mut exhausted = doc! {
                "kind": { "$in": [TaskKind::Map.as_str(), TaskKind::Reduce.as_str()] },
                "shard": shard,
                "state": TaskState::Leased.as_str(),
                "lost": { "$gte": config::LOST_MAX - 1 },
                "$expr": { "$and": [{ "$lt": ["$until", "$$NOW"] }, has_room()] },
            };
            exhausted.extend(well_typed());
            match self.aviary().update_many(exhausted, update.clone()).await {
                Ok(outcome) => {
                    answered = true;
                    given_up += outcome.modified_count;
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !answered => Err(error).action("give up exhausted tasks"),
            Some(error) => {
                tracing::debug!(%error, "a shard could not be asked for exhausted tasks");
                Ok(given_up)
            }
            None => Ok(given_up),
        }
    }
}
