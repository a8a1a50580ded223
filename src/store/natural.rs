//! Reading documents in the order in which one member keeps them.
//!
//! A range of an index costs a server about twice what its own order does: each document is looked up by
//! itself. A member's own order can be cut too, at record ids, and read on from one of them, at a snapshot. But
//! record ids differ between members, so all splits of a plan are read from one member; where that member cannot
//! be read from any more, the job is planned anew, by ranges of an index ([`Store::natural_cuts`] and
//! `protocol/coordinate.rs`).

use bson::{Bson, Document, Timestamp, doc};
use futures_util::{StreamExt, TryStreamExt};
use mongodb::options::{ReadPreference, RunCursorCommandOptions, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, SessionRawBatchCursor};
use mongodb::{Client, ClientSession};
use tokio::sync::mpsc;

use super::Store;
use super::error::Action;
use super::input::{InputBatch, Reading, batch_documents, room_in};
use super::querying::{AtWork, LOOK_MAX};
use crate::error::{Error, Result};
use crate::job::Input;
use crate::task::{NATURAL, Range};

const ACTION: &str = "read the input";
/// What a find with `showRecordId` calls it, and a resume token.
const RECORD: &str = "$recordId";

/// Where a member's own order of its documents can be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NaturalCuts {
    /// The member, as the replica set names it.
    pub member: String,
    /// Records that it has, in its order.
    pub records: Vec<i64>,
}

impl Store {
    /// Finds the records of documents on the primary, as of the snapshot, to cut its own order at them. `None`
    /// where that order cannot be cut or read on: on shards, which keep what they no longer own, in collections
    /// whose record ids are no numbers, on servers that do not know how.
    pub async fn natural_cuts(
        &self,
        input: &Input,
        time: Timestamp,
        ids: Vec<Bson>,
    ) -> Option<NaturalCuts> {
        if self.is_sharded() || ids.is_empty() {
            return None;
        }
        match self.find_records(input, time, ids).await {
            Ok(cuts) => cuts,
            Err(error) => {
                tracing::debug!(%error, "the input is cut along its index");
                None
            }
        }
    }

    async fn find_records(
        &self,
        input: &Input,
        time: Timestamp,
        ids: Vec<Bson>,
    ) -> Result<Option<NaturalCuts>> {
        const TOGETHER: usize = 5_000;
        let admin = self.client().database("admin");
        let hello = admin.run_command(doc! { "hello": 1 }).await.action("ask for the primary")?;
        let Ok(member) = hello.get_str("me").map(str::to_owned) else { return Ok(None) };
        let client = self.client_of(&member).await?;
        let mut session = at(&client, time).await?;
        let database = client.database(&input.db);
        let collection = database.collection::<Document>(&input.collection);
        let mut records = Vec::new();
        for some in ids.chunks(TOGETHER) {
            let mut found = collection
                .find(doc! { "_id": { "$in": some } })
                .projection(doc! { "_id": 1 })
                .show_record_id(true)
                .max_time(LOOK_MAX)
                .session(&mut session)
                .await
                .action(ACTION)?;
            let mut rows = found.stream(&mut session);
            while let Some(row) = rows.try_next().await.action(ACTION)? {
                // What was inserted after the snapshot is not there yet, and cannot be a bound.
                match row.get(RECORD) {
                    Some(Bson::Int64(record)) => records.push(*record),
                    _ => return Ok(None),
                }
            }
        }
        records.sort_unstable();
        records.dedup();
        let Some(first) = records.first() else { return Ok(None) };
        // Whether this server reads on from a record at all.
        let mut command = natural_find(input, Some(*first));
        command.insert("limit", 1);
        let mut probe = database
            .run_cursor_command(command)
            .session(&mut session)
            .batch()
            .await
            .action(ACTION)?;
        let reply = probe.stream(&mut session).next().await;
        if let Some(reply) = reply {
            reply.action(ACTION)?;
        }
        Ok(Some(NaturalCuts { member, records }))
    }

    /// Reads one split of a member's own order.
    pub(super) async fn read_natural(
        &self,
        reading: &Reading,
        member: &str,
        tx: &mpsc::Sender<Result<InputBatch>>,
        working: &AtWork,
    ) -> Result<()> {
        let time = reading.snapshot.ok_or_else(|| {
            Error::Internal("a member's own order is read without a snapshot".into())
        })?;
        let client = self.client_of(member).await?;
        let mut session = at(&client, time).await?;
        // A member answers for a time only after it has heard of it.
        if let Some(time) = self.latest_cluster_time().await? {
            session.advance_cluster_time(&time);
        }
        let id = session.id().clone();
        working.note(&client, &id);
        for range in &reading.split.ranges {
            let mut records = Records { client: &client, session: &mut session, reading };
            if !records.read(range, &id, tx).await? {
                break;
            }
        }
        Ok(())
    }

    /// A client that asks this member alone. Only members of the deployment are asked: whoever writes a task's
    /// document does not say where this process logs in.
    async fn client_of(&self, member: &str) -> Result<Client> {
        let mut kept = self.natural.lock().await;
        if let Some((of, client)) = kept.as_ref()
            && of == member
        {
            return Ok(client.clone());
        }
        let client = self.connect_to(member).await?;
        *kept = Some((member.to_owned(), client.clone()));
        Ok(client)
    }

    async fn connect_to(&self, member: &str) -> Result<Client> {
        if self.options.direct_connection == Some(true) {
            // The own link leads to one server, by a shorter way perhaps.
            let any = SelectionCriteria::ReadPreference(ReadPreference::PrimaryPreferred {
                options: None,
            });
            let admin = self.client().database("admin");
            let hello = admin.run_command(doc! { "hello": 1 }).selection_criteria(any).await;
            if hello.action(ACTION)?.get_str("me").is_ok_and(|me| me == member) {
                return Ok(self.client().clone());
            }
        }
        let listed = self.members().await?;
        let address = listed.into_iter().find(|address| address.to_string() == member);
        let address = address.ok_or_else(|| {
            Error::NotYet(format!(
                "{member}, which the input is to be read from, is no member of the replica set"
            ))
        })?;
        self.to_member_impatient(address)
    }
}

async fn at(client: &Client, time: Timestamp) -> Result<ClientSession> {
    client.start_session().snapshot(true).snapshot_time(time).await.action(ACTION)
}

/// A find that reads on in a member's own order, after a record.
fn natural_find(input: &Input, after: Option<i64>) -> Document {
    let mut find = doc! {
        "find": &input.collection,
        "hint": { NATURAL: 1 },
        "$_requestResumeToken": true,
        "noCursorTimeout": true,
    };
    find.extend(after.map(|record| ("$_resumeAfter".to_owned(), doc! { RECORD: record }.into())));
    find
}

/// Reads ranges of records.
struct Records<'a> {
    client: &'a Client,
    session: &'a mut ClientSession,
    reading: &'a Reading,
}

impl Records<'_> {
    /// Reads what lies in a range; false when nobody wants it any more.
    async fn read(
        &mut self,
        range: &Range,
        id: &Document,
        tx: &mpsc::Sender<Result<InputBatch>>,
    ) -> Result<bool> {
        let last = record_of(range.max.as_ref())?;
        let mut after = record_of(range.min.as_ref())?;
        let mut cursor = self.find(after, None).await?;
        loop {
            let reply = cursor.stream(self.session).next().await;
            let Some(reply) = reply else { return Ok(true) };
            let reply = reply.action(ACTION)?;
            let reached = token_of(&reply)?;
            let is_inside = match (reached, last) {
                (_, None) => true,
                (Some(reached), Some(last)) => reached <= last,
                // The end of the collection lies beyond every record.
                (None, Some(_)) => false,
            };
            let Some(room) = room_in(tx, self.client, id).await else { return Ok(false) };
            if is_inside {
                after = reached.or(after);
                room.send(Ok(InputBatch::whole(reply)));
                continue;
            }
            // The same documents in the same order, without their fields but with their records.
            let most = batch_documents(&reply)?;
            let inside = match last {
                Some(last) if most > 0 => self.count_up_to(after, last, most).await?,
                _ => 0,
            };
            room.send(Ok(InputBatch::first(reply, inside)));
            return Ok(true);
        }
    }

    /// How many of the next so many documents lie before a record, or at it.
    async fn count_up_to(&mut self, after: Option<i64>, last: i64, most: usize) -> Result<usize> {
        let mut cursor = self.find(after, Some(most)).await?;
        let mut inside = 0;
        while let Some(reply) = cursor.stream(self.session).next().await {
            let reply = reply.action(ACTION)?;
            for row in reply.doc_slices().action(ACTION)? {
                let row = row.ok().and_then(|row| row.as_document());
                let record = row.and_then(|row| row.get_i64(RECORD).ok());
                let record = record.ok_or_else(|| {
                    Error::Internal("the server does not say where its documents are".into())
                })?;
                if record > last {
                    return Ok(inside);
                }
                inside += 1;
            }
        }
        Ok(inside)
    }

    /// Begins to read; only records, if a number of them is wanted.
    async fn find(
        &mut self,
        after: Option<i64>,
        records: Option<usize>,
    ) -> Result<SessionRawBatchCursor> {
        let Reading { input, time, comment, .. } = self.reading;
        let batch = self.reading.batch_size();
        let mut find = natural_find(input, after);
        find.insert("filter", input.query.clone());
        find.extend(input.collation.clone().map(|c| ("collation".to_owned(), Bson::Document(c))));
        find.insert("maxTimeMS", i64::try_from(time.left().as_millis()).unwrap_or(i64::MAX));
        find.insert("comment", comment.clone());
        let batch = match records {
            Some(count) => {
                find.insert("projection", doc! { "_id": 1 });
                find.insert("showRecordId", true);
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                find.insert("limit", count);
                count
            }
            None => {
                let projection = input.projection.clone();
                find.extend(projection.map(|p| ("projection".to_owned(), Bson::Document(p))));
                i64::from(batch)
            }
        };
        find.insert("batchSize", batch);
        let mut options = RunCursorCommandOptions::default();
        options.batch_size = u32::try_from(batch).ok();
        options.comment = Some(comment.clone().into());
        let database = self.client.database(&input.db);
        database
            .run_cursor_command(find)
            .with_options(options)
            .session(&mut *self.session)
            .batch()
            .await
            .action(ACTION)
    }
}

/// The record that a bound names.
fn record_of(bound: Option<&Document>) -> Result<Option<i64>> {
    match bound.map(|bound| bound.get(NATURAL)) {
        None => Ok(None),
        Some(Some(Bson::Int64(record))) => Ok(Some(*record)),
        Some(_) => Err(Error::Internal("a bound of a member's own order is no record".into())),
    }
}

/// The record that a reply has got to; none at the collection's end.
fn token_of(reply: &RawBatch) -> Result<Option<i64>> {
    let untold = || Error::Internal("the server does not say how far it has read".into());
    let cursor = reply.as_raw_document().get_document("cursor").map_err(|_| untold())?;
    let token = cursor.get_document("postBatchResumeToken").map_err(|_| untold())?;
    match token.get(RECORD) {
        Ok(Some(bson::RawBsonRef::Int64(record))) => Ok(Some(record)),
        Ok(Some(bson::RawBsonRef::Null)) => Ok(None),
        _ => Err(untold()),
    }
}
