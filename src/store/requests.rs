//! Requests as documents: clients insert them, the coordinator answers.

use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::{IndexOptions, ReturnDocument};
use mongodb::{Collection, IndexModel};

use super::error::{self, Action, classify};
use super::retry::until_known;
use super::{Store, shape};
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::JobId;
use crate::job::RequestRef;
use crate::request::answer::Answer;
use crate::request::document::NAME_BYTES_MAX;
use crate::request::schema::validator;
use crate::request::{Asked, Problem, REQUESTS, TENANT_PREFIX, is_requests};

/// Unanswered requests of one collection that are read at once.
const READ_AT_ONCE: i64 = 64;

/// The fields of an answer; a request is read without them.
const ANSWER_FIELDS: [&str; 7] =
    ["state", "job", "answered", "progress", "result", "error", "expires"];

/// A request as it was found.
#[derive(Debug)]
pub struct Found {
    /// Where it lies.
    pub collection: String,
    /// Its `_id`.
    pub id: String,
    /// The job's id that was set aside for it.
    pub job: Option<String>,
    /// What it says, or why that cannot be understood.
    pub asked: std::result::Result<Box<Asked>, Malformed>,
}

/// Why a request cannot be understood.
#[derive(Debug)]
pub struct Malformed {
    /// The field, if it is one.
    pub field: Option<String>,
    /// What is wrong with it.
    pub why: String,
}

impl Store {
    fn requests(&self, collection: &str) -> Collection<Document> {
        self.database().collection(collection)
    }

    /// Sets up a collection of requests: those of everybody who may insert there, or a tenant's.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the missing privilege, [`Error::Store`].
    pub async fn init_requests(&self, collection: &str) -> Result<()> {
        self.ensure_collection(collection, validator()).await?;
        self.requests(collection)
            .create_indexes(request_indexes())
            .await
            .action(format!("create the indexes of {collection}"))
            .map_err(|e| self.explain(e))?;
        Ok(())
    }

    /// The collections of requests that there are.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn request_collections(&self) -> Result<Vec<String>> {
        let names = self
            .database()
            .list_collection_names()
            .filter(
                doc! { "name": { "$regex": format!("^{REQUESTS}(-|$)") }, "type": "collection" },
            )
            .await
            .action("list collections of requests")?;
        Ok(names.into_iter().filter(|name| is_requests(name)).collect())
    }

    /// Ids of requests without an answer, in order, but for those that are put off. The requests themselves are read
    /// one by one: each can be as large as a document may be.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn unanswered(&self, collection: &str, put_off: &[String]) -> Result<Vec<String>> {
        let ids = doc! { "$regex": format!("^.{{1,{NAME_BYTES_MAX}}}$"), "$options": "s" };
        let mut filter = doc! { "state": { "$exists": false }, "_id": ids };
        if !put_off.is_empty() {
            filter.insert("$nor", vec![doc! { "_id": { "$in": put_off.to_vec() } }]);
        }
        let rows: Vec<Document> = self
            .requests(collection)
            .find(filter)
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": 1 })
            .limit(READ_AT_ONCE)
            .await
            .action("look for requests")?
            .try_collect()
            .await
            .action("look for requests")?;
        Ok(rows.iter().filter_map(|row| row.get_str("_id").ok()).map(str::to_owned).collect())
    }

    /// Reads a request that has no answer yet.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn request(&self, collection: &str, id: &str) -> Result<Option<Found>> {
        let row = self
            .requests(collection)
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! { "_id": id, "state": { "$exists": false } })
            .await
            .action("read a request")?;
        Ok(row.map(|row| found(collection, id.to_owned(), &row)))
    }

    /// What of a job a request that is there, answered or not, asks for otherwise than this one: names of fields. Nothing
    /// where it cannot be compared, since it is a whole command, or cannot be read.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn asks_otherwise(
        &self,
        collection: &str,
        asked: &Asked,
    ) -> Result<Vec<&'static str>> {
        /// What makes a job. Who asks, and with what priority, makes no other.
        const FIELDS: [&str; 11] = [
            "input",
            "map",
            "combine",
            "reduce",
            "finalize",
            "out",
            "scope",
            "limits",
            "skipSingleValues",
            "noCombine",
            "keepIntermediates",
        ];
        let row = self
            .requests(collection)
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! { "_id": &asked.id })
            .await
            .action("read a request")?;
        let Some(Ok(there)) = row.map(|row| found(collection, asked.id.clone(), &row).asked) else {
            return Ok(Vec::new());
        };
        let written = |asked: &Asked| {
            crate::exact::written(asked).map_err(|e| Error::Internal(e.to_string()))
        };
        let (here, there) = (written(asked)?, written(&there)?);
        if there.contains_key("command") {
            return Ok(Vec::new());
        }
        Ok(FIELDS.into_iter().filter(|field| here.get(field) != there.get(field)).collect())
    }

    /// Sets a job's id aside for a request, and returns the one that counts. `None` when the request is gone or
    /// answered.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn reserve_job(&self, collection: &str, id: &str) -> Result<Option<JobId>> {
        let fresh = JobId::generate();
        let pipeline = vec![doc! { "$set": { "job": { "$ifNull": ["$job", fresh] } } }];
        let after = self
            .requests(collection)
            .find_one_and_update(doc! { "_id": id, "state": { "$exists": false } }, pipeline)
            .return_document(ReturnDocument::After)
            .await
            .action("set an id aside")?;
        Ok(after.and_then(|request| request.get_str("job").ok().map(JobId::from_text)))
    }

    /// Answers a request that has no answer yet. `false` when it has one or is gone.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn accept(&self, collection: &str, id: &str, set: Document) -> Result<bool> {
        let mut set = set;
        set.insert("state", "accepted");
        self.answer(collection, doc! { "_id": id, "state": { "$exists": false } }, set).await
    }

    /// Refuses a request that has no answer yet; it stays for the time of `retention`. `false` when it has one or is
    /// gone.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn refuse(
        &self,
        collection: &str,
        id: &str,
        why: &Problem,
        retention: Duration,
    ) -> Result<bool> {
        let set = doc! {
            "state": "refused",
            "error": why.document(),
            "expires": DateTime::from_millis(DateTime::now().timestamp_millis() + millis(retention)),
        };
        self.answer(collection, doc! { "_id": id, "state": { "$exists": false } }, set).await
    }

    async fn answer(&self, collection: &str, filter: Document, set: Document) -> Result<bool> {
        let update = doc! { "$set": set, "$currentDate": { "answered": true } };
        let outcome = self
            .requests(collection)
            .update_one(filter, update)
            .await
            .action("answer a request")
            .map_err(|e| self.explain(e))?;
        Ok(outcome.matched_count == 1)
    }

    /// Tells the author of a request how its job fares.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn tell(&self, request: &RequestRef, set: Document) -> Result<()> {
        // What is not told any more: an error of a job that goes on after it had stopped, or what it waited for.
        let over: Document = ["error", "progress.waiting"]
            .into_iter()
            .filter(|field| !set.contains_key(field))
            .map(|field| (field.to_owned(), "".into()))
            .collect();
        let mut update = doc! { "$set": set };
        if !over.is_empty() {
            update.insert("$unset", over);
        }
        self.requests(&request.collection)
            .update_one(doc! { "_id": &request.id, "state": "accepted" }, update)
            .await
            .action("tell how a job fares")?;
        Ok(())
    }

    /// Takes back that a job is stopped, before it is set going: whoever has it resumed and then waits for it is not
    /// to find that it had stopped.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn untell_stop(&self, request: &RequestRef) -> Result<()> {
        let stopped = doc! { "_id": &request.id, "state": "accepted", "error.code": "stopped" };
        self.requests(&request.collection)
            .update_one(stopped, doc! { "$unset": { "error": "" } })
            .await
            .action("tell that a job goes on")?;
        Ok(())
    }

    /// Has the request of a removed job go after a while, and those to cancel or resume it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn expire_requests(
        &self,
        request: &RequestRef,
        job: &JobId,
        retention: Duration,
    ) -> Result<()> {
        let expires = doc! { "$add": ["$$NOW", millis(retention)] };
        let pipeline = vec![doc! { "$set": { "expires": expires } }];
        self.requests(&request.collection)
            .update_many(doc! { "$or": [{ "_id": &request.id }, { "job": job }] }, pipeline)
            .await
            .action("let a request expire")?;
        Ok(())
    }

    /// Inserts a request, once: a repeat finds what was written.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::OutcomeUnknown`] when it cannot be learnt whether it was written,
    /// [`Error::Store`]; of the kind [`StoreErrorKind::DuplicateKey`] when another request has its `_id`.
    pub async fn insert_request(&self, collection: &str, asked: &Asked) -> Result<()> {
        let id = &asked.id;
        let document = crate::exact::written(asked)
            .map_err(|e| Error::Usage(format!("the job does not fit into a document: {e}")))?;
        let unsure = std::sync::atomic::AtomicBool::new(false);
        let written = until_known(async |again| {
            unsure.store(again, std::sync::atomic::Ordering::Relaxed);
            self.try_request(collection, &document, again).await
        })
        .await;
        match written {
            Err(Error::Store { source, .. })
                if source.kind != StoreErrorKind::DuplicateKey
                    && (unsure.into_inner() || source.kind == StoreErrorKind::Transient) =>
            {
                Err(Error::OutcomeUnknown {
                    what: format!("job {id} was submitted"),
                    hint: format!(
                        "`aviary status {id}` tells once the database answers; submitting again may run it twice"
                    ),
                    source,
                })
            }
            outcome => outcome,
        }
    }

    async fn try_request(&self, collection: &str, asked: &Document, again: bool) -> Result<()> {
        match self.requests(collection).insert_one(asked).await {
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey && again => {}
            outcome => {
                return outcome
                    .action("write the request")
                    .map(|_| ())
                    .map_err(|e| self.explain_request(collection, e));
            }
        }
        // An earlier try wrote it. What a majority does not have yet may still be lost.
        let found = self
            .requests(collection)
            .find_one(doc! { "_id": asked.get("_id") })
            .projection(doc! { "_id": 1 })
            .await
            .action("read the request")?;
        found.map(|_| ()).ok_or_else(|| error::not_kept_yet("write the request"))
    }

    fn explain_request(&self, collection: &str, error: Error) -> Error {
        error::not_permitted(error, || {
            format!(
                "grant the user the role aviary-submit of the database {} (deploy/roles.js makes it), or insert on its \
                 collection {collection}",
                self.db_name()
            )
        })
    }

    /// What was answered to the request for a job: by its own `_id`, or by the job's id. `None` when there is no
    /// such request.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn answer_to(&self, collection: &str, text: &str) -> Result<Option<Answer>> {
        let found = self
            .requests(collection)
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! { "$or": [{ "_id": text }, { "job": text }] })
            .projection(doc! { "state": 1, "job": 1, "error": 1 })
            .await
            .action("read the request")?;
        // What a client wrote into it itself may be anything.
        Ok(found.map(|raw| bson::deserialize_from_slice(raw.as_bytes()).unwrap_or_default()))
    }

    /// What the coordinator has told of a job: `progress`, and in the end `result` or `error`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn told(&self, collection: &str, job: &JobId) -> Result<Document> {
        let found = self
            .requests(collection)
            .find_one(doc! { "job": job })
            .projection(doc! { "progress": 1, "result": 1, "error": 1 })
            .await
            .action("read the request")?;
        found.ok_or_else(|| Error::NotFound {
            what: format!("the request for job {job}"),
            hint: "somebody removed it".into(),
        })
    }

    /// Requests without an answer that name this function by its digest.
    pub(super) async fn requests_using(&self, digest: &str) -> Result<Vec<String>> {
        const SHOWN_MAX: i64 = 10;
        let stages = ["map", "combine", "reduce", "finalize"];
        let any: Vec<Document> =
            stages.iter().map(|stage| doc! { format!("{stage}.digest"): digest }).collect();
        let mut using = Vec::new();
        let collections = match self.request_collections().await {
            // Who may not see requests can remove what one of them needs; it is refused then.
            Err(error) if error.is_unpermitted() => return Ok(using),
            collections => collections?,
        };
        for collection in collections {
            let rows: Vec<Document> = self
                .requests(&collection)
                .find(doc! { "state": { "$exists": false }, "$or": any.clone() })
                .projection(doc! { "_id": 1 })
                .limit(SHOWN_MAX)
                .await
                .action("look for requests of a function")?
                .try_collect()
                .await
                .action("look for requests of a function")?;
            using.extend(rows.iter().filter_map(|row| row.get_str("_id").ok()).map(str::to_owned));
        }
        Ok(using)
    }

    /// The requests that wait for a coordinator, as far as this user may see them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn waiting_requests(&self) -> Result<Vec<String>> {
        self.unanswered(REQUESTS, &[]).await
    }
}

/// Decodes a request; what it says may be anything.
pub fn found(collection: &str, id: String, row: &RawDocumentBuf) -> Found {
    let collection = collection.to_owned();
    if let Err(why) = shape::check(row.as_bytes()) {
        return Found { collection, id, job: None, asked: Err(Malformed { field: None, why }) };
    }
    let mut request = Document::try_from(row.as_ref()).unwrap_or_default();
    let job = request.get_str("job").ok().map(str::to_owned);
    for field in ANSWER_FIELDS {
        request.remove(field);
    }
    Found { collection, id, job, asked: decode(request) }
}

fn decode(request: Document) -> std::result::Result<Box<Asked>, Malformed> {
    const WHY_CHARS_MAX: usize = 300;
    // From its bytes: what is in a query or in parameters is left as it is only there.
    let malformed = |error: bson::error::Error| Malformed { field: None, why: error.to_string() };
    let bytes = request.to_vec().map_err(malformed)?;
    let from = bson::RawDeserializer::new(&bytes).map_err(malformed)?;
    serde_path_to_error::deserialize(from).map(Box::new).map_err(|error| {
        let path = error.path().to_string();
        let why = error.inner().to_string();
        // The driver puts a frame of its own around what is wrong.
        let why = why.rsplit_once("Message: ").map_or(why.as_str(), |(_, why)| why);
        let why: String = why.chars().take(WHY_CHARS_MAX).collect();
        Malformed { field: Some(path).filter(|path| path != "."), why }
    })
}

fn request_indexes() -> Vec<IndexModel> {
    let named = |keys: Document, name: &str| {
        let options = IndexOptions::builder().name(name.to_owned()).build();
        IndexModel::builder().keys(keys).options(options).build()
    };
    let mut expiry = named(doc! { "expires": 1 }, "expiry");
    if let Some(options) = expiry.options.as_mut() {
        options.expire_after = Some(std::time::Duration::ZERO);
    }
    vec![
        named(doc! { "state": 1, "_id": 1 }, "unanswered"),
        named(doc! { "job": 1 }, "by_job"),
        expiry,
    ]
}

/// A tenant's collection of requests.
///
/// # Errors
/// [`Error::Usage`] for what cannot be the end of a collection's name.
pub fn tenants(name: &str) -> Result<String> {
    let fits = !name.is_empty()
        && name.len() <= 60
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if fits {
        return Ok(format!("{TENANT_PREFIX}{name}"));
    }
    Err(Error::Usage(format!(
        "{name:?} is not a tenant's name; use up to 60 letters, digits, dots, hyphens and underscores"
    )))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
