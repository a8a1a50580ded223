//! Whoever writes functions tries to take a worker's memory, its time, its disk, or to outlast a limit.

use bson::oid::ObjectId;
use bson::{DateTime, Document, doc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::common::{ceiling, wait_for};
use crate::forged::binary;
use crate::stage::Stage;
use crate::{Attack, Outcome, Role, modules};

pub const ATTACKS: &[Attack] = &[
    attack("a function of 1 MiB takes the worker's memory to compile", |stage| {
        module(stage, modules::large_function()).boxed()
    }),
    attack("a module of 15 MB takes the worker's memory and time to compile", |stage| {
        module(stage, modules::large_functions()).boxed()
    }),
    attack("a module of 4,500,000,000 locals takes the worker's time to compile", |stage| {
        module(stage, modules::many_locals()).boxed()
    }),
    attack("keys are chosen that all fall into one place", |stage| collisions(stage).boxed()),
    attack("temporary files grow past what the operator gives", |stage| spills(stage).boxed()),
    attack("a function that never ends outlives its job", |stage| cancelled(stage).boxed()),
    attack("a function that never ends keeps a worker from stopping", |stage| {
        stopping(stage).boxed()
    }),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Author, name, run }
}

/// Stores a function as its author may, without `aviary insert`, and has it run for one second at most.
async fn module(stage: &Stage, content: Vec<u8>) -> Outcome {
    let digest = blake3::hash(&content).to_hex().to_string();
    let bytes = content.len();
    let function = doc! {
        "_id": &digest, "kind": "function", "language": "wasm", "file": "f.wasm", "stages": ["map"],
        "size": bytes as i64, "created": DateTime::now(), "content": binary(content),
    };
    stage.insert("aviary-funcs", vec![function]).await;
    let ran = stage.submit(&["--map", &digest, "--record-timeout", "1s"]).await;
    let ended = ran.map_or("does not end".to_owned(), |ran| format!("ends with {}", ran.code));
    Outcome::Held(format!("a job with these {bytes} bytes {ended}; an honest one is done"))
}

/// Hundredths of a second that a process has computed for.
fn spent(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Keys for the seed that the hash had when it was a constant: their first half makes a factor zero, whatever the other
/// four bytes are. They may take no more than a few times what others take.
async fn collisions(stage: &Stage) -> Outcome {
    const KEYS: u32 = 30_000;
    const TIMES_MAX: u64 = 4;
    const PI_3: u64 = 0x082e_fa98_ec4e_6c89;
    let chosen = (0x6176_6961_7279_0001 ^ PI_3).rotate_right(12).to_ne_bytes();
    let mut times = Vec::new();
    for heads in ["other", "chosen"] {
        let documents: Vec<Document> = (0..KEYS)
            .map(|n| {
                let head = match heads {
                    "chosen" => chosen,
                    _ => u64::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_ne_bytes(),
                };
                let id = [&head[..], &n.to_ne_bytes()].concat();
                doc! { "_id": ObjectId::from_bytes(id.try_into().unwrap()) }
            })
            .collect();
        let input = format!("keys-{heads}");
        stage.bed.load(&input, documents).await;
        let worker = stage.daemons().worker.pid();
        let before = spent(worker);
        let map = "function () { emit(this._id, 1); }";
        let args = ["submit", "-q", "-o", "name", "-c", &input, "--map", map, "--reduce", "_sum"];
        let ran = stage.run(&args).await;
        assert!(ran.is_none_or(|ran| ran.code == 0), "the job succeeds, sooner or later");
        times.push(spent(worker) - before);
    }
    let evidence =
        format!("{KEYS} keys take {} ms, chosen ones {} ms", times[0] * 10, times[1] * 10);
    Outcome::if_true(times[1] > times[0] * TIMES_MAX, evidence)
}

/// What a process has in files that have no name any more.
fn unnamed_bytes(pid: u32) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let of = |file: std::fs::DirEntry| {
        let target = std::fs::read_link(file.path()).ok()?.display().to_string();
        let memory = target.starts_with("/memfd:");
        let unnamed = target.starts_with('/') && target.ends_with(" (deleted)") && !memory;
        unnamed.then(|| std::fs::metadata(file.path()).map_or(0, |metadata| metadata.len()))
    };
    files.filter_map(of).sum()
}

/// The operator gives a worker 9,000 bytes of temporary files. A reduce of more runs than are merged at once takes more.
async fn spills(stage: &Stage) -> Outcome {
    const QUOTA: u64 = 9_000;
    let bed = &stage.bed;
    // Text that does not compress to less than half of it.
    let text = |n: i32| {
        let mut bytes = [0; 2_000];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let own = [("AVIARY_DB", "spills"), ("AVIARY_SPLIT_BYTES", "8000")];
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &own);
    let quota = QUOTA.to_string();
    let paused = bed.pause("reduce.read", |env| {
        let env = [env, &own, &[("AVIARY_SPILL_BYTES", quota.as_str())]].concat();
        bed.spawn("paused", &["worker", "--slots", "1"], &env)
    });
    let input = bed.client.database("spills").collection::<Document>("large");
    let documents = (0..120).map(|n| doc! { "_id": n, "text": text(n) });
    input.insert_many(documents).await.expect("loaded");
    let map = "function () { emit(1, this.text); }";
    let args = ["submit", "-d", "spills", "-c", "large", "--map", map, "--no-combine", "--detach"];
    let more =
        ["--reduce", "function (key, values) { return values.length; }", "--partitions", "1"];
    let ran = stage.run(&[&args[..], &more[..], &["-o", "name", "-q"]].concat()).await;
    let id = ran.expect("it ends").ok().stdout.trim().to_owned();
    let jobs = bed.client.database("spills").collection::<Document>("aviary");
    // The task is refused, or reads what it has spilled.
    let taken = wait_for("the reduce task", || async {
        if paused.process.log().unwrap_or_default().contains("halted") {
            return Some(unnamed_bytes(paused.process.pid()));
        }
        let failed = doc! { "_id": &id, "state": "failed" };
        jobs.find_one(failed).await.ok().flatten().map(|_| 0)
    })
    .await;
    let evidence = format!("{taken} bytes in temporary files, of {QUOTA}");
    Outcome::if_true(taken > QUOTA, evidence)
}

const ENDLESS: &str = "function () { console.log('begun'); while (true); }";

/// A job whose function runs, and may for twelve hours.
async fn endless(stage: &Stage) -> String {
    let args = ["--map", ENDLESS, "--record-timeout", "12h", "--detach"];
    let ran = stage.submit(&args).await;
    let id = ran.expect("it ends").ok().stdout.trim().to_owned();
    wait_for("the function to run", || async {
        let said = doc! { "job": &id, "kind": "log" };
        stage.bed.coll("aviary").find_one(said).await.expect("asked")
    })
    .await;
    id
}

/// Whether a process has a thread that computes or would. One that never ends always does.
fn computes(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let mut states = threads.map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next()
    });
    states.any(|state| state == Some('R'))
}

async fn cancelled(stage: &Stage) -> Outcome {
    const LOOKS: u32 = 5;
    let id = endless(stage).await;
    let ran = stage.run(&["cancel", &id]).await;
    ran.expect("it ends").ok();
    let worker = stage.daemons().worker;
    let rests = stage
        .within(|| async {
            for _ in 0..LOOKS {
                if computes(worker.pid()) {
                    return None;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Some(())
        })
        .await;
    if rests.is_none() {
        stage.replace_worker();
    }
    Outcome::if_true(rests.is_none(), format!("the worker rests again: {}", rests.is_some()))
}

async fn stopping(stage: &Stage) -> Outcome {
    let id = endless(stage).await;
    let worker = stage.daemons().worker;
    worker.terminate().expect("it runs");
    let gone = worker.wait_gone(stage.patience().min(ceiling())).await.is_ok();
    stage.replace_worker();
    let ran = stage.run(&["cancel", &id]).await;
    ran.expect("it ends").ok();
    Outcome::if_true(!gone, format!("the worker ends on SIGTERM: {gone}"))
}
