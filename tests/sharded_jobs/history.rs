//! What a cluster remembers of who owned what: a job whose instant is fixed reads it as of then, whatever
//! happens to chunks; and where the cluster has forgotten, the job takes a later instant, or says so.

use bson::{Document, Timestamp, doc};
use mongodb::error::ErrorKind;

use crate::common::{Bed, Links, Paused, cluster, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_were_merged_end_a_job_that_reads_through_the_router_and_no_other() {
    let mut bed = Bed::sharded(cluster(2), Links::Direct).await;
    let _coordinator = jobs::coordinator(&bed);
    for links in [Links::Direct, Links::Routed] {
        bed.links = links;
        let input = format!("merged_{links:?}").to_lowercase();
        jobs::load_sharded(&bed, &input, doc! { "n": 1 }).await;
        let workers: Vec<Paused> = match links {
            Links::Routed => vec![bed.paused_worker("map.call")],
            _ => (0..2).map(|shard| bed.paused_worker_of(shard, "map.call")).collect(),
        };
        for worker in &workers {
            bed.known(&worker.process).await;
        }
        let id = submit(&bed, &input, "merged_out").await;
        for worker in &workers {
            worker.arrived().await;
        }
        // Other tasks have not begun to read yet.
        bring_together(&bed, &input, "s1").await;
        workers.iter().for_each(Paused::go_on);
        let ended = bed.aviary(&["status", &id, "-w", "-o", "json", "--quiet"]).await;
        let job = ended.json().remove(0);
        if links == Links::Direct {
            assert_eq!(job["counters"]["input"], jobs::COUNT, "{job:#}");
            assert_eq!(jobs::counted(&bed.all("merged_out").await), jobs::recount());
        } else {
            assert_eq!(job["state"], "failed", "{job:#}");
            let message = job["error"]["message"].as_str().expect("a message");
            let words =
                ["merged", "--shard-uri", "minSnapshotHistoryWindowInSeconds", "--read committed"];
            for word in words {
                assert!(message.contains(word), "{word} is missing: {job:#}");
            }
        }
        jobs::stop(workers.into_iter().map(|worker| worker.process).collect()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_outlasts_the_history_of_a_shard_says_what_to_raise() {
    let bed = Bed::sharded(cluster(2), Links::Direct).await;
    jobs::load_sharded(&bed, "input", doc! { "n": 1 }).await;
    let _coordinator = jobs::coordinator(&bed);
    let workers = [0, 1].map(|shard| bed.paused_worker_of(shard, "map.call"));
    for worker in &workers {
        bed.known(&worker.process).await;
    }
    let id = submit(&bed, "input", "output").await;
    for worker in &workers {
        worker.arrived().await;
    }
    let time = snapshot(&bed, &id).await;
    for server in bed.servers().await {
        let short = doc! { "setParameter": 1, "minSnapshotHistoryWindowInSeconds": 0 };
        server.database("admin").run_command(short).await.expect("set");
        wait_for("the instant to age", || async {
            let read = doc! {
                "find": "input",
                "limit": 1,
                "readConcern": { "level": "snapshot", "atClusterTime": time },
            };
            let read = server.database("test").run_command(read).await;
            let error = read.err()?;
            matches!(&*error.kind, ErrorKind::Command(told) if told.code == 239).then_some(())
        })
        .await;
    }
    workers.iter().for_each(Paused::go_on);
    let ended = bed.aviary(&["status", &id, "-w", "-o", "json", "--quiet"]).await;
    let job = ended.json().remove(0);
    assert_eq!(job["state"], "failed", "{job:#}");
    let message = job["error"]["message"].as_str().expect("a message");
    for word in ["minSnapshotHistoryWindowInSeconds", "init --history-window", "--read committed"] {
        assert!(message.contains(word), "{word} is missing: {job:#}");
    }
}

/// Submits the job and gives its id.
async fn submit(bed: &Bed, input: &str, output: &str) -> String {
    let (map, reduce) = (bed.file("map.js", jobs::MAP), bed.file("reduce.js", jobs::REDUCE));
    let (map, reduce) = (map.display().to_string(), reduce.display().to_string());
    let out = format!("replace:{output}");
    let args = ["submit", "-c", input, "--map", &map, "--reduce", &reduce, "--out", &out];
    let args = [&args[..], &["--partitions", "3", "--detach", "-o", "name"]].concat();
    bed.aviary(&args).await.ok().stdout.trim().to_owned()
}

/// Moves all of a collection to one shard, and makes one chunk of it.
async fn bring_together(bed: &Bed, name: &str, to: &str) {
    let namespace = format!("test.{name}");
    let chunks = bed.cluster().chunks(&namespace).await.expect("chunks");
    for chunk in chunks.iter().filter(|chunk| chunk.shard != to) {
        bed.cluster().move_range(&namespace, chunk.min.clone(), to, true).await.expect("moved");
    }
    let ends = chunks.first().zip(chunks.last()).expect("chunks");
    let bounds = [ends.0.min.clone(), ends.1.max.clone()].map(bson::Bson::Document).to_vec();
    let merge = doc! { "mergeChunks": &namespace, "bounds": bounds };
    bed.cluster().run_admin(merge).await.expect("merged");
    assert_eq!(bed.cluster().chunks(&namespace).await.expect("chunks").len(), 1);
}

/// The instant that a coordinator before this has fixed may be too old by now, and nothing was read at it.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_made_again_is_made_at_an_instant_of_its_own() {
    let bed = Bed::sharded(cluster(2), Links::Direct).await;
    let workers = bed.workers();
    for (input, merges) in [("moved", false), ("together", true)] {
        jobs::load_sharded(&bed, input, doc! { "n": 1 }).await;
        let output = format!("{input}_out");
        let id = submit(&bed, input, &output).await;
        let planner = bed.halting(&["coordinator"], "plan.written");
        planner.wait_for_log("halted").await.expect("it reaches the place");
        let fixed = snapshot(&bed, &id).await;
        if merges {
            bring_together(&bed, input, "s1").await;
        } else {
            change_hands(&bed, input).await;
        }
        // What was not there at that instant.
        let late = doc! { "_id": "late", "n": 1, "key": 0, "v": 0 };
        bed.coll(input).insert_one(late).await.expect("inserted");
        planner.kill().expect("killed");
        let coordinator = jobs::coordinator(&bed);
        let ended = bed.aviary(&["status", &id, "-w", "-o", "json", "--quiet"]).await.ok();
        let job = ended.json().remove(0);
        let read_at = snapshot(&bed, &id).await;
        let places = jobs::shards_of(&bed, &job, "map").await;
        assert!(read_at > fixed, "{read_at} {fixed}");
        assert_eq!(job["counters"]["input"], jobs::COUNT + 1, "{job:#}");
        assert!(!bed.all(&output).await.is_empty());
        if merges {
            assert_eq!(places.into_keys().collect::<Vec<_>>(), ["s1"]);
        }
        jobs::stop(vec![coordinator]).await;
    }
    jobs::stop(workers).await;
}

/// The instant at which a job reads its input.
async fn snapshot(bed: &Bed, id: &str) -> Timestamp {
    wait_for("the job's instant", || async {
        let job = bed.coll("aviary").find_one(doc! { "_id": id }).await.ok()??;
        job.get_timestamp("snapshot").ok()
    })
    .await
}

/// Gives every chunk to the other shard, in two parts.
async fn change_hands(bed: &Bed, name: &str) {
    let namespace = format!("test.{name}");
    for chunk in bed.cluster().chunks(&namespace).await.expect("chunks") {
        let to = if chunk.shard == "s0" { "s1" } else { "s0" };
        if let (Ok(min), Ok(max)) = (chunk.min.get_i32("n"), chunk.max.get_i32("n")) {
            let middle: Document = doc! { "n": min.midpoint(max) };
            bed.cluster().split(&namespace, middle.clone()).await.expect("split");
            bed.cluster().move_range(&namespace, middle, to, true).await.expect("moved");
        }
        bed.cluster().move_range(&namespace, chunk.min, to, true).await.expect("moved");
    }
}
