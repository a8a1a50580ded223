//! Jobs that are asked for by inserting a document, with nothing of ours in between.
//!
//! It proves: a driver's insert is enough to run a job and to learn its end; the server refuses typos; what is asked
//! twice runs once; what was not committed never runs; and what cannot be done is refused with the field at fault,
//! while other requests go on.

#![cfg(test)]

mod authority;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/forged.rs"]
mod forged;
mod planted;

use bson::{Document, doc};
use common::{Bed, wait_for};

/// Where everybody asks.
pub const REQUESTS: &str = "aviary-requests";

/// A deployment with some input, a coordinator and a worker.
pub async fn bed() -> (Bed, Vec<aviary_testcontainers::Managed>) {
    let bed = Bed::start(1).await;
    bed.load("orders", (0..100).map(|n| doc! { "_id": n, "k": n % 5, "v": n }).collect()).await;
    bed.aviary(&["init"]).await.ok();
    let mut daemons = vec![bed.coordinator()];
    daemons.extend(bed.workers());
    (bed, daemons)
}

/// Sums by key into a collection.
pub fn sums(id: &str, target: &str) -> Document {
    doc! {
        "_id": id,
        "v": 1,
        "input": { "collection": "orders" },
        "map": { "js": "function () { emit(this.k, this.v); }" },
        "reduce": "_sum",
        "out": { "replace": target },
    }
}

/// Inserts a request.
pub async fn insert(bed: &Bed, request: Document) {
    bed.coll(REQUESTS).insert_one(request).await.expect("inserted");
}

/// The request once it has what is asked for.
pub async fn told(bed: &Bed, id: &str, fields: &[&str]) -> Document {
    let what = format!("{fields:?} in the request {id}");
    wait_for(&what, || async {
        let found = bed.coll(REQUESTS).find_one(doc! { "_id": id }).await.ok().flatten()?;
        fields.iter().any(|field| found.contains_key(field)).then_some(found)
    })
    .await
}

/// The error that a request is refused with.
pub async fn refusal(bed: &Bed, id: &str) -> Document {
    let told = told(bed, id, &["state"]).await;
    assert_eq!(text(&told, "state"), "refused", "{told}");
    told.get_document("error").expect("an error").clone()
}

/// A field's text, or nothing.
pub fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.get_str(field).unwrap_or_default()
}

fn expected() -> Vec<Document> {
    let sum = |k: i32| (0..100).filter(|n| n % 5 == k).sum::<i32>();
    (0..5).map(|k| doc! { "_id": k, "value": f64::from(sum(k)) }).collect()
}

fn plain(documents: Vec<Document>) -> Vec<(i64, f64)> {
    let number = |value: &bson::Bson| match value {
        bson::Bson::Int32(n) => f64::from(*n),
        bson::Bson::Int64(n) => *n as f64,
        bson::Bson::Double(n) => *n,
        other => panic!("{other}"),
    };
    let row = |d: Document| {
        (number(d.get("_id").expect("_id")) as i64, number(d.get("value").expect("value")))
    };
    documents.into_iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_enough_to_run_a_job() {
    let (bed, _daemons) = bed().await;
    insert(&bed, sums("units-2026-11-28", "totals")).await;
    let told = told(&bed, "units-2026-11-28", &["result", "error"]).await;
    assert_eq!(text(&told, "state"), "accepted", "{told}");
    let result = told.get_document("result").expect("a result");
    let counters = result.get_document("counters").expect("counters");
    assert_eq!(counters.get_i64("input").ok(), Some(100), "{told}");
    let output = result.get_document("output").expect("an output");
    assert_eq!(text(output, "collection"), "totals");
    let progress = told.get_document("progress").expect("progress");
    assert_eq!(text(progress, "state"), "succeeded");
    assert_eq!(plain(bed.all("totals").await), plain(expected()));

    // People find the job by the name that they gave it.
    let status = bed.aviary(&["status", "units-2026-11-28", "-o", "json"]).await.ok();
    assert_eq!(status.json()[0]["id"].as_str(), Some(text(&told, "job")));

    // Asking twice is a duplicate key, and the command line follows what there is, if that is what it asks for.
    let again = bed.coll(REQUESTS).insert_one(sums("units-2026-11-28", "elsewhere")).await;
    assert!(again.unwrap_err().to_string().contains("E11000"));
    let args = ["submit", "-c", "orders", "--map", "function () { emit(this._id, 1); }"];
    let mut args: Vec<&str> = args.to_vec();
    args.extend(["--id", "units-2026-11-28", "-o", "name"]);
    let refused = bed.aviary(&args).await;
    assert_eq!(refused.code, 8, "{refused:#?}");
    for words in ["there is a request units-2026-11-28 already", "input, map, ", "another --id"] {
        assert!(refused.stderr.contains(words), "{words:?} is missing in {refused:#?}");
    }
    args.splice(args.len() - 3..args.len() - 2, ["counted"]);
    let first = bed.aviary(&args).await.ok();
    let followed = bed.aviary(&args).await.ok();
    assert_eq!(followed.stdout, first.stdout);
    args.extend(["--query", "{k: 1}"]);
    let refused = bed.aviary(&args).await;
    assert!(refused.stderr.contains("another job: input differ"), "{refused:#?}");
    let jobs = bed.coll("aviary").count_documents(doc! { "kind": "job" }).await.unwrap();
    assert_eq!(jobs, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_reduce_command_is_a_request() {
    let (bed, _daemons) = bed().await;
    let code = |text: &str| bson::Bson::JavaScriptCode(text.to_owned());
    let request = doc! { "_id": "command", "v": 1.0, "command": {
        "mapReduce": "orders",
        "map": code("function () { emit(this.k, this.v); }"),
        "reduce": code("function (k, vs) { return Array.sum(vs) * factor; }"),
        "finalize": code("function (k, v) { return v; }"),
        "query": { "k": { "$lt": 5 } },
        "scope": { "factor": 1 },
        "out": { "merge": "merged" },
        "jsMode": true,
    } };
    insert(&bed, request).await;
    let told = told(&bed, "command", &["result", "error"]).await;
    assert!(told.contains_key("result"), "{told}");
    assert_eq!(plain(bed.all("merged").await), plain(expected()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_refuses_typos_and_an_aborted_request_never_runs() {
    let (bed, _daemons) = bed().await;
    let mut typos = Vec::new();
    for (path, value) in [
        ("mapp", bson::Bson::from(doc! { "js": "x" })),
        ("v", 2.into()),
        ("priority", "high".into()),
        ("input", doc! { "colection": "orders" }.into()),
        ("out", doc! { "replce": "totals" }.into()),
        ("map", doc! { "javascript": "x" }.into()),
        ("reduce", "_summ".into()),
        ("limits", doc! { "memory": 5 }.into()),
    ] {
        let mut request = sums("typo", "totals");
        request.insert(path, value);
        typos.push(request);
    }
    for typo in typos {
        let refused = bed.coll(REQUESTS).insert_one(typo.clone()).await;
        let error = refused.expect_err(&typo.to_string()).to_string();
        assert!(error.contains("121") || error.contains("validation"), "{typo}: {error}");
    }

    let mut session = bed.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    bed.coll(REQUESTS).insert_one(sums("aborted", "aborted")).session(&mut session).await.unwrap();
    session.abort_transaction().await.unwrap();
    session.start_transaction().await.unwrap();
    bed.coll(REQUESTS).insert_one(sums("kept", "kept")).session(&mut session).await.unwrap();
    session.commit_transaction().await.unwrap();
    let told = told(&bed, "kept", &["result", "error"]).await;
    assert!(told.contains_key("result"), "{told}");
    assert_eq!(bed.coll(REQUESTS).count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(bed.coll("aviary").count_documents(doc! { "kind": "job" }).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_with_the_field_at_fault() {
    let (bed, _daemons) = bed().await;
    // As an older client could have, or one before the validator was there.
    let unchecked = doc! { "collMod": REQUESTS, "validationLevel": "off" };
    bed.db().run_command(unchecked).await.expect("off");
    let with = |id: &str, field: &str, value: bson::Bson| {
        let mut request = sums(id, "totals");
        request.insert(field, value);
        request
    };
    let js = || doc! { "js": "function () { emit(1, 1); }" };
    let cases: Vec<(Document, Option<&str>, &str)> = vec![
        (with("a", "input", doc! { "collection": "nowhere" }.into()), Some("input"), "not found"),
        (
            with("b", "input", doc! { "collection": "orders", "query": { "$bad": 1 } }.into()),
            Some("input"),
            "$bad",
        ),
        (with("c", "map", doc! { "name": "unknown" }.into()), Some("map"), "unknown"),
        (
            with("d", "map", doc! { "wasm": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0; 64] } }.into()),
            Some("map"),
            "WebAssembly",
        ),
        (with("e", "out", doc! { "replace": "orders" }.into()), None, "the input itself"),
        (with("f", "out", doc! { "replace": "a", "merge": "b" }.into()), Some("out"), "one of"),
        (with("g", "partitions", 60_000_000.into()), Some("partitions"), "60000000"),
        (with("h", "limits", doc! { "memoryMb": 1 << 20 }.into()), None, "limits.memoryMb"),
        (with("i", "reduce", "_median".into()), Some("reduce"), "built-in"),
        (with("j", "finalize", 7.into()), Some("finalize"), ""),
        (with("k", "typo", 7.into()), Some("typo"), "unknown field"),
        (with("l", "v", 2.into()), None, "v is 2"),
        (doc! { "_id": "m", "v": 1, "cancel": "nobody" }, Some("cancel"), "nobody"),
        (doc! { "_id": "n", "v": 1 }, None, "input"),
        (doc! { "_id": "o", "v": 1, "command": { "mapReduce": "orders" } }, Some("command"), "no map"),
        (with("p", "input", doc! { "collection": "system.users", "db": "admin" }.into()), None, "cannot be an input"),
        (with("q", "out", doc! { "merge": "aviary-grants" }.into()), None, "cannot be an output"),
        (with("r", "job", "0123456789abcdef".into()), Some("job"), "coordinator"),
        (
            doc! {
                "_id": "t", "v": 1, "input": { "collection": "orders" }, "map": js(),
                "out": { "update": "nowhere" },
            },
            Some("out"),
            "not found",
        ),
        (with("s", "map", js().into()), None, ""),
    ];
    for (request, ..) in &cases {
        insert(&bed, request.clone()).await;
    }
    for (request, field, word) in cases {
        let id = request.get_str("_id").unwrap();
        if id == "s" {
            // And one that is fine, behind all those.
            assert!(told(&bed, id, &["result", "error"]).await.contains_key("result"));
            continue;
        }
        let error = refusal(&bed, id).await;
        assert!(error.get_str("message").unwrap().contains(word), "{request}: {error}");
        assert_eq!(error.get_str("field").ok(), field, "{request}: {error}");
        assert!(
            !error.get_str("message").unwrap().contains("--"),
            "flags are for the command line: {error}"
        );
    }
    let jobs = bed.coll("aviary").count_documents(doc! { "kind": "job" }).await.unwrap();
    assert_eq!(jobs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_can_cancel_what_came_the_same_way() {
    let (bed, _daemons) = bed().await;
    bed.aviary(&["init", "--tenant", "billing"]).await.ok();
    let mut slow = sums("slow", "slow");
    slow.insert(
        "map",
        doc! { "js": "function () { for (let n = 0; n < 1e12; n++); emit(1, 1); }" },
    );
    slow.insert("limits", doc! { "recordTimeoutMs": 600_000 });
    bed.coll("aviary-requests-billing").insert_one(slow).await.unwrap();
    let job = wait_for("the tenant's job", || async {
        bed.coll("aviary").find_one(doc! { "kind": "job", "state": "mapping" }).await.ok().flatten()
    })
    .await;
    // The collection proves who it is.
    assert_eq!(text(&job, "client"), "billing");
    let id = job.get_str("_id").unwrap().to_owned();
    // Somebody else cannot even learn that it exists.
    insert(&bed, doc! { "_id": "theirs", "v": 1, "cancel": &id }).await;
    let error = refusal(&bed, "theirs").await;
    assert_eq!(text(&error, "code"), "not_found", "{error}");
    let of_billing = bed.coll("aviary-requests-billing");
    of_billing.insert_one(doc! { "_id": "end", "v": 1, "cancel": "slow" }).await.unwrap();
    let ended = wait_for("the job's end", || async {
        let found = of_billing.find_one(doc! { "_id": "slow" }).await.ok().flatten()?;
        found.get_document("error").ok().cloned()
    })
    .await;
    assert_eq!(text(&ended, "code"), "cancelled", "{ended}");
    let answer = of_billing.find_one(doc! { "_id": "end" }).await.unwrap().unwrap();
    assert_eq!(text(&answer, "state"), "accepted", "{answer}");
}
