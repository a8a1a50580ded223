//! Replica sets serve, survive the loss of a member, and keep to themselves.
#![cfg(test)]

use aviary_testcontainers::mongodb::bson::{Bson, doc};
use aviary_testcontainers::mongodb::{self, Client};
use aviary_testcontainers::{
    Error, FailCommand, ManagedCommand, ReplicaSet, ReplicaSetOptions, Standalone,
    StandaloneOptions, state,
};

async fn start(members: usize) -> ReplicaSet {
    let options = ReplicaSetOptions { members, ..ReplicaSetOptions::default() };
    ReplicaSet::start(options).await.unwrap()
}

async fn count(uri: &str) -> u64 {
    let client = Client::with_uri_str(uri).await.unwrap();
    let things = client.database("test").collection::<mongodb::bson::Document>("things");
    things.count_documents(doc! {}).await.unwrap()
}

async fn insert(uri: &str, id: i32) -> mongodb::error::Result<()> {
    let client = Client::with_uri_str(uri).await?;
    let things = client.database("test").collection("things");
    things.insert_one(doc! { "_id": id }).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_take_zlib() {
    let set = start(1).await;
    let offer = doc! { "hello": 1, "compression": ["zlib", "snappy", "zstd"] };
    let taken = set.run_admin(offer).await.unwrap();
    let taken = taken.get_array("compression").unwrap();
    assert_eq!(*taken, ["snappy", "zstd"].map(Bson::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replica_sets_at_once_do_not_share_data() {
    let (first, second) = tokio::join!(start(1), start(1));
    insert(&first.uri(), 1).await.unwrap();
    assert_eq!(count(&first.uri()).await, 1);
    assert_eq!(count(&second.uri()).await, 0);
    let socket = first.socket(0).unwrap().unwrap();
    assert!(socket.exists());

    let dirs = [first.dir().to_owned(), second.dir().to_owned()];
    let member = first.member(0).unwrap();
    drop((first, second));
    assert!(!dirs[0].exists() && !dirs[1].exists());
    drop(member);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_survive_a_kill_a_freeze_and_a_step_down() {
    let set = start(3).await;
    insert(&set.uri(), 1).await.unwrap();

    let killed = set.wait_primary().await.unwrap();
    set.kill(killed).await.unwrap();
    assert!(!set.member(killed).unwrap().is_running());
    let frozen = set.wait_primary().await.unwrap();
    assert_ne!(frozen, killed);
    insert(&set.uri(), 2).await.unwrap();
    set.restart(killed).await.unwrap();
    set.wait_healthy().await.unwrap();

    set.freeze(frozen).unwrap();
    let third = set.wait_primary().await.unwrap();
    assert_ne!(third, frozen);
    set.thaw(frozen).unwrap();
    set.wait_healthy().await.unwrap();

    let before = set.wait_primary().await.unwrap();
    set.step_down().await.unwrap();
    assert_ne!(set.wait_primary().await.unwrap(), before);
    set.wait_healthy().await.unwrap();
    assert_eq!(count(&set.uri()).await, 2);
    set.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_in_and_a_stranger_does_not() {
    let set = ReplicaSet::start(ReplicaSetOptions {
        auth: true,
        test_commands: true,
        ..ReplicaSetOptions::default()
    })
    .await
    .unwrap();
    let role = doc! { "role": "readWrite", "db": "test" };
    set.create_user("w@rker", "p/w:1", vec![Bson::from(role)]).await.unwrap();
    insert(&set.uri_for_user("w@rker", "p/w:1"), 1).await.unwrap();
    assert_eq!(count(&set.uri()).await, 1);
    assert!(insert(&set.uri_without_user(), 2).await.is_err());
    let wrong = insert(&set.uri_for_user("w@rker", "wrong"), 3).await;
    assert!(wrong.is_err());
    assert_eq!(count(&set.uri()).await, 1);

    let fail = FailCommand {
        commands: vec!["insert".to_owned()],
        app_name: Some("victim".to_owned()),
        times: Some(1),
        error_code: Some(50),
        ..FailCommand::default()
    };
    set.fail_command(0, &fail).await.unwrap();
    insert(&set.uri(), 4).await.unwrap();
    let victim = format!("{}&appName=victim", set.uri());
    assert!(insert(&victim, 5).await.is_err());
    insert(&victim, 6).await.unwrap();
    assert!(set.clear_fail_command(0).await.unwrap() >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_replica_set_is_found_again_and_taken_down() {
    let dir = tempfile::tempdir().unwrap();
    let options = ReplicaSetOptions {
        dir: Some(dir.path().join("set")),
        persistent: true,
        auth: true,
        ..ReplicaSetOptions::default()
    };
    let set = ReplicaSet::start(options.clone()).await.unwrap();
    let (home, uri, pids) = (set.dir().to_owned(), set.uri(), set.pids());
    drop(set);
    insert(&uri, 1).await.unwrap();

    let attached = ReplicaSet::attach(&home).unwrap();
    assert_eq!((attached.uri(), attached.pids()), (uri.clone(), pids));
    attached.restart(0).await.unwrap();
    attached.wait_primary().await.unwrap();
    assert_eq!(count(&uri).await, 1);
    let again = ReplicaSet::start(options.clone()).await;
    assert!(matches!(again, Err(Error::AlreadyRunning { .. })));

    let worker = ManagedCommand::new("sleep", home.join("worker.log")).arg("600").spawn().unwrap();
    attached.adopt(&worker).unwrap();
    let worker = worker.record().clone();
    assert!(worker.is_running());

    let ended = state::down(&home, false).await.unwrap();
    assert_eq!(ended.processes.len(), 2);
    assert!(!worker.is_running());
    assert!(!attached.member(0).unwrap().is_running());
    let set = ReplicaSet::start(options).await.unwrap();
    assert_eq!(set.uri(), uri);
    assert_eq!(count(&uri).await, 1);
    drop(set);
    state::down(&home, true).await.unwrap();
    assert!(!home.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standalone_serves_and_comes_back() {
    let server = Standalone::start(StandaloneOptions::default()).await.unwrap();
    // Without the journal, the last tenth of a second is lost with the process.
    let journalled = format!("{}&journal=true", server.uri());
    insert(&journalled, 1).await.unwrap();
    server.kill().await.unwrap();
    assert!(!server.answers().await);
    server.restart().await.unwrap();
    assert_eq!(count(&server.uri()).await, 1);
}

#[tokio::test]
async fn a_failed_start_shows_what_the_log_says() {
    let started = Standalone::start(StandaloneOptions {
        extra_args: vec!["--noSuchOption".to_owned()],
        ..StandaloneOptions::default()
    })
    .await;
    let Err(error) = started else { panic!("it started") };
    assert!(error.to_string().contains("noSuchOption"), "{error}");
}
