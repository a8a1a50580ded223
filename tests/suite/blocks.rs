//! What the shuffle leaves in the database between map and reduce: blocks that are damaged there are made
//! again, and a map task may leave more runs than its own document has room for.

use crate::common::Bed;
use crate::faults_jobs as jobs;
use crate::faults_jobs::Ask;
use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use futures_util::TryStreamExt;

/// Submits a job and has it stand still between map and reduce: every block is there, nobody reads them.
async fn mapped(bed: &Bed, ask: &Ask) -> String {
    let env = [("AVIARY_HALT_AT", "reducing"), ("AVIARY_SPLIT_BYTES", "65536")];
    let doomed = bed.spawn("halting", &["coordinator"], &env);
    let id = ask.submit(bed).await;
    jobs::kill_at(&doomed, "reducing").await;
    id
}

/// A job's blocks in the order of their names.
async fn blocks(bed: &Bed, id: &str) -> Vec<Document> {
    let of_job = doc! { "_id": { "$regex": format!("^{id}/") } };
    let found = bed.coll("aviary-intermediates").find(of_job).sort(doc! { "_id": 1 }).await;
    found.expect("found").try_collect().await.expect("read")
}

async fn change(bed: &Bed, block: &Document, set: Document) {
    let this = doc! { "_id": block.get("_id"), "shard": block.get("shard") };
    let changed = bed.coll("aviary-intermediates").update_one(this, doc! { "$set": set }).await;
    assert_eq!(changed.expect("changed").modified_count, 1);
}

fn data(block: &Document) -> Vec<u8> {
    block.get_binary_generic("data").expect("data").clone()
}

fn binary(bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })
}

/// The number of the map task that wrote a block: `JOB/pPARTITION/TASK/TOKEN/RUN.SEQ`.
fn task_of(block: &Document) -> i64 {
    let name = jobs::text(block, "_id");
    name.split('/').nth(2).expect("a task").parse().expect("a number")
}

fn of_kind<'a>(tasks: &'a [Document], kind: &str) -> Vec<&'a Document> {
    tasks.iter().filter(|task| jobs::text(task, "kind") == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_made_again() {
    let bed = Bed::start(1).await;
    jobs::load_many(&bed).await;
    let worker = bed.worker_apart();
    let id = mapped(&bed, &Ask::new("many", "damaged")).await;
    let whole = blocks(&bed, &id).await;
    // One block of each of four map tasks, each damaged in its own way.
    let of_task = |n| whole.iter().find(|block| task_of(block) == n).expect("a block of each task");
    let mut flipped = data(of_task(0));
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let mut cut = data(of_task(1));
    cut.truncate(2);
    let damages = [
        doc! { "data": binary(flipped) },
        doc! { "data": binary(cut) },
        doc! { "records": 1_i64 },
        doc! { "codec": "lz4" },
    ];
    for (n, damage) in (0..).zip(&damages) {
        change(&bed, of_task(n), damage.clone()).await;
    }

    let coordinator = jobs::coordinator(&bed);
    jobs::succeeded(&bed, &id).await;
    jobs::assert_recounted(&bed, "many", &bed.all("damaged").await).await;
    let tasks = jobs::tasks(&bed, &id).await;
    for task in of_kind(&tasks, "map") {
        let again = jobs::number(task, "n") < 4;
        let expected: &[&str] = if again { &["done", "done"] } else { &["done"] };
        assert_eq!(jobs::outcomes(task), expected, "{task:#?}");
    }
    let met: Vec<&str> = of_kind(&tasks, "reduce")
        .into_iter()
        .flat_map(jobs::history)
        .filter(|ended| jobs::text(ended, "outcome") == "block damaged")
        .map(|ended| jobs::text(ended, "error"))
        .collect();
    assert_eq!(met.len(), damages.len(), "{met:#?}");
    for (n, words) in [(0, "checksum"), (1, "checksum"), (2, "checksum"), (3, "malformed")] {
        let name = jobs::text(of_task(n), "_id");
        let told = met.iter().any(|error| error.contains(name) && error.contains(words));
        assert!(told, "{words:?} of {name} is missing in {met:#?}");
    }
    jobs::nothing_left(&bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}

/// So few keys that a map task leaves little behind.
const FEW_KEYS: (&str, &str) = (
    "function () { emit(this.k % 200, this.v); }",
    "function (key, values) { return Array.sum(values); }",
);

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_in_its_tasks_document_is_made_again() {
    let bed = Bed::start(1).await;
    jobs::load_many(&bed).await;
    let worker = bed.worker();
    let id = mapped(&bed, &Ask { functions: Some(FEW_KEYS), ..Ask::new("many", "inside") }).await;
    assert!(blocks(&bed, &id).await.is_empty(), "little is left behind");
    let tasks = jobs::tasks(&bed, &id).await;
    let maps = of_kind(&tasks, "map");
    let kept = |n: usize| {
        let parts = maps[n].get_document("result").and_then(|result| result.get_array("parts"));
        let part = parts.expect("parts")[0].as_document().expect("a part");
        part.get_array("kept").expect("blocks")[0].as_document().expect("a block").clone()
    };
    let mut flipped = data(&kept(0));
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let damages = [
        doc! { "$set": { "result.parts.0.kept.0.data": binary(flipped) } },
        doc! { "$set": { "result.parts.0.kept.0.records": 1_i64 } },
        doc! { "$set": { "result.parts.0.kept": [] } },
        doc! { "$set": { "result.parts.0.kept.0.seq": 5_i64 } },
    ];
    for (map, damage) in maps.iter().zip(&damages) {
        let this = doc! { "_id": map.get("_id"), "shard": map.get("shard") };
        let changed = bed.coll("aviary").update_one(this, damage.clone()).await.expect("changed");
        assert_eq!(changed.modified_count, 1);
    }

    let coordinator = jobs::coordinator(&bed);
    jobs::succeeded(&bed, &id).await;
    let mut expected = vec![0.0; 200];
    for row in bed.all("many").await {
        expected[jobs::number(&row, "k") as usize % 200] += jobs::number(&row, "v") as f64;
    }
    let found = bed.all("inside").await;
    let found: Vec<f64> = found.iter().map(|row| row.get_f64("value").expect("a sum")).collect();
    assert_eq!(found, expected);
    let tasks = jobs::tasks(&bed, &id).await;
    for task in of_kind(&tasks, "map") {
        let again = jobs::number(task, "n") < 4;
        let expected: &[&str] = if again { &["done", "done"] } else { &["done"] };
        assert_eq!(jobs::outcomes(task), expected, "{task:#?}");
        // What nobody needs any more is gone.
        assert!(!task.to_string().contains("kept"), "{task}");
    }
    jobs::nothing_left(&bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_damaged_again_and_again_end_the_job() {
    let bed = Bed::start(1).await;
    jobs::load_few(&bed).await;
    let worker = bed.worker_apart();
    let id = mapped(&bed, &Ask::new("few", "kept")).await;
    // A reduce task that has been through this so often that chance is no explanation any more.
    let before: Vec<Document> = (0..8_i64)
        .map(|n| doc! { "epoch": n + 1, "worker": "w", "outcome": "block damaged" })
        .collect();
    let block = blocks(&bed, &id).await.remove(0);
    let name = jobs::text(&block, "_id").to_owned();
    let partition = name.split('/').nth(1).expect("a partition");
    let partition: i64 = partition.trim_start_matches('p').parse().expect("a number");
    let tasks = jobs::tasks(&bed, &id).await;
    let mut reduce = of_kind(&tasks, "reduce").into_iter();
    let reduce = reduce.find(|task| jobs::number(task, "n") == partition).expect("its task");
    let this = doc! { "_id": reduce.get("_id"), "shard": reduce.get("shard") };
    let set = doc! { "$set": { "history": before } };
    let changed = bed.coll("aviary").update_one(this, set).await.expect("changed");
    assert_eq!(changed.modified_count, 1);
    let mut bytes = data(&block);
    bytes[3] ^= 1;
    change(&bed, &block, doc! { "data": binary(bytes) }).await;

    let coordinator = jobs::coordinator(&bed);
    let waited = bed.aviary(&["status", "--watch", &id]).await;
    assert_eq!(waited.code, 3, "{waited:#?}");
    for word in [name.as_str(), "damaged", "8 times before", "failing disk"] {
        assert!(waited.stderr.contains(word), "{word:?} is missing: {waited:#?}");
    }
    assert!(bed.all("kept").await.is_empty());
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}

/// 150 MB of emits that nothing combines: a map task spills them in several runs.
const WIDE_MAP: &str = "function () {
  const pad = 'x'.repeat(100000);
  for (let n = 0; n < 5; n++) emit(this._id * 5 + n, { n: n, pad: pad });
}";
const WIDE_REDUCE: &str = "function (key, values) { throw new Error('one value a key'); }";
const WIDE_FINALIZE: &str =
    "function (key, value) { return { n: value.n, length: value.pad.length }; }";

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_is_too_large_for_its_task_is_read_from_beside_the_blocks() {
    let bed = Bed::start(1).await;
    bed.load("wide", (0..300).map(|n| doc! { "_id": n }).collect()).await;
    // No manifest fits.
    let env = [("AVIARY_MANIFEST_BYTES", "100")];
    let worker = bed.spawn("worker", &["worker", "--slots", "1"], &env);
    let finalize = bed.file("finalize.js", WIDE_FINALIZE).display().to_string();
    let finalize: &'static str = finalize.leak();
    let ask = Ask {
        functions: Some((WIDE_MAP, WIDE_REDUCE)),
        flags: vec!["--sort", r#"{"_id": 1}"#, "--finalize", finalize, "--skip-single-values"],
        ..Ask::new("wide", "narrow")
    };
    let id = mapped(&bed, &ask).await;
    let tasks = jobs::tasks(&bed, &id).await;
    let [map] = of_kind(&tasks, "map")[..] else { panic!("a sorted job has one map task") };
    let result = map.get_document("result").expect("a result");
    let parts = result.get_array("parts").expect("parts");
    assert_eq!(parts.len(), 3);
    for part in parts {
        let part = part.as_document().expect("a document");
        assert!(jobs::number(part, "apart") > 1 && !part.contains_key("runs"), "{part}");
    }
    let of_job = blocks(&bed, &id).await;
    let is_runs = |block: &&Document| jobs::text(block, "_id").ends_with("/runs");
    let runs: Vec<&Document> = of_job.iter().filter(is_runs).collect();
    assert_eq!(runs.len(), 3, "one for each partition");

    // One is lost and another damaged: each is made again with the blocks it names.
    let this = doc! { "_id": runs[0].get("_id"), "shard": runs[0].get("shard") };
    let gone = bed.coll("aviary-intermediates").delete_one(this).await.expect("deleted");
    assert_eq!(gone.deleted_count, 1);
    let mut bytes = data(runs[1]);
    bytes[0] ^= 1;
    change(&bed, runs[1], doc! { "data": binary(bytes) }).await;

    let coordinator = jobs::coordinator(&bed);
    jobs::succeeded(&bed, &id).await;
    let found = bed.all("narrow").await;
    assert_eq!(found.len(), 1_500);
    for (key, row) in (0_i64..).zip(&found) {
        let value = row.get_document("value").expect("a value");
        assert_eq!(jobs::number(row, "_id"), key);
        assert_eq!(jobs::number(value, "n"), key % 5, "{row}");
        assert_eq!(jobs::number(value, "length"), 100_000, "{row}");
    }
    let tasks = jobs::tasks(&bed, &id).await;
    let of_map = jobs::outcomes(of_kind(&tasks, "map")[0]);
    assert!(of_map.len() > 1 && of_map.iter().all(|outcome| outcome == "done"), "{of_map:?}");
    let met: Vec<String> = of_kind(&tasks, "reduce").into_iter().flat_map(jobs::outcomes).collect();
    assert!(met.iter().any(|outcome| outcome.starts_with("block ")), "{met:?}");
    jobs::nothing_left(&bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}
