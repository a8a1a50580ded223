//! Which verb, daemon and request each role may run, and that it may nothing else.

use std::time::Duration;

use aviary_testcontainers::Managed;
use bson::{Document, doc};
use mongodb::Client;

use crate::common::{Bed, mongosh, wait_for};
use crate::{DATABASES, INPUT, OUTPUT, OWN, REFUSALS};
use crate::{aviary, functions, make_roles, refusal, user};

/// Who: the name in the table, and the roles with the database that each is in.
const WHO: [(&str, &[(&str, &str)]); 6] = [
    ("submit", &[("aviary-submit", OWN)]),
    ("author", &[("aviary-author", OWN)]),
    ("view", &[("aviary-view", OWN)]),
    ("author+view", &[("aviary-author", OWN), ("aviary-view", OWN)]),
    ("other", &[("aviary-fleet-other", "admin")]),
    ("fleet", &[("aviary-fleet", "admin")]),
];

/// What is tried, and who may. Where it changes something, those who may come last.
const MAY: [(&str, &str); 27] = [
    ("list", "view author+view fleet"),
    ("status JOB", "view author+view fleet"),
    ("tasks JOB", "view author+view fleet"),
    ("logs JOB", "view author+view fleet"),
    ("counters JOB", "view author+view fleet"),
    // It holds copies of input, which who looks at jobs need not be allowed to read.
    ("failed JOB", "fleet"),
    ("workers", "view author+view fleet"),
    ("functions list", "author view author+view fleet"),
    ("functions show flags", "author view author+view fleet"),
    ("insert EMIT --name flags", "author author+view fleet"),
    // Whether a job needs the function is in the jobs.
    ("functions rm flags", "author+view fleet"),
    // The results of an inline job are in a collection that only the fleet can name beforehand.
    ("results JOB", "fleet"),
    ("try -c orders --input-db shop --map MAP --reduce _sum", "fleet"),
    ("init", "fleet"),
    ("config set split-bytes 1000000", "fleet"),
    ("config unset split-bytes", "fleet"),
    ("submit -c orders --input-db shop --map MAP --reduce _sum --detach", "submit fleet"),
    ("cancel WAITING", "fleet"),
    ("resume STOPPED", "fleet"),
    ("rm JOB", "fleet"),
    ("coordinator", "fleet"),
    ("worker", "fleet"),
    ("insert a request", "submit fleet"),
    ("read requests", "submit view author+view fleet"),
    ("change a request", "fleet"),
    ("remove a request", ""),
    ("read what other databases hold", ""),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_what_is_told_of_it_and_nothing_else() {
    let Some(mongosh) = mongosh().await else { return };
    let bed = crate::bed().await;
    make_roles(&mongosh, bed.set(), &DATABASES).await;
    // The fleet of another database of the deployment has a role of its own.
    let other = [("DB", "other"), ("FLEET", "aviary-fleet-other")];
    make_roles(&mongosh, bed.set(), &other).await;
    let mut uris = Vec::new();
    for (who, roles) in WHO {
        uris.push((who, user(bed.set(), &who.replace('+', "-"), roles).await));
    }
    let table = Table { bed: &bed, fleet: uris.last().unwrap().1.clone() };
    let (job, stopped) = table.prepare().await;

    println!("{:<66}{}", "", WHO.map(|(who, _)| format!("{who:<12}")).concat());
    let mut wrong = Vec::new();
    for (what, may) in MAY {
        let mut row = String::new();
        for (who, uri) in &uris {
            let outcome = table.allows(uri, what, &job, &stopped).await;
            let told = may.split_whitespace().any(|one| one == *who);
            row += &format!("{:<12}", if outcome.is_ok() { "yes" } else { "-" });
            if outcome.is_ok() != told {
                wrong.push(format!("{who}, {what}: {outcome:?}"));
            }
        }
        println!("{what:<66}{row}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

struct Table<'a> {
    bed: &'a Bed,
    fleet: String,
}

impl Table<'_> {
    /// A job that has ended, and one that waits for a person.
    async fn prepare(&self) -> (String, String) {
        let [map, emit] = functions(self.bed);
        let (map, emit) = (map.to_str().unwrap(), emit.to_str().unwrap());
        let submit = ["submit", "-c", "orders", "--input-db", INPUT, "--map", map];
        let sum = ["--reduce", "_sum", "-o", "name"];
        let daemons = [self.daemon(&self.fleet, "coordinator"), self.daemon(&self.fleet, "worker")];
        let words = [&submit[..], &sum, &["--detach"]].concat();
        aviary(&self.fleet, OWN, &["insert", emit, "--name", "flags"]).await.ok();
        let job = aviary(&self.fleet, OWN, &words).await.ok().stdout.trim().to_owned();
        aviary(&self.fleet, OWN, &["status", "-w", &job]).await.ok();
        // A job that has ended does for one that waits for a person.
        let stopped = aviary(&self.fleet, OWN, &words).await.ok().stdout.trim().to_owned();
        aviary(&self.fleet, OWN, &["status", "-w", &stopped]).await.ok();
        for daemon in &daemons {
            daemon.stop(Duration::from_secs(60)).await.unwrap();
            let log = daemon.log().unwrap();
            assert_eq!(refusal(&log), None, "{}", daemon.name());
        }
        let jobs = self.bed.client.database(OWN).collection::<Document>("aviary");
        let stop = doc! { "$set": { "state": "stopped" } };
        jobs.update_one(doc! { "_id": &stopped }, stop).await.unwrap();
        for db in [OUTPUT, "other"] {
            let rows = self.bed.client.database(db).collection::<Document>("totals");
            rows.insert_one(doc! { "_id": 1 }).await.unwrap();
        }
        let requests = self.bed.client.database(OWN).collection::<Document>("aviary-requests");
        requests.insert_one(doc! { "_id": "first", "v": 1, "cancel": "nobody" }).await.unwrap();
        (job, stopped)
    }

    fn daemon(&self, uri: &str, name: &str) -> Managed {
        let env = [
            ("AVIARY_URI", uri),
            ("AVIARY_DB", OWN),
            ("AVIARY_LOG", "aviary=debug"),
            ("AVIARY_TRUST_DATABASES", INPUT),
        ];
        let args: &[&str] = if name == "worker" { &["worker", "--slots", "1"] } else { &[name] };
        self.bed.spawn(name, args, &env)
    }

    /// Tries it as the user of this address; otherwise the words that refused it.
    async fn allows(&self, uri: &str, what: &str, job: &str, stopped: &str) -> Result<(), String> {
        let [map, emit] = functions(self.bed);
        let (map, emit) = (map.to_str().unwrap(), emit.to_str().unwrap());
        match what {
            "coordinator" | "worker" => return self.daemon_allowed(uri, what).await,
            _ if what.ends_with("request") || what.starts_with("read ") => {
                return request(uri, what).await;
            }
            _ => {}
        }
        if what.starts_with("functions rm") {
            // Whoever was asked before may have removed it.
            aviary(&self.fleet, OWN, &["insert", emit, "--name", "flags"]).await.ok();
        }
        let mut waiting = String::new();
        if what.contains("WAITING") {
            let submit = ["submit", "-c", "orders", "--input-db", INPUT, "--map"];
            let rest = [map, "--reduce", "_sum", "--detach", "-o", "name"];
            let ran = aviary(&self.fleet, OWN, &[&submit[..], &rest].concat()).await.ok();
            waiting = ran.stdout.trim().to_owned();
        }
        let words: Vec<&str> = what
            .split_whitespace()
            .map(|word| match word {
                "JOB" => job,
                "STOPPED" => stopped,
                "WAITING" => &waiting,
                "MAP" => map,
                "EMIT" => emit,
                word => word,
            })
            .collect();
        let ran = aviary(uri, OWN, &words).await;
        let told = format!("{}{}", ran.stdout, ran.stderr);
        match ran.code {
            0 => Ok(()),
            8 if refusal(&told).is_some() => {
                assert!(told.contains("grant"), "it says what to do: {told}");
                Err(told)
            }
            code => panic!("{what} ended with {code}: {told}"),
        }
    }

    async fn daemon_allowed(&self, uri: &str, what: &str) -> Result<(), String> {
        let daemon = self.daemon(uri, what);
        // A worker that is welcome reports; a coordinator takes the role.
        let kind = what.to_owned();
        let rows = self.bed.client.database(OWN).collection::<Document>("aviary");
        let pid = i64::from(daemon.pid());
        wait_for("the daemon to work or be refused", || async {
            if let Some(line) = refusal(&daemon.log().unwrap_or_default()) {
                return Some(Err(line.to_owned()));
            }
            let is_there = match kind.as_str() {
                "worker" => rows.find_one(doc! { "kind": "worker", "pid": pid }).await.ok()?,
                _ => daemon.log().ok()?.contains("role").then(Document::new),
            };
            is_there.map(|_| Ok(()))
        })
        .await
    }
}

/// What needs no Aviary: the database is the interface.
async fn request(uri: &str, what: &str) -> Result<(), String> {
    let client = Client::with_uri_str(uri).await.unwrap();
    let requests = client.database(OWN).collection::<Document>("aviary-requests");
    let id = doc! { "_id": "first" };
    let outcome = match what {
        "insert a request" => {
            let id = bson::oid::ObjectId::new().to_hex();
            requests.insert_one(doc! { "_id": id, "v": 1, "cancel": "nobody" }).await.map(|_| ())
        }
        "read requests" => requests.find_one(id).await.map(|_| ()),
        "change a request" => {
            requests.update_one(id, doc! { "$set": { "state": "accepted" } }).await.map(|_| ())
        }
        "remove a request" => requests.delete_one(id).await.map(|_| ()),
        "read what other databases hold" => {
            for (db, name) in [
                ("config", "image_collection"),
                ("config", "transactions"),
                ("config", "chunks"),
                ("local", "oplog.rs"),
                ("admin", "system.users"),
                ("elsewhere", "totals"),
            ] {
                let found = client.database(db).collection::<Document>(name);
                let Err(error) = found.find_one(doc! {}).await else {
                    return Ok(());
                };
                assert!(error.to_string().contains(REFUSALS[0]), "{error}");
            }
            return Err("none of them".to_owned());
        }
        other => panic!("what is {other}?"),
    };
    outcome.map_err(|error| {
        assert!(error.to_string().contains(REFUSALS[0]), "{error}");
        error.to_string()
    })
}
