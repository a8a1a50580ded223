//! The cluster's time is asked for by many at once, in a database where nobody has asked before.

use aviary::store::{ConnectOptions, Store};
use bson::doc;

use crate::common::Bed;

#[tokio::test(flavor = "multi_thread")]
async fn many_may_be_the_first_to_ask_for_the_time() {
    let bed = Bed::start(1).await.in_parts();
    let mut stores = Vec::new();
    for _ in 0..8 {
        let options = ConnectOptions {
            uri: bed.uri(),
            db: Some("test".into()),
            any_db: false,
            app_name: "clocks".into(),
            shard: None,
            shard_uri: None,
            trusted: Default::default(),
        };
        stores.push(Store::connect(&options).await.expect("connected"));
    }
    stores[0].init().await.expect("set up");
    for _ in 0..50 {
        bed.coll("aviary").delete_many(doc! { "kind": "clock" }).await.expect("deleted");
        let asking: Vec<_> = stores
            .iter()
            .map(|store| {
                let store = store.clone();
                tokio::spawn(async move { store.cluster_time().await })
            })
            .collect();
        for asked in asking {
            asked.await.expect("asked").expect("a time");
        }
    }
}
