//! The input: what it is, where to cut it, and reading a piece of it at the job's snapshot.

use std::collections::BTreeMap;
use std::time::Instant;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::{StreamExt, TryStreamExt};
use mongodb::error::ErrorKind;
use mongodb::options::{Collation, FindOptions, Hint, ReadConcern};
use mongodb::raw_batch_cursor::RawBatch;
use mongodb::{Client, ClusterTime, Collection};
use tokio::sync::mpsc;

use super::Store;
use super::error::{Action, classify};
use super::links::is_unauthorized;
use super::querying::{AtWork, LOOK_MAX, QueryTime, SAMPLE_MAX, explain_time};
use crate::config::{self, Caps};
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::ids::JobId;
use crate::job::{Input, JobState, ReadMode};
use crate::task::{Range, Split, goes_down};
use crate::value::{Elements, tag};

/// What the planner needs to know of an input collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InputSize {
    /// Documents, as the server estimates them.
    pub documents: u64,
    /// Bytes of them, uncompressed, as the server estimates them.
    pub bytes: u64,
}

/// One reply of a cursor, or its first documents.
#[derive(Debug)]
pub struct InputBatch {
    reply: RawBatch,
    most: usize,
}

impl InputBatch {
    /// All documents of a reply.
    pub(super) fn whole(reply: RawBatch) -> Self {
        Self::first(reply, usize::MAX)
    }

    /// The first so many documents of a reply.
    pub(super) fn first(reply: RawBatch, most: usize) -> Self {
        Self { reply, most }
    }

    /// Calls `each` with every document's bytes, in order, until it fails.
    ///
    /// # Errors
    /// What `each` returns, or [`Error::Internal`] for a reply that is no reply.
    pub fn for_each<'a>(&'a self, mut each: impl FnMut(&'a [u8]) -> Result<()>) -> Result<()> {
        let array = self.reply.doc_slices().action("read a reply")?;
        for doc in documents(array.as_bytes()).take(self.most) {
            each(doc.ok_or_else(malformed)?)?;
        }
        Ok(())
    }
}

/// How many documents a reply has.
///
/// # Errors
/// [`Error::Internal`] for a reply that is no reply.
pub(super) fn batch_documents(reply: &RawBatch) -> Result<usize> {
    let array = reply.doc_slices().action("read a reply")?;
    documents(array.as_bytes())
        .try_fold(0, |count, doc| doc.map(|_| count + 1))
        .ok_or_else(malformed)
}

fn malformed() -> Error {
    Error::Internal("a reply is malformed".into())
}

/// The documents of an array of documents; `None` where there is something else.
fn documents(array: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut elements = Elements::new(array);
    std::iter::from_fn(move || match elements.next() {
        Ok(element) => {
            element.map(|(_, value)| (value.tag == tag::DOCUMENT).then_some(value.bytes))
        }
        Err(_) => Some(None),
    })
}

impl Store {
    /// Makes sure that a job can read this input, and says how large it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`] for views and time series, and for capped
    /// collections that cannot be read as the job wants, [`Error::Store`].
    pub async fn inspect_input(&self, input: &Input) -> Result<InputSize> {
        let db = self.other_db(&input.db);
        let name = format!("{}.{}", input.db, input.collection);
        let described: Vec<Document> = db
            .run_cursor_command(doc! {
                "listCollections": 1,
                "filter": { "name": &input.collection },
                "authorizedCollections": true,
                "nameOnly": true,
            })
            .await
            .action(format!("look up {name}"))
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action(format!("look up {name}"))?;
        let Some(described) = described.first() else {
            return Err(Error::NotFound {
                what: format!("collection {name}"),
                hint: "check the name, and -d or --input-db; names are case-sensitive".into(),
            });
        };
        match described.get_str("type") {
            Ok("view") => {
                return Err(Error::refused(
                    format!("{name} is a view"),
                    "a view cannot be split or read at one cluster time: name the collection under \
                     it and put the view's filter into --query",
                ));
            }
            Ok("timeseries") => {
                return Err(Error::refused(
                    format!("{name} is a time series collection"),
                    "its documents cannot be read at one cluster time: copy what you need into a \
                     plain collection first",
                ));
            }
            _ => {}
        }
        let collection: Collection<Document> = db.collection(&input.collection);
        // One row for each shard that has a part of it.
        let stats: Vec<Document> = collection
            .aggregate(vec![
                doc! { "$collStats": { "storageStats": {} } },
                doc! { "$project": {
                    "size": "$storageStats.size",
                    "count": "$storageStats.count",
                    "capped": "$storageStats.capped",
                } },
            ])
            .max_time(LOOK_MAX)
            .read_concern(ReadConcern::local())
            .await
            .action(format!("measure {name}"))
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action(format!("measure {name}"))?;
        if stats.iter().any(|row| row.get_bool("capped").unwrap_or(false))
            && input.read == ReadMode::Snapshot
            && !self.reads_capped_snapshots()
        {
            return Err(Error::refused(
                format!(
                    "{name} is a capped collection, which this server cannot read at one cluster time"
                ),
                "submit the job with --read committed",
            ));
        }
        let sum = |field: &str| stats.iter().map(|row| number(row.get(field))).sum();
        Ok(InputSize { documents: sum("count"), bytes: sum("size") })
    }

    /// The bytes of an input on each shard, as the servers estimate them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn input_by_shard(&self, input: &Input) -> Result<BTreeMap<String, u64>> {
        const ACTION: &str = "measure the input on each shard";
        let collection: Collection<Document> =
            self.other_db(&input.db).collection(&input.collection);
        let rows: Vec<Document> = collection
            .aggregate(vec![
                doc! { "$collStats": { "storageStats": {} } },
                doc! { "$project": { "shard": 1, "size": "$storageStats.size" } },
            ])
            .max_time(LOOK_MAX)
            .read_concern(ReadConcern::local())
            .await
            .action(ACTION)
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action(ACTION)?;
        let of_shard = |row: &Document| {
            let shard = row.get_str("shard").unwrap_or_else(|_| self.home()).to_owned();
            (shard, number(row.get("size")))
        };
        Ok(rows.iter().map(of_shard).collect())
    }

    /// Has the server look at query, order and projection without running them.
    ///
    /// # Errors
    /// [`Error::Usage`] with the server's words when it does not understand them, or when they do
    /// not go with reading by ranges of `_id`; [`Error::Store`].
    pub async fn check_query(&self, input: &Input) -> Result<()> {
        let mut find = doc! { "find": &input.collection, "filter": input.query.clone() };
        find.extend(input.sort.clone().map(|sort| ("sort".to_owned(), Bson::Document(sort))));
        find.extend(input.projection.clone().map(|p| ("projection".to_owned(), Bson::Document(p))));
        find.extend(input.collation.clone().map(|c| ("collation".to_owned(), Bson::Document(c))));
        if !input.has_one_reader() {
            // A small input is read as a whole, but a job should not fail because it has grown.
            find.insert("hint", doc! { "_id": 1 });
        }
        let most = i64::try_from(LOOK_MAX.as_millis()).unwrap_or(i64::MAX);
        // An explanation repeats the query more than once, and must fit a document: a large query is looked at by asking
        // for nothing that it finds.
        if doc_bytes(&find) > EXPLAINED_BYTES_MAX {
            find.extend(doc! { "limit": 1, "singleBatch": true, "maxTimeMS": most });
            find.insert("filter", doc! { "$and": [input.query.clone(), { "$alwaysFalse": 1 }] });
            let looked = self.other_db(&input.db).run_command(find).await;
            return accepted(looked.action("check the query").map_err(|e| self.explain(e)));
        }
        let explain = doc! { "explain": find, "verbosity": "queryPlanner", "maxTimeMS": most };
        let explained = self.other_db(&input.db).run_command(explain).await;
        accepted(explained.action("check the query").map_err(|e| self.explain(e)))
    }

    /// Samples the values of some fields; a field that a document lacks is null. The rows are in the
    /// server's order of them. There are none when the server cannot draw any.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn sample(
        &self,
        input: &Input,
        fields: &[String],
        samples: u64,
    ) -> Result<Vec<Vec<Bson>>> {
        /// Random cursors meet documents again and again where there are few of them, and give up.
        const NO_FRESH_DOCUMENT: i32 = 28_799;
        const TRIES: u32 = 5;
        for _ in 0..TRIES {
            match self.draw(input, fields, samples).await {
                Err(Error::Store { source, .. }) if source.code == Some(NO_FRESH_DOCUMENT) => {
                    tracing::debug!(error = source.message, "sampling again");
                }
                outcome => return outcome,
            }
        }
        tracing::warn!("the input cannot be sampled; it is split along its chunks only");
        Ok(Vec::new())
    }

    async fn draw(&self, input: &Input, fields: &[String], samples: u64) -> Result<Vec<Vec<Bson>>> {
        let collection: Collection<Document> =
            self.other_db(&input.db).collection(&input.collection);
        let samples = i64::try_from(samples).unwrap_or(i64::MAX);
        let order: Document = fields.iter().map(|field| (field.clone(), Bson::Int32(1))).collect();
        let values: Vec<Bson> = fields
            .iter()
            .map(|field| doc! { "$ifNull": [format!("${field}"), Bson::Null] }.into())
            .collect();
        let drawn: mongodb::error::Result<Vec<Document>> = collection
            .aggregate(vec![
                doc! { "$sample": { "size": samples } },
                doc! { "$sort": order },
                doc! { "$project": { "_id": 0, "values": values } },
            ])
            .allow_disk_use(true)
            .max_time(SAMPLE_MAX)
            .read_concern(ReadConcern::local())
            .await
            .action("sample the input")
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await;
        let rows = match drawn {
            // Text that is not UTF-8 is no value that a split could end at.
            Err(error)
                if matches!(
                    *error.kind,
                    ErrorKind::Bson(_) | ErrorKind::BsonDeserialization(_)
                ) =>
            {
                return Ok(Vec::new());
            }
            drawn => drawn.action("sample the input")?,
        };
        Ok(rows.into_iter().filter_map(|row| row.get_array("values").ok().cloned()).collect())
    }

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
    pub(super) async fn latest_cluster_time(&self) -> Result<Option<ClusterTime>> {
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

    /// Reads up to `limit` matching documents, for trying functions out.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn sample_documents(&self, input: &Input, limit: i64) -> Result<Vec<RawDocumentBuf>> {
        let collection: Collection<RawDocumentBuf> =
            self.other_db(&input.db).collection(&input.collection);
        let mut options = find_options(input, InputSize::default())?;
        options.limit = Some(input.limit.map_or(limit, |asked| asked.min(limit)));
        options.max_time = Some(QueryTime::of(input, &Caps::default(), None).left());
        collection
            .find(input.query.clone())
            .with_options(options)
            .await
            .action("read the input")
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action("read the input")
    }
}

/// Waits until the function has room for another reply; `None` when it wants no more.
///
/// A function may be busy for longer than servers keep a session that nobody uses, which is half an hour, and
/// its cursor would go with it: so the session is used.
pub(super) async fn room_in<'a>(
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
    pub(super) fn batch_size(&self) -> u32 {
        batch_size(self.size)
    }
}

/// What the server's answer to a query says of it.
fn accepted(answer: Result<Document>) -> Result<()> {
    /// `BadValue`, `FailedToParse` and the like are numbered per message; these say that the
    /// question is fine and the answer has to wait, or that this user may not ask.
    const NOT_THE_QUERY: [StoreErrorKind; 2] =
        [StoreErrorKind::Transient, StoreErrorKind::Unauthorized];
    match answer {
        Err(Error::Store { source, .. }) if !NOT_THE_QUERY.contains(&source.kind) => {
            Err(Error::Usage(format!(
                "the server does not accept --query, --sort, --projection or --collation: {}",
                source.message
            )))
        }
        answer => answer.map(|_| ()),
    }
}

/// A query of more bytes is not explained.
const EXPLAINED_BYTES_MAX: usize = 1 << 20;

fn doc_bytes(document: &Document) -> usize {
    document.to_vec().map_or(usize::MAX, |bytes| bytes.len())
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

/// Documents of one reply, for documents of an average size.
fn batch_size(size: InputSize) -> u32 {
    const DOC_BYTES_GUESS: u64 = 1 << 10;
    const MOST: u32 = 100_000;
    let average = size.bytes.checked_div(size.documents).unwrap_or(DOC_BYTES_GUESS).max(16);
    u32::try_from(config::READ_BATCH_BYTES / average).map_or(MOST, |batch| batch.clamp(1, MOST))
}

fn find_options(input: &Input, size: InputSize) -> Result<FindOptions> {
    let mut options = FindOptions::default();
    options.batch_size = Some(batch_size(size));
    options.no_cursor_timeout = Some(true);
    options.projection = input.projection.clone();
    options.sort = input.sort.clone();
    options.limit = input.limit;
    options.collation = input.collation.as_ref().map(collation).transpose()?;
    Ok(options)
}

/// A collation as the driver has it. Servers take numbers of any type, and the driver integers.
fn collation(given: &Document) -> Result<Collation> {
    let whole = |value: &Bson| match value {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, and is checked")]
        Bson::Double(number) if f64::from(*number as i32) == *number => Bson::Int32(*number as i32),
        Bson::Int64(number) => i32::try_from(*number).map_or_else(|_| value.clone(), Bson::Int32),
        other => other.clone(),
    };
    let given: Document = given.iter().map(|(name, value)| (name.clone(), whole(value))).collect();
    // Left out, it would have text compared otherwise than asked, and nobody would notice.
    bson::deserialize_from_document(given)
        .map_err(|e| Error::Usage(format!("--collation is not understood: {e}")))
}

/// A snapshot that has aged out is the user's to solve, so the error says how.
fn explain_history(error: Error) -> Error {
    match error {
        Error::Store { source, .. } if source.kind == StoreErrorKind::SnapshotTooOld => {
            Error::refused(
                "the job's snapshot is older than the history the servers keep",
                "raise minSnapshotHistoryWindowInSeconds on every server, which aviary init \
                 --history-window 2h does, or submit the job with --read committed; where nobody may raise it, as on \
                 Atlas, more workers end a job sooner",
            )
        }
        Error::Store { source, .. } if source.kind == StoreErrorKind::OwnersForgotten => {
            Error::refused(
                "the cluster no longer knows which shards held the input when the job began: its chunks \
                 were merged since, or moved again and again",
                "submit the job again and merge no chunks while it runs, or give workers a link to their \
                 shards (--shard-uri), which is enough for jobs without --sort and --limit; for moves, raise \
                 minSnapshotHistoryWindowInSeconds on the config servers too, which aviary init \
                 --history-window 2h does; or submit the job with --read committed",
            )
        }
        // It may pass, as after a restart; where the collection's indexes or options have changed it never
        // does before MongoDB 7.0, so the attempt counts as failed.
        Error::Store { source, .. }
            if matches!(source.code, Some(SNAPSHOT_UNAVAILABLE | MIGRATION_CONFLICT)) =>
        {
            Error::Store {
                action: "read the input as it was when the job began (was it replaced or moved to another \
                         shard, or were its indexes or options changed since? then submit the job again)"
                    .into(),
                source: StoreError { kind: StoreErrorKind::Fatal, ..source },
            }
        }
        other => other,
    }
}

/// The server's code for a snapshot that exists no longer because the collection itself changed, or the server was
/// restarted.
const SNAPSHOT_UNAVAILABLE: i32 = 246;
/// The same of a collection whose database was moved to another shard since, from MongoDB 8.0 on. It never passes.
const MIGRATION_CONFLICT: i32 = 272;

/// Whether a service does not take what other servers do, or no such user. Shared clusters of Atlas take no cursor that
/// is not to time out.
fn is_service_limit(error: &mongodb::error::Error) -> bool {
    const ATLAS_ERROR: i32 = 8_000;
    classify(error).code == Some(ATLAS_ERROR)
}

fn is_snapshot_unavailable(error: &Error) -> bool {
    matches!(error, Error::Store { source, .. } if source.code == Some(SNAPSHOT_UNAVAILABLE))
}

fn number(value: Option<&Bson>) -> u64 {
    match value {
        Some(Bson::Int32(n)) => u64::try_from(*n).unwrap_or(0),
        Some(Bson::Int64(n)) => u64::try_from(*n).unwrap_or(0),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate, and the cast saturates"
        )]
        Some(Bson::Double(n)) => *n as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::documents;

    #[test]
    fn a_reply_is_read_document_by_document() {
        for count in [0, 1, 12, 1_001] {
            let docs: Vec<RawDocumentBuf> =
                (0..count).map(|n| rawdoc! { "n": n, "": {} }).collect();
            let mut array = bson::RawArrayBuf::new();
            docs.iter().for_each(|doc| array.push(doc.clone()));
            let read: Option<Vec<&[u8]>> = documents(array.as_bytes()).collect();
            let expected: Vec<&[u8]> = docs.iter().map(|doc| doc.as_bytes()).collect();
            assert_eq!(read, Some(expected));
        }
    }

    #[test]
    fn what_is_no_array_of_documents_ends_without_one() {
        let mut array = bson::RawArrayBuf::new();
        array.push(rawdoc! { "n": 1 });
        let whole = array.as_bytes();
        let cut = (0..whole.len() - 1).map(|end| whole.get(..end).unwrap_or_default().to_vec());
        let mut number = bson::RawArrayBuf::new();
        number.push(1_i32);
        let mut negative = whole.to_vec();
        if let Some(length) = negative.get_mut(7..11) {
            length.fill(0xff);
        }
        for bad in cut.chain([number.as_bytes().to_vec(), negative, b"\x05\0\0\0\x03".to_vec()]) {
            let read: Vec<Option<&[u8]>> = documents(&bad).take(3).collect();
            assert_eq!(read.last(), Some(&None), "{bad:?}");
        }
    }
}
