//! What the documents tell people to type into mongosh is typed into the real mongosh.

use std::process::{Command, Stdio};

use crate::common::{Bed, mongosh, root, wait_for};
use bson::doc;

const MARKER: &str = "<!-- mongosh: tasks and leases of a running job -->";

/// The one line in the block after the marker.
fn query_of_docs() -> String {
    let page =
        std::fs::read_to_string(root().join("docs/how-to/look-inside.md")).expect("the page");
    let (_, after) = page.split_once(MARKER).expect("the page has the marker");
    let mut lines = after.lines().skip_while(|line| line.trim().is_empty());
    assert!(lines.next().is_some_and(|line| line.starts_with("```")), "a block follows the marker");
    let block: Vec<&str> = lines.take_while(|line| !line.starts_with("```")).collect();
    assert_eq!(block.len(), 1, "one line: {block:?}");
    block[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn mongosh_shows_tasks_and_leases_of_a_running_job() {
    let Some(mongosh) = mongosh().await else { return };
    let query = query_of_docs();
    let bed = Bed::start(1).await;
    bed.load("docs", (0..50).map(|n| doc! { "_id": n, "g": n % 3 }).collect()).await;
    let map = bed.file("map.js", "function () { emit(this.g, 1); }").display().to_string();
    let _coordinator = bed.coordinator();
    let worker = bed.halting(&["worker", "--slots", "1"], "map.commit");
    let submit = ["submit", "--detach", "-c", "docs", "--map", &map, "--reduce", "_sum"];
    let job = bed.aviary(&submit).await.ok().stdout.trim().to_owned();
    worker.wait_for_log("halted").await.unwrap();
    let leased = wait_for("the lease", async || {
        bed.coll("aviary").find_one(doc! { "job": &job, "state": "leased" }).await.unwrap()
    })
    .await;

    let uri = bed.uri().replace("/?", "/test?");
    let ask = |eval: &str| {
        let shell = Command::new(&mongosh)
            .args([&uri, "--quiet", "--norc", "--eval", eval])
            .env("HOME", bed.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("mongosh runs");
        let out = String::from_utf8_lossy(&shell.stdout).into_owned();
        assert!(shell.status.success(), "{eval}\n{out}\n{shell:?}");
        out
    };
    // As a person sees it.
    let seen = ask(&query);
    for part in [&job, leased.get_str("worker").unwrap(), "leased", "until: ISODate("] {
        assert!(seen.contains(part), "{part:?} is missing in {seen}");
    }
    // And field by field.
    let out = ask(&format!("EJSON.stringify(({query}).toArray())"));
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).expect("JSON");
    assert_eq!(rows.len(), 1, "{out}");
    let row = &rows[0];
    assert_eq!(row["_id"], leased.get_str("_id").unwrap());
    assert_eq!(row["worker"], leased.get_str("worker").unwrap());
    assert_eq!(row["state"], "leased");
    assert_eq!(row["attempts"], 1);
    let until = row["until"]["$date"].as_str().expect("until is a date");
    let until = bson::DateTime::parse_rfc3339_str(until).unwrap();
    assert!(until >= leased.get_datetime("leased").copied().unwrap(), "{out}");
}
