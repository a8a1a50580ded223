//! Workers read where the documents lie: what the servers themselves recorded of a job's reads says so.

use std::collections::BTreeMap;

use aviary_testcontainers::ReplicaSet;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Client;

use crate::common::{Bed, Links, cluster};
use crate::jobs;

/// What one member recorded: bytes returned, by collection and by who asked.
type Reads = BTreeMap<(String, String), i64>;

/// Has a member record every read of the input and of blocks.
pub async fn record(set: &ReplicaSet, member: usize, input: &str) {
    let of = doc! {
        "ns": { "$in": [format!("test.{input}"), "test.aviary-intermediates"] },
        "op": { "$in": ["query", "getmore"] },
    };
    let command = doc! { "profile": 1, "slowms": 0, "filter": of };
    member_db(set, member).await.run_command(command).await.expect("it records");
}

/// Ends the recording and gives what there is.
pub async fn recorded(set: &ReplicaSet, member: usize) -> Reads {
    let db = member_db(set, member).await;
    db.run_command(doc! { "profile": 0 }).await.expect("it stops");
    let rows = db.collection::<Document>("system.profile").find(doc! {}).await.expect("read");
    let rows: Vec<Document> = rows.try_collect().await.expect("read");
    let mut reads = Reads::new();
    for row in rows {
        let text = |name: &str| row.get_str(name).unwrap_or("another server").to_owned();
        let bytes = row.get_i32("responseLength").expect("a length");
        *reads.entry((text("ns"), text("appName"))).or_default() += i64::from(bytes);
    }
    reads
}

async fn member_db(set: &ReplicaSet, member: usize) -> mongodb::Database {
    let port = set.port(member).expect("a member");
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    Client::with_uri_str(uri).await.expect("a client").database("test")
}

#[tokio::test(flavor = "multi_thread")]
async fn input_and_blocks_are_read_on_the_shard_they_lie_on() {
    let bed = Bed::sharded(cluster(3), Links::Direct).await.in_parts();
    jobs::load_sharded(&bed, "input", doc! { "_id": "hashed" }).await;
    let _coordinator = jobs::coordinator(&bed);
    bed.aviary(&["init"]).await.ok();
    let mut workers = Vec::new();
    for (n, shard) in bed.cluster().shard_names().iter().enumerate() {
        // The name tells the servers' records of this worker's reads from all others.
        let set = bed.cluster().shard(n).expect("a shard");
        let name = format!("appName=worker-{shard}");
        let routed = format!("{}&{name}", bed.uri());
        let port = set.port(0).expect("a member");
        let direct = format!("mongodb://127.0.0.1:{port}/?directConnection=true&{name}");
        let args = ["worker", "--slots", "1", "--uri", &routed, "--shard-uri", &direct];
        workers.push(bed.spawn("worker", &args, &[]));
        record(set, 0, "input").await;
    }
    let job = jobs::run(&bed, "input", "output").await;

    let (mut local, mut all, mut blocks) = (0, 0, 0);
    for (n, shard) in bed.cluster().shard_names().iter().enumerate() {
        let reads = recorded(bed.cluster().shard(n).expect("a shard"), 0).await;
        let sum = |namespace: &str, own: bool| -> i64 {
            let own_name = format!("worker-{shard}");
            let of =
                reads.iter().filter(|((ns, who), _)| ns == namespace && (!own || *who == own_name));
            of.map(|(_, bytes)| bytes).sum()
        };
        let (own_input, input) = (sum("test.input", true), sum("test.input", false));
        let own_blocks = sum("test.aviary-intermediates", true);
        // A coordinator looks for blocks that nobody needs now and then.
        let swept = reads.iter().filter(|((ns, who), _)| {
            ns == "test.aviary-intermediates" && who == "aviary-coordinator"
        });
        let all_blocks =
            sum("test.aviary-intermediates", false) - swept.map(|(_, bytes)| bytes).sum::<i64>();
        println!(
            "{shard}: {own_input} of {input} bytes of input and {own_blocks} of {all_blocks} bytes of \
             blocks were read by its own worker"
        );
        assert!(own_input > 0, "{shard} has a part: {reads:?}");
        assert_eq!(own_blocks, all_blocks, "{shard}: {reads:?}");
        local += own_input;
        all += input;
        blocks += own_blocks;
    }
    assert!(blocks > 0);
    assert!(local * 100 >= all * 95, "{local} of {all} bytes");
    // What was read is what there is: some 100 bytes a document.
    assert!(local > i64::from(jobs::COUNT) * 60, "{local} bytes for {job:#}");
    jobs::stop(workers).await;
}
