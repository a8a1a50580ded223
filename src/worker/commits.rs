//! Commits gathered: what ends while a commit is on its way goes with the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use crate::config;
use crate::error::{Error, Result};
use crate::exec::manifest;
use crate::store::Store;
use crate::store::retry::within;
use crate::task::{Lease, TaskResult};

/// Bytes of manifests that go together, about; one alone may have some megabytes.
const TOGETHER_BYTES_MAX: usize = 4 << 20;

/// A task that is to be committed.
struct Commit {
    lease: Arc<Lease>,
    result: Arc<TaskResult>,
    bytes: usize,
    done: oneshot::Sender<Result<()>>,
}

/// The commits of a worker, a lane for each shard: one that does not answer holds up no other.
pub(super) struct Commits {
    store: Store,
    lanes: Mutex<HashMap<String, mpsc::UnboundedSender<Commit>>>,
}

impl Commits {
    pub(super) fn new(store: Store) -> Self {
        Self { store, lanes: Mutex::default() }
    }

    /// Commits a task as [`Store::commit`] does.
    ///
    /// # Errors
    /// Those of [`Store::commit`].
    pub(super) async fn commit(&self, lease: Arc<Lease>, result: TaskResult) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        let bytes = manifest::bytes_bound(&result.parts);
        let commit = Commit { lease, result: Arc::new(result), bytes, done };
        if self.lane(&commit.lease.shard).send(commit).is_err() {
            return Err(Error::Internal("commits have come to an end".into()));
        }
        let ended = |_| Error::Internal("a commit has come to no end".into());
        outcome.await.map_err(ended)?
    }

    fn lane(&self, shard: &str) -> mpsc::UnboundedSender<Commit> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(shard.to_owned()).or_insert_with(|| {
            let (lane, commits) = mpsc::unbounded_channel();
            tokio::spawn(run(self.store.clone(), commits));
            lane
        });
        lane.clone()
    }
}

/// Commits what comes until nobody can send any more.
async fn run(store: Store, mut commits: mpsc::UnboundedReceiver<Commit>) {
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(commit) => commit,
            None => match commits.recv().await {
                Some(commit) => commit,
                None => return,
            },
        };
        let (mut bytes, mut together) = (first.bytes, vec![first]);
        while together.len() < config::TASKS_TOGETHER_MAX
            && let Ok(next) = commits.try_recv()
        {
            if bytes + next.bytes > TOGETHER_BYTES_MAX {
                left_over = Some(next);
                break;
            }
            bytes += next.bytes;
            together.push(next);
        }
        commit_all(&store, together).await;
    }
}

/// Commits these together. Where that does not do at once, each goes its own way, and holds up nobody.
async fn commit_all(store: &Store, together: Vec<Commit>) {
    /// A server that answers does so sooner.
    const ANSWER_MAX: Duration = Duration::from_secs(5);
    let pairs: Vec<_> =
        together.iter().map(|one| (one.lease.clone(), one.result.clone())).collect();
    let at_once = match pairs.len() {
        0 | 1 => false,
        _ => {
            let store = store.clone();
            let committing = async move { Ok(store.commit_batch(&pairs).await) };
            within(ANSWER_MAX, "commit tasks", committing).await.unwrap_or(false)
        }
    };
    if at_once {
        for commit in together {
            let _ = commit.done.send(Ok(()));
        }
        return;
    }
    let one_by_one = together.into_iter().map(|Commit { lease, result, done, .. }| {
        let store = store.clone();
        tokio::spawn(async move {
            // Nobody may wait for it any more.
            let _ = done.send(store.commit(&lease, &result).await);
        })
    });
    // As long as they are on their way, others gather; but not for ever.
    let _ = tokio::time::timeout(ANSWER_MAX, join_all(one_by_one)).await;
}
