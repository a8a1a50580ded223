//! The roles that `deploy/roles.js` makes, on servers that ask who their clients are: what each allows
//! ([`verbs`]), and that nothing can be taken from them ([`fleet`], [`shard`], [`small`]).

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod fleet;
mod shard;
mod small;
mod verbs;

use std::path::{Path, PathBuf};

use aviary_testcontainers::{ReplicaSet, ReplicaSetOptions};
use bson::{Bson, Document, doc};
use common::{Bed, Ran, root, run};

/// Where Aviary's collections are, the input, and the output.
const OWN: &str = "own";
const INPUT: &str = "shop";
const OUTPUT: &str = "reports";
const PASSWORD: &str = "least-of-all";
/// How the server, and Aviary, say that a privilege is missing.
const REFUSALS: [&str; 2] = ["not authorized", "not permitted"];

/// A replica set whose clients have to say who they are, with some input.
async fn bed() -> Bed {
    // Every process derives its key anew, which takes long without optimization.
    let iterations = ("scramSHA256IterationCount".to_owned(), "5000".to_owned());
    let options =
        ReplicaSetOptions { auth: true, parameters: vec![iterations], ..Default::default() };
    let bed = Bed::with(options).await;
    let orders = bed.client.database(INPUT).collection::<Document>("orders");
    orders.insert_many((0..100).map(|n| doc! { "_id": n, "k": n % 5 })).await.unwrap();
    bed
}

/// Runs the script as an administrator of `set`; without a mongosh there is nothing to run it with.
async fn make_roles(mongosh: &Path, set: &ReplicaSet, env: &[(&str, &str)]) -> String {
    let made = tokio::process::Command::new(mongosh)
        .arg(set.uri())
        .args(["--quiet", "--file"])
        .arg(root().join("deploy/roles.js"))
        .envs(env.iter().copied())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{said}{}", String::from_utf8_lossy(&made.stderr));
    said
}

/// The roles for the databases of these tests.
const DATABASES: [(&str, &str); 3] = [("DB", OWN), ("INPUT_DB", INPUT), ("OUTPUT_DB", OUTPUT)];

/// Makes a user of these roles, and says how it connects.
async fn user(set: &ReplicaSet, name: &str, roles: &[(&str, &str)]) -> String {
    let roles = roles.iter().map(|(role, db)| Bson::from(doc! { "role": *role, "db": *db }));
    set.create_user(name, PASSWORD, roles.collect()).await.unwrap();
    set.uri_for_user(name, PASSWORD)
}

/// What a role holds, as (database, collection, action).
async fn privileges(set: &ReplicaSet, role: &str, db: &str) -> Vec<Privilege> {
    let ask = doc! { "rolesInfo": { "role": role, "db": db }, "showPrivileges": true };
    let told = set.run_admin(ask).await.unwrap();
    let role = told.get_array("roles").unwrap()[0].as_document().unwrap();
    let mut held = Vec::new();
    for privilege in role.get_array("privileges").unwrap() {
        let privilege = privilege.as_document().unwrap();
        let resource = privilege.get_document("resource").unwrap();
        for action in privilege.get_array("actions").unwrap() {
            held.push(Privilege {
                db: resource.get_str("db").unwrap().to_owned(),
                collection: resource.get_str("collection").unwrap().to_owned(),
                action: action.as_str().unwrap().to_owned(),
            });
        }
    }
    held.sort();
    held
}

/// One action on one resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Privilege {
    db: String,
    collection: String,
    action: String,
}

impl Privilege {
    fn document(&self) -> Document {
        doc! {
            "resource": { "db": &self.db, "collection": &self.collection },
            "actions": [&self.action],
        }
    }

    /// The same of another database.
    fn moved(&self, from: &str, to: &str) -> Self {
        let db = if self.db == from { to } else { &self.db };
        Self { db: db.to_owned(), ..self.clone() }
    }
}

impl std::fmt::Display for Privilege {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let collection = if self.collection.is_empty() { "*" } else { &self.collection };
        write!(f, "{:<24} on {}.{collection}", self.action, self.db)
    }
}

/// All of them but the one at `left_out`.
fn but(all: &[Privilege], left_out: usize) -> Vec<Document> {
    let kept = all.iter().enumerate().filter(|(index, _)| *index != left_out);
    kept.map(|(_, privilege)| privilege.document()).collect()
}

/// The first line of a text that tells of a missing privilege.
fn refusal(text: &str) -> Option<&str> {
    text.lines().find(|line| REFUSALS.iter().any(|refusal| line.contains(refusal)))
}

/// A refusal in few words: whatever a log or a message has around the server's own.
fn shortened(line: &str) -> String {
    let start = REFUSALS.iter().filter_map(|refusal| line.find(refusal)).min().unwrap_or(0);
    line[start..].split(" to execute").next().unwrap_or_default().chars().take(90).collect()
}

/// Runs the binary as a user, on [`OWN`] unless the arguments say otherwise.
async fn aviary(uri: &str, db: &str, args: &[&str]) -> Ran {
    let env = [("AVIARY_URI", uri), ("AVIARY_DB", db)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    run(args, &env).await
}

/// The files that functions of these tests are in.
fn functions(bed: &Bed) -> [PathBuf; 2] {
    let map = "function () { print('seen'); emit(this.k, 1) }";
    let emit = "function () { emit(this.k, { seen: true }) }";
    [bed.file("map.js", map), bed.file("emit.js", emit)]
}
