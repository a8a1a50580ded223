//! Reading a piece of an input at the job's snapshot.

use std::time::Instant;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::StreamExt;
use mongodb::options::{Collation, FindOptions, Hint, ReadConcern};
use mongodb::{Client, ClusterTime, Collection};
use tokio::sync::mpsc;

use super::InputSize;
use super::history::{
    MIGRATION_CONFLICT, SNAPSHOT_UNAVAILABLE, explain_history, is_service_limit,
    is_snapshot_unavailable,
};
use super::options::{batch_size, find_options};
use super::reply::InputBatch;
use crate::config::{self};
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Input, JobState, ReadMode};
use crate::store::Store;
use crate::store::error::Action;
use crate::store::links::is_unauthorized;
use crate::store::querying::{AtWork, QueryTime, explain_time};
use crate::task::{Range, Split, goes_down};

/// What is read of an input, and for whom.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The job that it is read for, and its plan's number, if that job can be planned anew.
    pub plan: Option<(JobId, i32)>,
    /// The input.
    pub input: Input,
    /// The piece of it.
    pub split: Split,
    /// As of when.
    pub snapshot: Option<Timestamp>,
    /// How large the input is.
    pub size: InputSize,
    /// Names job, task and attempt, for whoever looks at what a server is at.
    pub comment: Document,
    /// How long the server may take.
    pub time: QueryTime,
}

impl Reading {
    /// Documents of one reply.
    pub(in crate::store) fn batch_size(&self) -> u32 {
        batch_size(self.size)
    }
}

impl Store {
    /// Reads one split of the documents that `shard` owned at the snapshot; replies arrive on the
    /// channel, read ahead by a few.
    ///
    /// They are read from the member that this process is beside if it is one of `shard`, or from its
    /// primary when that member cannot answer; and through the router otherwise, or when the job reads
    /// without a snapshot: a member by itself cannot tell what it owns now.
    ///
    /// The last thing sent is an error, if there was one. Dropping the receiver ends the reading.
    ///
    /// What the server is at is ended when nobody wants it any more: when the receiver is dropped, or when `ended`
    /// says so, whose error is then sent.
    pub fn read_split(
        &self,
        shard: &str,
        mut reading: Reading,
        ended: impl Future<Output = Error> + Send + 'static,
    ) -> mpsc::Receiver<Result<InputBatch>> {
        let (tx, rx) = mpsc::channel(config::READ_AHEAD_BATCHES);
        reading.snapshot = reading.snapshot.filter(|_| reading.input.read == ReadMode::Snapshot);
        let alone = reading.snapshot.is_some() && !reading.split.of_all_shards;
        let members = self.beside(shard).filter(|_| alone).map(|members| members.map(Clone::clone));
        let (store, to_tell, at) = (self.clone(), tx.clone(), AtWork::default());
        let working = at.clone();
        // A driver future must be polled to its end, so the reading is a task of its own.
        let mut task = tokio::spawn(async move {
            let began = Instant::now();
            let outcome = match (&reading.split.member, &members) {
                (Some(member), _) => store.read_natural(&reading, member, &tx, &working).await,
                (None, Some(members)) => store.read_beside(&reading, members, &tx, &working).await,
                (None, None) => store.read_routed(&reading, &tx, &working).await,
            };
            if let Err(error) = outcome {
                let error = explain_time(explain_history(error), &reading.time, began.elapsed());
                store.lose_plan(&reading, &error).await;
                // A closed channel means that nobody wants to know.
                let _ = tx.send(Err(error)).await;
            }
        });
        tokio::spawn(async move {
            let told = tokio::select! {
                _ = &mut task => return,
                error = ended => Some(error),
                () = to_tell.closed() => None,
            };
            if let Some(error) = told {
                // Whoever does not wait for it looks for itself.
                let _ = to_tell.try_send(Err(error));
            }
            drop(to_tell);
            at.end(task).await;
        });
        rx
    }

    /// Has a job planned anew, if a later instant or another way to the input can help: where it can be read as it was
    /// then no more, or not from the member whose own order its plan goes by.
    async fn lose_plan(&self, reading: &Reading, why: &Error) {
        let is_gone = matches!(why, Error::Store { source, .. }
            if matches!(source.code, Some(SNAPSHOT_UNAVAILABLE | MIGRATION_CONFLICT)));
        // What is refused is refused wherever it is read.
        let is_away = reading.split.member.is_some() && !matches!(why, Error::Refused { .. });
        let Some((job, plan)) = &reading.plan else { return };
        if !(is_gone || is_away) || *plan > config::PLANS_LOST_MAX {
            return;
        }
        tracing::warn!(%job, error = %why, "the input cannot be read as it was planned; the job is to be planned anew");
        let mapping = doc! { "state": JobState::Mapping.as_str(), "plan": plan };
        let mut set = doc! { "plan_lost": plan };
        if is_away {
            set.insert("by_index", true);
        }
        if let Err(error) = self.set_job(job, mapping, set).await {
            tracing::warn!(%job, %error, "could not have the job planned anew");
        }
    }

    /// Reads from the member that this process is beside, or from the primary when that one cannot answer.
    async fn read_beside(
        &self,
        reading: &Reading,
        [beside, primary]: &[Client; 2],
        tx: &mpsc::Sender<Result<InputBatch>>,
        at: &AtWork,
    ) -> Result<()> {
        let mut begun = false;
        match self.read_into(reading, Some(beside), (tx, at), &mut begun).await {
            Err(error) if is_unauthorized(&error) => {
                let error = self.found_shut(error).await;
                if begun { Err(error) } else { self.read_routed(reading, tx, at).await }
            }
            // What has been handed on cannot be taken back, so the next attempt has to begin afresh.
            Err(error) if !begun => {
                tracing::warn!(%error, "the server beside cannot be read from; asking its primary");
                self.read_into(reading, Some(primary), (tx, at), &mut begun).await
            }
            outcome => outcome,
        }
    }

    /// Reads through the router or from the primary. A server that was restarted knows the input's snapshots only from
    /// then on; in a replica set the others are asked, one by one.
    async fn read_routed(
        &self,
        reading: &Reading,
        tx: &mpsc::Sender<Result<InputBatch>>,
        at: &AtWork,
    ) -> Result<()> {
        let mut begun = false;
        let mut refused = match self.read_into(reading, None, (tx, at), &mut begun).await {
            Err(error) if is_snapshot_unavailable(&error) && !begun && !self.is_sharded() => error,
            outcome => return outcome,
        };
        for member in self.members().await? {
            tracing::warn!(error = %refused, %member, "asking another member for the snapshot");
            let client = self.to_member(member)?;
            match self.read_into(reading, Some(&client), (tx, at), &mut begun).await {
                Err(error) if !begun => refused = error,
                outcome => return outcome,
            }
        }
        Err(refused)
    }

    /// Reads from a member of the shard, or through the router; `begun` says whether any of it was handed on.
    async fn read_into(
        &self,
        reading: &Reading,
        member: Option<&Client>,
        (tx, at): (&mpsc::Sender<Result<InputBatch>>, &AtWork),
        begun: &mut bool,
    ) -> Result<()> {
        const ACTION: &str = "read the input";
        let Reading { input, split, snapshot, size, .. } = reading;
        let client = member.unwrap_or_else(|| self.client());
        let mut session = match snapshot {
            Some(time) => client.start_session().snapshot(true).snapshot_time(*time),
            None => client.start_session(),
        }
        .await
        .action(ACTION)?;
        if member.is_some() {
            // A shard answers for a time only after it has heard of it, which the routers have.
            if let Some(time) = self.latest_cluster_time().await? {
                session.advance_cluster_time(&time);
            }
        }
        let id = session.id().clone();
        at.note(client, &id);
        // A snapshot session says the read concern; the database's own must not contradict it.
        let collection: Collection<RawDocumentBuf> =
            client.database(&input.db).collection(&input.collection);
        for mut read in reads(input, split, *size)? {
            read.options.max_time = Some(reading.time.left());
            read.options.comment = Some(reading.comment.clone().into());
            read.options.read_concern = snapshot.is_none().then(ReadConcern::majority);
            let find = |options| collection.find(read.query.clone()).with_options(options);
            let options = read.options.clone();
            let opened = match find(options).session(&mut session).batch().await {
                Err(error) if is_service_limit(&error) => {
                    // The session keeps the cursor, too.
                    read.options.no_cursor_timeout = None;
                    find(read.options).session(&mut session).batch().await
                }
                opened => opened,
            };
            let mut cursor = opened.action(ACTION)?;
            let mut replies = cursor.stream(&mut session);
            while let Some(reply) = replies.next().await {
                let reply = reply.action(ACTION)?;
                *begun = true;
                let Some(room) = room_in(tx, client, &id).await else { return Ok(()) };
                room.send(Ok(InputBatch::whole(reply)));
            }
        }
        Ok(())
    }

    /// The latest time that the deployment is known to have reached, as its servers sign it.
    pub(in crate::store) async fn latest_cluster_time(&self) -> Result<Option<ClusterTime>> {
        const ACTION: &str = "ask for the cluster time";
        let mut session = self.client().start_session().await.action(ACTION)?;
        let ping = doc! { "ping": 1 };
        self.client()
            .database("admin")
            .run_command(ping)
            .session(&mut session)
            .await
            .action(ACTION)?;
        Ok(session.cluster_time().cloned())
    }
}

/// Waits until the function has room for another reply; `None` when it wants no more.
///
/// A function may be busy for longer than servers keep a session that nobody uses, which is half an hour, and
/// its cursor would go with it: so the session is used.
pub(in crate::store) async fn room_in<'a>(
    tx: &'a mpsc::Sender<Result<InputBatch>>,
    client: &Client,
    session: &Document,
) -> Option<mpsc::Permit<'a, Result<InputBatch>>> {
    loop {
        match tokio::time::timeout(config::SESSION_REFRESH, tx.reserve()).await {
            Ok(room) => return room.ok(),
            Err(_) => {
                let refresh = doc! { "refreshSessions": [session] };
                if let Err(error) = client.database("admin").run_command(refresh).await {
                    tracing::debug!(%error, "could not keep the session of a cursor");
                }
            }
        }
    }
}

/// One find.
struct Read {
    query: Document,
    options: FindOptions,
}

/// The finds that read a split.
fn reads(input: &Input, split: &Split, size: InputSize) -> Result<Vec<Read>> {
    let options = find_options(input, size)?;
    if split.ranges.is_empty() {
        return Ok(vec![Read { query: input.query.clone(), options }]);
    }
    let of_range = |range| reads_of_range(input, split, range, &options);
    Ok(split.ranges.iter().flat_map(of_range).collect())
}

fn reads_of_range(input: &Input, split: &Split, range: &Range, options: &FindOptions) -> Vec<Read> {
    let mut bounded = options.clone();
    bounded.min = range.min.clone();
    bounded.max = range.max.clone();
    if range.min.is_some() || range.max.is_some() {
        // Unlike $gte and $lt, bounds on the index itself span every type of value.
        bounded.hint = Some(match &split.index {
            Some(name) => Hint::Name(name.clone()),
            None => Hint::Keys(split.by.clone()),
        });
        if split.index.is_some() && !input.compares() {
            // Bounds that hold text go with an index of the same collation only, and the collection may have
            // one of its own.
            bounded.collation = Some(Collation::builder().locale("simple".to_owned()).build());
        }
    }
    let hashed = split.by.values().any(|direction| direction.as_str().is_some());
    if range.min.is_none() || range.max.is_some() || hashed {
        return vec![Read { query: input.query.clone(), options: bounded }];
    }
    // The server takes an open end for "below MaxKey", or MinKey where a field goes down, which are values
    // like any other, but not in a clustered collection: leave them out of the range, and read them by
    // themselves.
    let end = |direction: &Bson| if goes_down(direction) { Bson::MinKey } else { Bson::MaxKey };
    let last: Document = split.by.iter().map(|(field, way)| (field.clone(), end(way))).collect();
    let and = |condition: Document| doc! { "$and": [input.query.clone(), condition] };
    vec![
        Read { query: and(doc! { "$nor": [&last] }), options: bounded },
        Read { query: and(last), options: options.clone() },
    ]
}
