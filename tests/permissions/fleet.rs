//! The role of coordinators and workers: with any privilege less, something breaks.

use aviary_testcontainers::Managed;
use bson::{Document, doc};

use crate::common::{Bed, mongosh, wait_for};
use crate::{DATABASES, refusal, shortened, user};
use crate::{INPUT, OUTPUT, OWN, Privilege, aviary, but, functions, make_roles, privileges};

/// A fleet of one coordinator and one worker in databases of its own.
struct Fleet<'a> {
    bed: &'a Bed,
    uri: String,
    own: String,
    output: String,
}

impl Fleet<'_> {
    /// Does all that a fleet does once, and says what was the first to be refused.
    async fn live(&self) -> Result<(), String> {
        let [map, emit] = functions(self.bed);
        let (map, emit) = (map.to_str().unwrap(), emit.to_str().unwrap());
        let target = self.bed.client.database(&self.output);
        let rows = target.collection::<Document>("totals");
        rows.insert_one(doc! { "_id": "old" }).await.unwrap();
        let index = mongodb::IndexModel::builder().keys(doc! { "value": 1 }).build();
        rows.create_index(index).await.unwrap();

        self.run(&["init"], &[]).await?;
        // Once more, as after an upgrade.
        self.run(&["init"], &[]).await?;
        let go_on = self.bed.dir.path().join(format!("{}-go-on", self.own));
        let halt =
            [("AVIARY_HALT_AT", "publish.staged"), ("AVIARY_HALT_UNTIL", go_on.to_str().unwrap())];
        let coordinator = self.spawn("coordinator", &[]);
        let worker = self.spawn("worker", &halt);
        let daemons = [&coordinator, &worker];

        let input = ["-c", "orders", "--input-db", INPUT, "--timeout", "10m"];
        let submit = |functions: &[&str], out: &str| -> Vec<String> {
            let words = ["submit"].iter().chain(&input).chain(functions);
            let output = ["--out", out, "--out-db", &self.output];
            let output = if out == "inline" { &output[..2] } else { &output[..] };
            words.chain(output).map(|word| (*word).to_owned()).collect()
        };
        let sum = ["--map", map, "--reduce", "_sum"];
        let change = async {
            // The target gets another option while its successor is in the making.
            wait_for("the worker to publish", || async {
                let log = worker.log().unwrap_or_default();
                (log.contains("halted") || refusal(&log).is_some()).then_some(())
            })
            .await;
            let images =
                doc! { "collMod": "totals", "changeStreamPreAndPostImages": { "enabled": true } };
            target.run_command(images).await.unwrap();
            std::fs::write(&go_on, "").unwrap();
        };
        let replace = submit(&sum, "replace:totals");
        let first = async { self.run(&replace, &daemons).await };
        tokio::select! {
            outcome = first => outcome?,
            // It never ends by itself.
            () = async { change.await; std::future::pending().await } => {}
        }
        // By its identity a job notices that its input was dropped or replaced while it was read.
        let noted = doc! { "kind": "job", "input_uuid": { "$exists": true } };
        let jobs = self.bed.client.database(&self.own).collection::<Document>("aviary");
        if jobs.find_one(noted).await.unwrap().is_none() {
            return Err("the job does not know its input's identity".to_owned());
        }
        for out in ["merge:totals", "reduce:totals"] {
            self.run(&submit(&sum, out), &daemons).await?;
        }
        let update = submit(&["--query", r#"{"_id": {"$lt": 5}}"#, "--map", emit], "update:totals");
        self.run(&update, &daemons).await?;
        let mut inline = submit(&sum, "inline");
        inline.extend(["--tag".to_owned(), "kept".to_owned()]);
        self.run(&inline, &daemons).await?;
        for verb in [["status", "last"], ["results", "last"], ["logs", "last"]] {
            self.run(&verb, &daemons).await?;
        }
        let job = aviary(&self.uri, &self.own, &["list", "-o", "name"]).await.ok().stdout;
        let job = job.lines().next().unwrap().to_owned();
        self.run(&["rm", &job], &daemons).await?;
        self.run(&["insert", emit, "--name", "flags"], &daemons).await?;
        self.run(&["functions", "rm", "flags"], &daemons).await?;
        // What they only log, and what they do at their end.
        for daemon in daemons {
            wait_for("a worker to have reported", || async {
                let row = doc! { "kind": "worker" };
                let rows = self.bed.client.database(&self.own).collection::<Document>("aviary");
                let known = rows.find_one(row).await.unwrap().is_some();
                (known || refusal(&worker.log().unwrap_or_default()).is_some()).then_some(())
            })
            .await;
            daemon.stop(std::time::Duration::from_secs(60)).await.unwrap();
        }
        self.refused(&daemons)
    }

    fn spawn(&self, daemon: &str, env: &[(&str, &str)]) -> Managed {
        let trusted = format!("{INPUT},{}", self.output);
        let own = [
            ("AVIARY_URI", self.uri.as_str()),
            ("AVIARY_DB", &self.own),
            ("AVIARY_LOG", "aviary=debug"),
            ("AVIARY_TRUST_DATABASES", &trusted),
        ];
        let args: &[&str] =
            if daemon == "worker" { &["worker", "--slots", "1"] } else { &[daemon] };
        self.bed.spawn(daemon, args, &[&own, env].concat())
    }

    /// Runs a verb, until it ends or a daemon says that it was refused something.
    async fn run<S: AsRef<str>>(&self, args: &[S], daemons: &[&Managed]) -> Result<(), String> {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let running = aviary(&self.uri, &self.own, &args);
        let ran = tokio::select! {
            ran = running => ran,
            refused = wait_for("a refusal", || async { self.refused(daemons).err() }) => {
                return Err(refused);
            }
        };
        if let Some(line) = refusal(&ran.stderr) {
            return Err(format!("aviary {}: {}", args[0], shortened(line)));
        }
        assert_eq!(ran.code, 0, "{}: {ran:#?}", self.own);
        self.refused(daemons)
    }

    fn refused(&self, daemons: &[&Managed]) -> Result<(), String> {
        for daemon in daemons {
            if let Some(line) = refusal(&daemon.log().unwrap_or_default()) {
                return Err(format!("{}: {}", daemon.name(), shortened(line)));
            }
        }
        Ok(())
    }
}

async fn fleet<'a>(bed: &'a Bed, name: &str, held: &[Privilege], left_out: usize) -> Fleet<'a> {
    let (own, output) = (format!("{OWN}{name}"), format!("{OUTPUT}{name}"));
    let moved: Vec<Privilege> =
        held.iter().map(|one| one.moved(OWN, &own).moved(OUTPUT, &output)).collect();
    let role = format!("fleet{name}");
    bed.set().create_role(&role, but(&moved, left_out), Vec::new()).await.unwrap();
    let uri = user(bed.set(), &role, &[(&role, "admin")]).await;
    Fleet { bed, uri, own, output }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleets_role_is_enough_and_each_of_its_privileges_is_missed() {
    const AT_ONCE: usize = 3;
    let Some(mongosh) = mongosh().await else { return };
    let bed = crate::bed().await;
    make_roles(&mongosh, bed.set(), &DATABASES).await;
    let held = privileges(bed.set(), "aviary-fleet", "admin").await;
    let whole = fleet(&bed, "", &held, usize::MAX).await;
    assert_eq!(whole.live().await, Ok(()), "the role as it is made");

    let missed: Vec<(usize, &Privilege)> = held.iter().enumerate().collect();
    let mut unmissed = Vec::new();
    for some in missed.chunks(AT_ONCE) {
        let tried = some.iter().map(async |(index, privilege)| {
            let reduced = fleet(&bed, &index.to_string(), &held, *index).await;
            (*privilege, reduced.live().await)
        });
        for (privilege, outcome) in futures_util::future::join_all(tried).await {
            match outcome {
                Err(refused) => println!("without {privilege:<48} {refused}"),
                Ok(()) => unmissed.push(privilege.to_string()),
            }
        }
    }
    assert!(unmissed.is_empty(), "nobody misses these: {unmissed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_for_all_databases_is_enough_to_serve_them() {
    let Some(mongosh) = mongosh().await else { return };
    let bed = crate::bed().await;
    let said = make_roles(&mongosh, bed.set(), &[("ALL", "1")]).await;
    assert_eq!(said.trim(), "created aviary-fleet in admin", "and no other");
    serves_all(&bed, "all", &[("aviary-fleet", "admin")], [INPUT, "another"]).await;
    // As docs/reference/servers.md tells.
    let built_in = [("readWriteAnyDatabase", "admin"), ("dbAdminAnyDatabase", "admin")];
    serves_all(&bed, "built-in", &built_in, ["third", "fourth"]).await;
}

/// Runs a job in each database with a fleet that is told of none, as a user of these roles.
async fn serves_all(bed: &Bed, name: &str, roles: &[(&str, &str)], databases: [&str; 2]) {
    let uri = user(bed.set(), name, roles).await;
    let env = [("AVIARY_URI", uri.as_str()), ("AVIARY_DB", "")];
    let daemons = [
        bed.spawn("coordinator", &["coordinator"], &env),
        bed.spawn("worker", &["worker", "--slots", "1"], &env),
    ];
    let [map, _] = functions(bed);
    for db in databases {
        let orders = bed.client.database(db).collection::<Document>("orders");
        orders.insert_one(doc! { "_id": "one more", "k": 1 }).await.unwrap();
        let submit =
            ["submit", "--quiet", "-c", "orders", "--reduce", "_sum", "--out", "replace:t"];
        let submit = [&submit[..], &["--map", map.to_str().unwrap()]].concat();
        aviary(&uri, db, &submit).await.ok();
    }
    for daemon in daemons {
        let log = daemon.log().unwrap();
        assert_eq!(refusal(&log), None, "{name}");
        assert!(!log.contains("cannot watch all databases"), "{name}: {log}");
    }
}
