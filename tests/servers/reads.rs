//! How the input is read.

use aviary_testcontainers::{FailCommand, ReplicaSetOptions};
use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::common::Bed;
use crate::jobs::{counted, ended, load, submit};

const COUNT: i32 = 210;

/// A replica set whose commands can be made to fail, with some input.
async fn bed() -> Bed {
    let options = ReplicaSetOptions { test_commands: true, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await;
    load(&bed, "test", "docs", COUNT).await;
    bed
}

/// Reads of the input that fail with this code.
fn failing_reads(code: i32, times: Option<u32>) -> FailCommand {
    FailCommand {
        commands: vec!["find".into()],
        app_name: Some("aviary-worker".into()),
        namespace: Some("test.docs".into()),
        error_code: Some(code),
        times,
        ..FailCommand::default()
    }
}

/// Whatever a snapshot cannot be read for because its collection is somewhere else now does not pass.
#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_was_moved_away_ends_the_job_instead_of_being_tried_for_ever() {
    const MIGRATION_CONFLICT: i32 = 272;
    let bed = bed().await;
    bed.set().fail_command(0, &failing_reads(MIGRATION_CONFLICT, None)).await.expect("set");
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    let id = submit(&bed, "test", "out").await;
    let ended = ended(&bed, &id).await;
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert!(ended.stderr.contains("moved to another shard"), "{ended:#?}");
    assert!(ended.stderr.contains("submit the job again"), "{ended:#?}");
    assert!(bed.set().clear_fail_command(0).await.expect("cleared") > 0, "it fired");
    assert_eq!(bed.all("out").await, []);
}

/// A server may have a time limit for reads that say none themselves, which is meant for people's queries.
#[tokio::test(flavor = "multi_thread")]
async fn no_read_of_input_or_results_is_left_to_a_servers_default_time_limit() {
    let bed = bed().await;
    let all = doc! { "profile": 2, "filter": { "appName": { "$regex": "^aviary" } } };
    bed.db().run_command(all).await.expect("it records");
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    let map = bed.file("count.js", "function () { emit(this.g, { n: 1 }); }");
    let map = map.display().to_string();
    bed.load("totals", vec![doc! { "_id": 1, "value": 1 }, doc! { "_id": 99, "value": 1 }]).await;
    let reduce = bed.file("one.js", "function (key, values) { return values[0]; }");
    let reduce = reduce.display().to_string();
    let sum = ["--reduce", &reduce, "--query", r#"{"g": {"$lt": 2}}"#];
    let each = ["--query", r#"{"_id": {"$lt": 2}}"#];
    for (out, how) in [
        ("merge:totals", &sum[..]),
        ("reduce:totals", &sum),
        ("update:totals", &each),
        ("replace:totals", &sum),
        ("inline", &sum),
    ] {
        let args = ["submit", "-c", "docs", "--map", &map, "--out", out, "--quiet"];
        bed.aviary(&[&args[..], how].concat()).await.ok();
    }
    bed.aviary(&["results", "last"]).await.ok();
    bed.db().run_command(doc! { "profile": 0 }).await.expect("it stops");

    let of_command = |name| doc! { format!("command.{name}"): { "$exists": true } };
    let reads = ["find", "aggregate", "count", "distinct"].map(of_command).to_vec();
    let reads = doc! { "$or": reads };
    // What is Aviary's own is read a few documents at a time, by an index.
    let own = "^test\\.(aviary(-funcs|-intermediates|-requests|-grants)?|system\\..*|\\$cmd.*)$";
    let of_users = doc! { "ns": { "$not": { "$regex": own } } };
    let recorded = async |limited: bool| -> Vec<Document> {
        let said = doc! { "command.maxTimeMS": { "$exists": limited } };
        let filter = doc! { "$and": [reads.clone(), of_users.clone(), said] };
        let found = bed.coll("system.profile").find(filter).await.expect("read");
        found.try_collect().await.expect("read")
    };
    let of_input = recorded(true).await;
    assert!(
        of_input.iter().any(|row| row.get_str("ns").is_ok_and(|ns| ns == "test.docs")),
        "{of_input:#?}"
    );
    let left: Vec<String> = recorded(false).await.iter().map(shown).collect();
    assert!(left.is_empty(), "{left:#?}");
}

fn shown(row: &Document) -> String {
    let text = |name: &str| row.get_str(name).unwrap_or_default();
    format!("{} {}: {:?}", text("appName"), text("ns"), row.get("command"))
}

/// Some services take no cursor that is to stay, and say so with a code that means many things.
#[tokio::test(flavor = "multi_thread")]
async fn an_input_whose_server_takes_no_lasting_cursor_is_read_with_one_that_does_not_last() {
    const ATLAS_ERROR: i32 = 8_000;
    let bed = bed().await;
    let reads = doc! { "ns": "test.docs", "op": "query", "appName": "aviary-worker" };
    let all = doc! { "profile": 2, "filter": reads };
    bed.db().run_command(all).await.expect("it records");
    bed.set().fail_command(0, &failing_reads(ATLAS_ERROR, Some(1))).await.expect("set");
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    let id = submit(&bed, "test", "out").await;
    ended(&bed, &id).await.ok();
    assert_eq!(bed.set().clear_fail_command(0).await.expect("cleared"), 1, "it fired");
    assert_eq!(counted(&bed, "out").await, i64::from(COUNT));
    let read = doc! { "command.find": "docs", "ok": { "$ne": 0 } };
    let rows: Vec<Document> = bed
        .coll("system.profile")
        .find(read)
        .await
        .expect("read")
        .try_collect()
        .await
        .expect("read");
    let lasting = |row: &Document| {
        row.get_document("command").is_ok_and(|find| find.contains_key("noCursorTimeout"))
    };
    assert_eq!(rows.iter().map(lasting).collect::<Vec<_>>(), [false], "{rows:#?}");
}

/// The version of an index is the server's own affair.
#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_a_target_are_copied_without_their_version() {
    let bed = bed().await;
    bed.load("out", vec![doc! { "_id": "old", "value": 1 }]).await;
    let old = doc! { "createIndexes": "out", "indexes": [{ "key": { "value": 1 }, "name": "by_value", "v": 1 }] };
    bed.db().run_command(old).await.expect("built");
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    let id = submit(&bed, "test", "out").await;
    ended(&bed, &id).await.ok();
    let listed = bed.db().run_cursor_command(doc! { "listIndexes": "out" }).await.expect("listed");
    let indexes: Vec<Document> = listed.try_collect().await.expect("listed");
    let copied =
        indexes.iter().find(|index| index.get_str("name").is_ok_and(|name| name == "by_value"));
    assert_eq!(copied.expect("copied").get_i32("v").ok(), Some(2), "{indexes:#?}");
}
