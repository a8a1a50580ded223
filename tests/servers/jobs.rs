//! Documents and a job that these tests share.

use bson::{Document, Timestamp, doc};

use crate::common::{Bed, Ran, wait_for};

const GROUPS: i32 = 7;

/// So many documents, in groups.
pub fn documents(count: i32) -> Vec<Document> {
    (0..count).map(|n| doc! { "_id": n, "g": n % GROUPS }).collect()
}

/// Loads documents into a collection of any database.
pub async fn load(bed: &Bed, db: &str, collection: &str, count: i32) {
    let into = bed.client.database(db).collection::<Document>(collection);
    into.insert_many(documents(count)).await.expect("loaded");
}

/// Submits a job that counts `docs` of a database by group, and gives its id.
pub async fn submit(bed: &Bed, db: &str, out: &str) -> String {
    submit_with(bed, db, out, &[]).await
}

/// The same with more flags.
pub async fn submit_with(bed: &Bed, db: &str, out: &str, more: &[&str]) -> String {
    let map = bed.file("count.js", "function () { emit(this.g, 1); }").display().to_string();
    let out = format!("replace:{out}");
    let args = ["submit", "-c", "docs", "--input-db", db, "--map", &map, "--reduce", "_sum"];
    let rest = ["--out", &out, "--out-db", "test", "--detach", "--quiet", "-o", "name"];
    bed.aviary(&[&args[..], &rest, more].concat()).await.ok().stdout.trim().to_owned()
}

/// Waits for a job's end.
pub async fn ended(bed: &Bed, id: &str) -> Ran {
    bed.aviary(&["status", id, "-w", "--quiet"]).await
}

/// How many documents a job's results count.
pub async fn counted(bed: &Bed, out: &str) -> i64 {
    let count = |row: &Document| row.get_f64("value").expect("a count") as i64;
    bed.all(out).await.iter().map(count).sum()
}

/// The instant at which a job reads its input, once it is fixed.
pub async fn snapshot(bed: &Bed, id: &str) -> Timestamp {
    wait_for("the job's instant", || async {
        let job = bed.coll("aviary").find_one(doc! { "_id": id }).await.ok()??;
        job.get_timestamp("snapshot").ok()
    })
    .await
}
