//! Whoever may submit asks for what only the fleet may do, or for what never ends.

use aviary_testcontainers::ReplicaSetOptions;
use bson::{Document, doc};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use mongodb::Client;

use crate::common::{Bed, mongosh, root};
use crate::stage::Stage;
use crate::{Attack, Outcome, Role};

pub const ATTACKS: &[Attack] = &[
    attack("a job reads another database that nobody has granted", |stage| read(stage).boxed()),
    attack("a job replaces a collection of another database", |stage| {
        write(stage, "replace:kept").boxed()
    }),
    attack("a job merges into a collection of another database", |stage| {
        write(stage, "merge:kept").boxed()
    }),
    attack("a query with $where goes on after its job's end", |stage| {
        query(
            stage,
            r#"{"$where": "var t = Date.now(); while (Date.now() - t < 30000) {} return true;"}"#,
        )
        .boxed()
    }),
    attack("a query with $function goes on after its job's end", |stage| {
        query(stage, r#"{"$expr": {"$function": {"body": "function () { var t = Date.now(); while (Date.now() - t < 30000) {} return true; }", "args": [], "lang": "js"}}}"#).boxed()
    }),
    attack("the role to submit with changes others' jobs and collections", |stage| {
        changes(stage).boxed()
    }),
    attack("the role to submit with reads what functions log and find", |stage| {
        reads(stage).boxed()
    }),
    attack("the fleet's role reads config, which holds documents of all", |stage| {
        config(stage).boxed()
    }),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Submitter, name, run }
}

async fn read(stage: &Stage) -> Outcome {
    let theirs = stage.bed.client.database("theirs").collection::<Document>("secret");
    theirs.insert_many((0..10).map(|n| doc! { "_id": n, "g": n })).await.expect("kept");
    let map = stage.map();
    let args =
        ["submit", "-q", "-o", "name", "--input-db", "theirs", "-c", "secret", "--map", &map];
    let ran =
        stage.run(&[&args[..], &["--reduce", "_count", "--out", "replace:loot"]].concat()).await;
    let loot = stage.count("test", "loot").await;
    let code = ran.map(|ran| ran.code);
    Outcome::if_true(loot > 0, format!("submit ends with {code:?}, {loot} documents of theirs"))
}

async fn write(stage: &Stage, out: &str) -> Outcome {
    let kept = stage.bed.client.database("theirs").collection::<Document>("kept");
    kept.drop().await.expect("gone");
    stage.precious("theirs", "kept").await;
    let map = stage.map();
    let more = ["--map", &map, "--reduce", "_count", "--out", out, "--out-db", "theirs"];
    let ran = stage.submit(&more).await;
    let written = kept.count_documents(doc! { "_id": { "$type": "number" } }).await.expect("asked");
    let code = ran.map(|ran| ran.code);
    Outcome::if_true(written > 0, format!("submit ends with {code:?}, {written} documents written"))
}

/// Operations of readers on the input, as the server sees them.
async fn reading(stage: &Stage) -> Vec<Document> {
    let admin = stage.bed.client.database("admin");
    let running = admin.aggregate([
        doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
        doc! { "$match": { "ns": "test.few", "appName": "aviary-worker" } },
    ]);
    running.await.expect("asked").try_collect().await.expect("read")
}

/// Submits a job whose query takes 20 minutes, and waits until the server is at it.
async fn begun(stage: &Stage, query: &str) -> String {
    let map = stage.map();
    let ran = stage.submit(&["--map", &map, "--query", query, "--detach"]).await;
    let id = ran.expect("it ends").ok().stdout.trim().to_owned();
    let running = || async { (!reading(stage).await.is_empty()).then_some(()) };
    stage.within(running).await.expect("the query runs");
    id
}

/// Waits until no query runs; ends those that do, so that they are in nobody's way.
async fn gone(stage: &Stage) -> bool {
    let gone =
        stage.within(|| async { reading(stage).await.is_empty().then_some(()) }).await.is_some();
    for operation in reading(stage).await {
        let Some(op) = operation.get("opid") else { continue };
        let kill = doc! { "killOp": 1, "op": op.clone() };
        stage.bed.client.database("admin").run_command(kill).await.expect("asked");
    }
    gone
}

async fn query(stage: &Stage, query: &str) -> Outcome {
    let id = begun(stage, query).await;
    let ran = stage.run(&["cancel", &id]).await;
    ran.expect("it ends").ok();
    let gone = gone(stage).await;
    Outcome::if_true(!gone, format!("the query ends with its cancelled job: {gone}"))
}

/// A deployment that asks its clients who they are, with the roles that come with the program.
pub struct Guarded {
    bed: Bed,
    /// Somebody who has the role to submit with, and somebody who has the fleet's.
    submitter: Client,
    fleet: Client,
}

impl Guarded {
    /// None without a mongosh to make the roles with.
    async fn open(stage: &Stage) -> Option<Self> {
        let mongosh = mongosh().await?;
        let iterations = ("scramSHA256IterationCount".to_owned(), "5000".to_owned());
        let options =
            ReplicaSetOptions { auth: true, parameters: vec![iterations], ..Default::default() };
        let mut bed = Bed::with(options).await;
        bed.program.clone_from(&stage.bed.program);
        // The attacked one's lie in its repository, above its target directory.
        let above = bed.program.ancestors().find(|dir| dir.join("deploy").is_dir());
        let deploy = above.unwrap_or(root()).join("deploy");
        // There was one role for all once.
        let one = deploy.join("role.js");
        let (script, submit, fleet) = match one.is_file() {
            true => (one, ("aviary", "admin"), ("aviary", "admin")),
            false => {
                let script = deploy.join("roles.js");
                (script, ("aviary-submit", "test"), ("aviary-fleet", "admin"))
            }
        };
        let made = tokio::process::Command::new(mongosh)
            .arg(bed.set().uri())
            .args(["--quiet", "--file"])
            .arg(script)
            .envs([("DB", "test"), ("INPUT_DB", "test"), ("OUTPUT_DB", "test")])
            .output()
            .await
            .expect("mongosh runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        bed.aviary(&["init"]).await.ok();
        bed.db().run_command(doc! { "collMod": "aviary", "validator": {} }).await.expect("bare");
        bed.load("aviary", vec![doc! { "_id": "job" }, doc! { "_id": "log" }]).await;
        bed.load("orders", vec![doc! { "_id": 1 }]).await;
        let user = async |name: &str, (role, db): (&str, &str)| {
            let roles = vec![bson::Bson::from(doc! { "role": role, "db": db })];
            bed.set().create_user(name, "secret", roles).await.expect("a user");
            Client::with_uri_str(bed.set().uri_for_user(name, "secret")).await.expect("a client")
        };
        let (submitter, fleet) = (user("submitter", submit).await, user("fleet", fleet).await);
        Some(Self { bed, submitter, fleet })
    }

    async fn of(stage: &Stage) -> Option<&Self> {
        stage.guarded.get_or_init(|| Self::open(stage)).await.as_ref()
    }
}

const NO_MONGOSH: Outcome = Outcome::Untried("mongosh");

async fn changes(stage: &Stage) -> Outcome {
    let Some(guarded) = Guarded::of(stage).await else { return NO_MONGOSH };
    let db = guarded.submitter.database("test");
    let set = doc! { "$set": { "state": "cancelled" } };
    let job = doc! { "_id": "job" };
    let changed = db.collection::<Document>("aviary").update_one(job, set).await.is_ok();
    let dropped = db.collection::<Document>("orders").drop().await.is_ok();
    let left = guarded.bed.all("orders").await.len();
    let evidence = format!("changes a job: {changed}, drops a collection: {dropped}");
    Outcome::if_true(changed || left == 0, evidence)
}

async fn reads(stage: &Stage) -> Outcome {
    let Some(guarded) = Guarded::of(stage).await else { return NO_MONGOSH };
    let logs = guarded.submitter.database("test").collection::<Document>("aviary");
    let found = logs.find_one(doc! { "_id": "log" }).await.ok().flatten().is_some();
    Outcome::if_true(found, format!("it reads logs: {found}"))
}

async fn config(stage: &Stage) -> Outcome {
    let Some(guarded) = Guarded::of(stage).await else { return NO_MONGOSH };
    let mut read = Vec::new();
    for name in ["image_collection", "transactions", "system.sessions"] {
        let collection = guarded.fleet.database("config").collection::<Document>(name);
        if collection.find_one(doc! {}).await.is_ok() {
            read.push(name);
        }
    }
    Outcome::if_true(!read.is_empty(), format!("of config it reads {read:?}"))
}
