//! The servers of a local deployment.

use std::path::Path;

use aviary_testcontainers::sharded::RouterProgram;
use aviary_testcontainers::{
    Managed, Progress, ReplicaSet, ReplicaSetOptions, ShardedCluster, ShardedClusterOptions,
};

use super::{LocalOptions, local};
use crate::error::{Error, Result};

pub(super) enum Servers {
    Set(Box<ReplicaSet>),
    Cluster(Box<ShardedCluster>),
}

impl Servers {
    pub(super) async fn start(options: &LocalOptions, progress: Progress) -> Result<Self> {
        let LocalOptions { shards, members, port, stays: persistent, .. } = *options;
        let dir = options.dir.clone();
        if shards == 0 {
            let options = ReplicaSetOptions {
                members,
                dir,
                ports: port,
                persistent,
                progress,
                ..ReplicaSetOptions::default()
            };
            let set = ReplicaSet::start(options).await.map_err(local)?;
            return Ok(Self::Set(Box::new(set)));
        }
        let options = ShardedClusterOptions {
            shards,
            shard_members: members,
            dir,
            port,
            balancer: true,
            persistent,
            router: router_program()?,
            progress,
            ..ShardedClusterOptions::default()
        };
        let cluster = ShardedCluster::start(options).await.map_err(local)?;
        Ok(Self::Cluster(Box::new(cluster)))
    }

    pub(super) fn uri(&self) -> String {
        match self {
            Self::Set(set) => set.uri(),
            Self::Cluster(cluster) => cluster.uri(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        match self {
            Self::Set(set) => set.dir(),
            Self::Cluster(cluster) => cluster.dir(),
        }
    }

    pub(super) fn adopt(&self, daemon: &Managed) -> Result<()> {
        match self {
            Self::Set(set) => set.adopt(daemon),
            Self::Cluster(cluster) => cluster.adopt(daemon),
        }
        .map_err(local)
    }

    /// For each worker the server it runs beside, if it is to have a link of its own: the members of
    /// each shard in turn.
    pub(super) fn beside(&self, workers: usize) -> Result<Vec<Option<String>>> {
        let Self::Cluster(cluster) = self else { return Ok(vec![None; workers]) };
        let mut links = Vec::new();
        for shard in 0..cluster.shard_count() {
            let shard = cluster.shard(shard).map_err(local)?;
            for worker in 0..workers {
                let member = worker % shard.member_count().max(1);
                links.push(Some(member_uri(shard, member)?));
            }
        }
        Ok(links)
    }

    /// Why these servers are for trying things out only, if they are.
    pub(super) async fn caution(&self) -> Option<String> {
        let set = match self {
            Self::Set(set) => set,
            Self::Cluster(cluster) => cluster.shard(0).ok()?,
        };
        let told = set.run_admin(bson::doc! { "buildInfo": 1 }).await.ok()?;
        aviary_testcontainers::mongod::caution(told.get_str("version").ok()?)
    }

    pub(super) async fn shutdown(self) -> Result<()> {
        match self {
            Self::Set(set) => set.shutdown().await,
            Self::Cluster(cluster) => cluster.shutdown().await,
        }
        .map_err(local)
    }
}

/// A member's address: its unix socket where it has one.
pub(super) fn member_uri(set: &ReplicaSet, member: usize) -> Result<String> {
    let host = match set.socket(member).map_err(local)? {
        Some(socket) => socket.display().to_string().replace('/', "%2F"),
        None => format!("127.0.0.1:{}", set.port(member).map_err(local)?),
    };
    Ok(format!("mongodb://{host}/?directConnection=true"))
}

/// A real mongos where there is one; otherwise this very program as a stand-in for it.
pub(super) fn router_program() -> Result<RouterProgram> {
    if aviary_testcontainers::sharded::mongos().is_some() {
        return Ok(RouterProgram::Auto);
    }
    let path = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
    Ok(RouterProgram::Program { path, args: vec![crate::cli::args::ROUTER_VERB.to_owned()] })
}
