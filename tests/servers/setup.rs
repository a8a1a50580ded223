//! Setting Aviary up as users whose roles differ: what is missing is named, with the roles that have it.

use aviary_testcontainers::ReplicaSetOptions;
use bson::{Bson, doc};

use crate::common::{Bed, Ran, run};

const PASSWORD: &str = "least-of-all";

async fn aviary(uri: &str, args: &[&str]) -> Ran {
    let env = [("AVIARY_URI", uri), ("AVIARY_DB", "test")];
    run(args, &env.map(|(name, value)| (name.to_owned(), value.to_owned()))).await
}

fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_users_roles_lack_is_named_with_the_roles_that_have_it() {
    let iterations = ("scramSHA256IterationCount".to_owned(), "5000".to_owned());
    let options =
        ReplicaSetOptions { auth: true, parameters: vec![iterations], ..Default::default() };
    let bed = Bed::with(options).await;
    let user = async |name: &str, roles: &[(&str, &str)]| {
        let roles = roles.iter().map(|(role, db)| Bson::from(doc! { "role": *role, "db": *db }));
        bed.set().create_user(name, PASSWORD, roles.collect()).await.expect("a user");
        bed.set().uri_for_user(name, PASSWORD)
    };
    let data = [("readWrite", "test"), ("dbAdmin", "test")];
    let owner = user("owner", &data).await;
    aviary(&owner, &["init"]).await.ok();
    // As after an upgrade: what is there is changed.
    aviary(&owner, &["init"]).await.ok();
    let writer = user("writer", &[data[0]]).await;
    says(&aviary(&writer, &["init"]).await, 8, &["not permitted", "readWrite and dbAdmin", "test"]);

    let window = ["init", "--history-window", "2h"];
    let manager = user("manager", &[data[0], data[1], ("clusterManager", "admin")]).await;
    let lacking = ["not permitted", "hostManager", "setParameter", "Atlas", "--read committed"];
    for lesser in [&owner, &manager] {
        says(&aviary(lesser, &window).await, 8, &lacking);
    }
    let host = [data[0], data[1], ("hostManager", "admin"), ("clusterMonitor", "admin")];
    aviary(&user("host", &host).await, &window).await.ok();
    let asked = doc! { "getParameter": 1, "minSnapshotHistoryWindowInSeconds": 1 };
    let told = bed.set().run_on_member(0, asked).await.expect("told");
    assert_eq!(told.get_i32("minSnapshotHistoryWindowInSeconds").ok(), Some(7_200));
}

/// What connection strings of other drivers say does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn options_of_other_drivers_are_taken_or_named() {
    let bed = Bed::with(ReplicaSetOptions::default()).await;
    let uri = bed.uri();
    let with = |option: &str| match uri.contains('?') {
        true => format!("{uri}&{option}"),
        false => format!("{uri}?{option}"),
    };
    for option in [
        "compressors=zstd,snappy,zlib",
        "zlibCompressionLevel=6",
        "socketTimeoutMS=30000",
        "waitQueueTimeoutMS=30000",
        "uuidRepresentation=standard",
        "uuidRepresentation=javaLegacy",
    ] {
        aviary(&with(option), &["list"]).await.ok();
    }
    says(&aviary(&with("connectTimeoutMS=soon"), &["list"]).await, 2, &["connectTimeoutMS"]);
    says(&aviary(&with("compressor=zstd"), &["list"]).await, 2, &["not known"]);
}
